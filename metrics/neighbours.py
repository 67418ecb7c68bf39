"""Improved precision and recall of generated images, by neighbours in a space of features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metrics.acm import Proportion, proportion
from metrics.errors import MetricError

BLOCK = 2048  # rows and columns of a matrix of distances that are held at a time


@dataclass(frozen=True)
class PrecisionRecall:
    """Both shares, and which real sample each generated one is nearest to.

    Their intervals are for the samples judged, with the manifold that judges them given.
    """

    precision: Proportion
    recall: Proportion
    inside: np.ndarray  # bool [M]: whether each generated sample lies among the real ones
    covered: np.ndarray  # bool [N]: whether each real sample lies among the generated ones
    nearest_real: np.ndarray  # int64 [M]: of each generated sample
    nearest_distance: np.ndarray  # float64 [M]: how far that is


def precision_recall(
    real: ArrayLike, generated: ArrayLike, k: int = 3, *, block: int = BLOCK
) -> PrecisionRecall:
    """Precision: the share of generated samples within some real sample's k-th neighbour distance; recall the
    same with the sides exchanged (Kynkäänniemi et al. 2019).

    `real` [N, D], `generated` [M, D]; memory is one block × block matrix. Raises MetricError for NaN, sides
    of different width and fewer than k + 1 samples.
    """
    x, y = _checked("real", real, k), _checked("generated", generated, k)
    if x.shape[1] != y.shape[1]:
        raise MetricError(f"features of {x.shape[1]} and {y.shape[1]} dimensions cannot be compared")
    # Distances do not change with the origin, and their squares cancel least about the mean.
    centre = x.mean(axis=0, dtype=np.float64)
    x, y = x - centre, y - centre
    radius_x, radius_y = _radii(x, k, block), _radii(y, k, block)
    inside, covered = np.zeros(len(y), bool), np.zeros(len(x), bool)
    nearest, distance = np.zeros(len(y), np.int64), np.full(len(y), np.inf)
    for i in range(0, len(x), block):
        rows = slice(i, i + block)
        for j in range(0, len(y), block):
            columns = slice(j, j + block)
            d = _squared_distances(x[rows], y[columns])
            inside[columns] |= (d <= radius_x[rows, None]).any(axis=0)
            covered[rows] |= (d <= radius_y[None, columns]).any(axis=1)
            _keep_nearest(d, i, nearest[columns], distance[columns])
    precision = proportion(float(inside.mean()), len(y))
    recall = proportion(float(covered.mean()), len(x))
    return PrecisionRecall(precision, recall, inside, covered, nearest, np.sqrt(distance))


def nearest_neighbours(
    queries: ArrayLike, points: ArrayLike, *, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """For each of `queries` [M, D] the index of the nearest of `points` [N, D] and its distance, both [M]."""
    q, p = np.asarray(queries, np.float64), np.asarray(points, np.float64)
    centre = p.mean(axis=0)
    q, p = q - centre, p - centre
    nearest, distance = np.zeros(len(q), np.int64), np.full(len(q), np.inf)
    for i in range(0, len(p), block):
        for j in range(0, len(q), block):
            columns = slice(j, j + block)
            d = _squared_distances(p[i : i + block], q[columns])
            _keep_nearest(d, i, nearest[columns], distance[columns])
    return nearest, np.sqrt(distance)


def _keep_nearest(d: np.ndarray, first: int, nearest: np.ndarray, distance: np.ndarray) -> None:
    """Update, in place, each column's nearest row so far by squared distances to rows from `first` on."""
    best = d.argmin(axis=0)
    found = d[best, np.arange(d.shape[1])]
    closer = found < distance
    nearest[closer], distance[closer] = best[closer] + first, found[closer]


def _radii(x: np.ndarray, k: int, block: int) -> np.ndarray:
    """Squared distance of each sample to its k-th neighbour, itself not counted."""
    radii = np.empty(len(x))
    for i in range(0, len(x), block):
        rows = x[i : i + block]
        best = np.full((len(rows), k), np.inf)
        for j in range(0, len(x), block):
            d = _squared_distances(rows, x[j : j + block])
            if i == j:
                np.fill_diagonal(d, np.inf)
            both = np.concatenate([best, d], axis=1)
            best = np.partition(both, k - 1, axis=1)[:, :k]
        radii[i : i + block] = best.max(axis=1)
    return radii


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    d = a @ b.T
    d *= -2.0
    d += np.einsum("ij,ij->i", a, a)[:, None]
    d += np.einsum("ij,ij->i", b, b)[None]
    return np.maximum(d, 0.0, out=d)


def _checked(side: str, features: ArrayLike, k: int) -> np.ndarray:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) <= k:
        raise MetricError(f"{side} features must be [N, D] with N above k = {k}, got {list(x.shape)}")
    if not np.isfinite(x).all():
        raise MetricError(f"the {side} features hold NaN or infinities")
    return x
