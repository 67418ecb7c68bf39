"""Reading a factor back from images: a ridge regression on an extractor's features, with its own quality.

A judge for ACM where an attribute cannot be counted from pixels. It is independent of the model that is
judged: it is fitted to real images, whose factors are known, with a network that the model has never met.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metrics.errors import MetricError

PENALTIES = (1e-1, 1e0, 1e1, 1e2, 1e3, 1e4)
READABLE = 0.5  # R² on held-out images from which a reader is taken as a judge


@dataclass(frozen=True)
class FactorReader:
    """value = (features - mean) / scale · weights + offset."""

    mean: np.ndarray  # [D]
    scale: np.ndarray  # [D]
    weights: np.ndarray  # [D]
    offset: float
    r2: float  # on held-out images
    spread: float  # standard deviation of the factor in the data

    @property
    def readable(self) -> bool:
        return self.r2 >= READABLE

    def __call__(self, features: ArrayLike) -> np.ndarray:
        """The factor [N] as it is read from features [N, D]."""
        return (np.asarray(features, np.float64) - self.mean) / self.scale @ self.weights + self.offset


def fit_reader(
    features: ArrayLike, factor: ArrayLike, *, seed: int = 0, held_out: float = 0.3
) -> FactorReader:
    """Learn to read a factor [N], numbers, from features [N, D] of the same images.

    The penalty is chosen, and R² taken, on different parts of the images held out. Raises MetricError for
    arrays that do not fit together, NaN, a constant factor, or fewer than 20 images.
    """
    x, y = np.asarray(features, np.float64), np.asarray(factor, np.float64)
    if x.ndim != 2 or y.shape != (len(x),) or len(x) < 20:
        raise MetricError(f"a reader needs features [N, D] and a factor [N], N of 20 or more: got {x.shape}, "
                          f"{y.shape}")  # fmt: skip
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise MetricError("features or factor hold NaN or infinities")
    if y.std() == 0:
        raise MetricError("the factor is constant: there is nothing to read")
    order = np.random.default_rng(seed).permutation(len(x))
    half = max(2, round(held_out * len(x) / 2))
    choose, test, learn = order[:half], order[half : 2 * half], order[2 * half :]
    mean, scale = x[learn].mean(axis=0), x[learn].std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    z, offset = (x - mean) / scale, float(y[learn].mean())
    # One decomposition serves every penalty.
    u, s, vt = np.linalg.svd(z[learn], full_matrices=False)
    projected = u.T @ (y[learn] - offset)

    def weights(penalty: float) -> np.ndarray:
        return vt.T @ (s / (s**2 + penalty) * projected)

    best = min(PENALTIES, key=lambda p: float(np.square(z[choose] @ weights(p) + offset - y[choose]).mean()))
    w = weights(best)
    residual = y[test] - z[test] @ w - offset
    spread = float(np.square(y[test] - y[test].mean()).sum())
    r2 = 1.0 - float(np.square(residual).sum()) / spread if spread > 0 else 0.0
    return FactorReader(mean, scale, w, offset, r2, float(y.std()))
