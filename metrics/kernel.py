"""Kernel distance between two sets of features (KID where they are Inception's), with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metrics.errors import MetricError

BLOCK = 1024  # rows of a kernel matrix that are held at a time


@dataclass(frozen=True)
class KernelDistance:
    """The unbiased estimate of MMD², its standard error and its 95 % interval; it may fall below 0."""

    value: float
    error: float
    interval: tuple[float, float]


def kid(real: ArrayLike, generated: ArrayLike, *, block: int = BLOCK) -> KernelDistance:
    """MMD² with the kernel (x·y / D + 1)³ between features [N, D] and [M, D] (Bińkowski et al. 2018).

    The unbiased estimate over all pairs, of which the usual mean over subsets is a noisier estimate. The
    standard error is that of a two-sample U-statistic, from each sample's mean kernel with the others. Work
    is N · M · D; memory is one block × block matrix. Raises MetricError for NaN, sides of different width and
    fewer than two samples.
    """
    x, y = _checked("real", real), _checked("generated", generated)
    if x.shape[1] != y.shape[1]:
        raise MetricError(f"features of {x.shape[1]} and {y.shape[1]} dimensions cannot be compared")
    n, m = len(x), len(y)
    xx, xy, yx, yy = np.zeros(n), np.zeros(n), np.zeros(m), np.zeros(m)
    for sums, side in ((xx, x), (yy, y)):
        for i in range(0, len(side), block):
            for j in range(i, len(side), block):
                kernel = _kernel(side[i : i + block], side[j : j + block])
                if i == j:
                    np.fill_diagonal(kernel, 0.0)
                else:
                    sums[j : j + block] += kernel.sum(axis=0)
                sums[i : i + block] += kernel.sum(axis=1)
    for i in range(0, n, block):
        for j in range(0, m, block):
            kernel = _kernel(x[i : i + block], y[j : j + block])
            xy[i : i + block] += kernel.sum(axis=1)
            yx[j : j + block] += kernel.sum(axis=0)
    # Each sample's say: its mean kernel with its own side, less that with the other.
    on_x, on_y = xx / (n - 1) - xy / m, yy / (m - 1) - yx / n
    value = float(on_x.mean() + on_y.mean())
    error = float(2.0 * np.sqrt(on_x.var(ddof=1) / n + on_y.var(ddof=1) / m))
    return KernelDistance(value, error, (value - 1.96 * error, value + 1.96 * error))


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product = a @ b.T
    product /= a.shape[1]
    product += 1.0
    return product * product * product


def _checked(side: str, features: ArrayLike) -> np.ndarray:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise MetricError(f"{side} features must be [N, D] with N of 2 or more, got {list(x.shape)}")
    if not np.isfinite(x).all():
        raise MetricError(f"the {side} features hold NaN or infinities")
    return x
