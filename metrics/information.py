"""Entropies and mutual information in nats, exact on tables of probabilities or counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def entropy(p: ArrayLike, axis: int = -1) -> np.ndarray:
    """-sum p log p along an axis; 0 log 0 = 0."""
    q = np.asarray(p, dtype=np.float64)
    return -np.sum(q * np.log(q, where=q > 0, out=np.zeros_like(q)), axis=axis)


def joint_counts(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How often each pair of classes a [N] and b [N] occurs, [classes of a, classes of b]."""
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    return np.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns)


def mutual_information(counts: ArrayLike) -> float:
    """I(A; B) of a joint table of counts or probabilities (plug-in)."""
    p = np.asarray(counts, dtype=np.float64)
    p = p / p.sum()
    value = entropy(p.sum(axis=1)) + entropy(p.sum(axis=0)) - entropy(p.ravel())
    return max(0.0, float(value))


def equal_width_bins(column: np.ndarray, bins: int) -> np.ndarray:
    """Classes int64 [N] of `bins` bins of equal width between the smallest and the largest value."""
    low, high = column.min(), column.max()
    if low == high:
        return np.zeros(len(column), dtype=np.int64)
    return np.minimum((bins * ((column - low) / (high - low))).astype(np.int64), bins - 1)
