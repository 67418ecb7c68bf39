"""Fréchet distance between two sets of features, and the moments it needs, gathered as images pass by."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from metrics.errors import MetricError

# Where the smallest pivot of a Cholesky factor is below this share of the largest, the matrix is taken as
# singular: what the factor says of its null space is rounding.
PIVOT_FLOOR = 1e-7
# Rows gathered before a product is taken: one product of many rows is far faster than many of few.
BLOCK = 1024


class FewSamples(UserWarning):
    """Fewer samples than dimensions: a covariance is singular and the distance biased upwards."""


@dataclass(frozen=True)
class Moments:
    """Mean [D] and covariance [D, D] (division by N - 1) of N feature vectors, in float64."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


@dataclass(frozen=True)
class FrechetDistance:
    """The distance, and the two parts that add up to it."""

    value: float
    means: float  # ‖μr − μg‖²
    covariances: float  # Tr(Σr + Σg − 2 (Σr Σg)^½)


class FeatureStatistics:
    """Mean and covariance of features that come in batches; memory does not depend on how many come.

    Sums are held in float64, of the difference from the first batch's mean, so that features far from the
    origin lose no digits.
    """

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        self._shift: np.ndarray | None = None
        self._sum = np.zeros(dimensions)
        self._products = np.zeros((dimensions, dimensions), order="F")
        self._waiting: list[np.ndarray] = []
        self._rows = 0

    def append(self, features: ArrayLike) -> None:
        """Add features [n, D]. Raises MetricError for another shape, NaN or infinities."""
        x = _checked(features)
        if x.shape[1] != len(self._sum):
            raise MetricError(f"features have {x.shape[1]} columns, not {len(self._sum)}")
        if self._shift is None:
            self._shift = x.mean(axis=0)
        self.count += len(x)
        self._waiting.append(x)
        self._rows += len(x)
        if self._rows >= BLOCK:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        x = np.concatenate(self._waiting) - self._shift
        self._sum += x.sum(axis=0)
        # The upper triangle alone, in place: half of the work of a full product.
        self._products = scipy.linalg.blas.dsyrk(1.0, x.T, 1.0, self._products, overwrite_c=True)
        self._waiting, self._rows = [], 0

    def moments(self) -> Moments:
        """Raises MetricError for fewer than two samples."""
        self._flush()
        if self.count < 2 or self._shift is None:
            raise MetricError(f"a covariance needs at least 2 samples, got {self.count}")
        mean = self._sum / self.count
        upper = np.triu(self._products)
        products = upper + np.triu(upper, 1).T
        covariance = (products - self.count * np.outer(mean, mean)) / (self.count - 1)
        return Moments(mean + self._shift, covariance, self.count)


def frechet_distance(real: ArrayLike | Moments, generated: ArrayLike | Moments) -> FrechetDistance:
    """‖μr − μg‖² + Tr(Σr + Σg − 2 (Σr Σg)^½) (paper, Eq. 14; Heusel et al. 2017), FID where features are
    Inception's.

    Either side is features [N, D] or their `Moments`. Warns (FewSamples) where a side has no more samples
    than dimensions. Raises MetricError for NaN, fewer than two samples and sides of different width.
    """
    r, g = _moments(real), _moments(generated)
    if r.mean.shape != g.mean.shape:
        raise MetricError(f"features of {len(r.mean)} and {len(g.mean)} dimensions cannot be compared")
    dimensions = len(r.mean)
    for side, m in (("real", r), ("generated", g)):
        if m.count <= dimensions:
            warnings.warn(
                f"{m.count} {side} samples in {dimensions} dimensions: the covariance is singular, and the "
                "Fréchet distance is biased upwards; use more samples",
                FewSamples,
                stacklevel=2,
            )
    gap = r.mean - g.mean
    # The side that is more likely to be singular first, where that is noticed.
    few, many = sorted((r, g), key=lambda m: m.count)
    root = trace_of_root(few.covariance, many.covariance)
    means = float(gap @ gap)
    covariances = float(np.trace(r.covariance) + np.trace(g.covariance) - 2.0 * root)
    return FrechetDistance(means + covariances, means, covariances)


def trace_of_root(a: np.ndarray, b: np.ndarray) -> float:
    """Tr (A B)^½ of two covariances [D, D].

    With A = L Lᵀ (Cholesky), A B has the eigenvalues of the symmetric Lᵀ B L, so that the trace is the sum of
    their roots, and no root of a matrix is ever formed. Where A is singular, A = F Fᵀ and B = H Hᵀ from the
    eigenvectors of their ranges, and the trace is the sum of the singular values of Fᵀ H: the roots of what
    rounding leaves in a null space would add up.
    """
    import torch  # here, because it is slow to load and the other functions do without

    a, b = a.T, b.T  # the same, and laid out as LAPACK reads it
    factor, failed = scipy.linalg.lapack.dpotrf(a, lower=1)
    pivots = np.diag(factor)
    if failed or not np.isfinite(pivots).all() or pivots.min() < PIVOT_FLOOR * pivots.max():
        return float(scipy.linalg.svdvals(_range(a).T @ _range(b), check_finite=False).sum())
    # Lᵀ B L as LAPACK forms it for generalised eigenproblems: one triangle, a quarter of two full products.
    inner, _ = scipy.linalg.lapack.dsygst(b, factor, itype=2, lower=1)
    # torch's eigenvalues, because they take half of the time of SciPy's.
    values = torch.linalg.eigvalsh(torch.from_numpy(inner.T), UPLO="U").numpy()
    return float(np.sqrt(values.clip(min=0.0)).sum())


def _range(covariance: np.ndarray) -> np.ndarray:
    """F [D, rank] with F Fᵀ = covariance."""
    values, vectors = scipy.linalg.eigh(covariance, check_finite=False)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def _moments(side: ArrayLike | Moments) -> Moments:
    if isinstance(side, Moments):
        if not (np.isfinite(side.mean).all() and np.isfinite(side.covariance).all()):
            raise MetricError("the moments hold NaN or infinities")
        return side
    x = _checked(side)
    statistics = FeatureStatistics(x.shape[1])
    statistics.append(x)
    return statistics.moments()


def _checked(features: ArrayLike) -> np.ndarray:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2:
        raise MetricError(f"features must be [N, D], got {list(x.shape)}")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).any(axis=1).sum())
        raise MetricError(f"{bad} of {len(x)} feature vectors hold NaN or infinities")
    return x
