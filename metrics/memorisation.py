"""Whether a generator repeats its training images: how near they are, against how near real ones are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from metrics.acm import Proportion, proportion
from metrics.errors import MetricError
from metrics.neighbours import nearest_neighbours


@dataclass(frozen=True)
class Memorisation:
    """`value` is the probability that a generated image lies nearer to the reference images than a real image
    of other patients does: 0.5 where generated images are as new as real ones, towards 1 where they repeat.
    """

    value: float
    interval: tuple[float, float]  # 95 %, Hanley and McNeil's standard error
    copies: Proportion  # share of generated images nearer to a real one than any real of another patient is
    nearest: np.ndarray  # int64 [M]: the reference image nearest to each generated one
    distance: np.ndarray  # float64 [M]
    real_distance: np.ndarray  # float64 [H]: of each held-out real image to the reference images
    reference: np.ndarray  # int64: which of the real images are the reference


def memorisation(
    real: ArrayLike, generated: ArrayLike, *, patients: ArrayLike | None = None, seed: int = 0
) -> Memorisation:
    """Compare distances to the nearest reference image, of generated images and of real ones held out.

    The real images [N, D] are halved, no patient on both sides: two photographs of one eye are near each
    other without either having been copied. Features of generated images are [M, D]. The statistic is that of
    Mann and Whitney (Meehan et al. 2020 test for copies with it). Raises MetricError for fewer than four real
    images, or patients.
    """
    x, y = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise MetricError(f"features must be [N, D] and [M, D], got {list(x.shape)} and {list(y.shape)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise MetricError("the features hold NaN or infinities")
    groups = (
        np.arange(len(x)) if patients is None else np.unique(patients, return_inverse=True)[1].reshape(-1)
    )
    if len(groups) != len(x):
        raise MetricError(f"{len(groups)} patients for {len(x)} real images")
    if groups.max(initial=0) < 3:
        raise MetricError(f"{groups.max(initial=-1) + 1} patients (or images) are too few to hold some out")
    side = np.random.default_rng(seed).permutation(groups.max() + 1) % 2
    reference, held = np.flatnonzero(side[groups] == 0), np.flatnonzero(side[groups] == 1)
    nearest, distance = nearest_neighbours(y, x[reference])
    _, real_distance = nearest_neighbours(x[held], x[reference])
    m, h = len(distance), len(real_distance)
    ranks = rankdata(np.concatenate([distance, real_distance]))
    # Ranks of the generated: small where they are near. P(generated < real) + P(equal) / 2.
    value = 1.0 - (ranks[:m].sum() - m * (m + 1) / 2) / (m * h)
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    spread = value * (1 - value) + (m - 1) * (q1 - value**2) + (h - 1) * (q2 - value**2)
    half = 1.96 * float(np.sqrt(max(spread, 0.0) / (m * h)))
    copies = proportion(float((distance < real_distance.min()).mean()), m)
    return Memorisation(
        float(value), (max(0.0, value - half), min(1.0, value + half)), copies, reference[nearest], distance,
        real_distance, reference,
    )  # fmt: skip
