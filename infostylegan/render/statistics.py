"""What can be measured of an image without knowing what it shows, and how strongly a code goes with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from infostylegan.codes import Code
from metrics.judges import PIXEL_JUDGES

Values = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]  # [n, C, H, W]


def _luminance(images: Bytes) -> Values:
    """[n, H, W], 0 … 1 (Rec. 601)."""
    x = images / 255.0
    return x[:, 0] if x.shape[1] == 1 else np.tensordot(x, [0.299, 0.587, 0.114], axes=(1, 0))


def _moments(images: Bytes) -> tuple[Values, Values, Values, Values, Values]:
    """Of luminance as a mass on [-1, 1]²: centre x and y, variance x and y, covariance, each [n]."""
    mass = _luminance(images) + 1e-9
    mass = mass / mass.sum(axis=(1, 2), keepdims=True)
    y, x = np.meshgrid(*(np.linspace(-1.0, 1.0, size) for size in mass.shape[1:]), indexing="ij")
    at_x, at_y = (mass * x).sum(axis=(1, 2)), (mass * y).sum(axis=(1, 2))
    dx, dy = x - at_x[:, None, None], y - at_y[:, None, None]
    xx, yy, xy = ((mass * d).sum(axis=(1, 2)) for d in (dx * dx, dy * dy, dx * dy))
    return at_x, at_y, xx, yy, xy


def saturation(images: Bytes) -> Values:
    """Mean of (largest - smallest channel), 0 … 1; 0 of gray."""
    return (images.max(axis=1).astype(np.float64) - images.min(axis=1)).mean(axis=(1, 2)) / 255.0


def sharpness(images: Bytes) -> Values:
    """Mean absolute difference of neighbouring pixels, over the deviation of all: fine detail and edges."""
    light = _luminance(images)
    steps = [np.abs(np.diff(light, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    return (steps[0] + steps[1]) / 2 / (light.std(axis=(1, 2)) + 1e-6)


def right_lit(images: Bytes) -> Values:
    """Where the light lies from left (-1) to right (1): left-right asymmetry, with its sign."""
    return _moments(images)[0]


def bottom_lit(images: Bytes) -> Values:
    """Where the light lies from top (-1) to bottom (1)."""
    return _moments(images)[1]


def extent(images: Bytes) -> Values:
    """How far the light spreads from its centre, 0 … 1: small shapes against large ones."""
    _, _, xx, yy, _ = _moments(images)
    return np.sqrt(xx + yy)


def elongation(images: Bytes) -> Values:
    """Log of height over width of what is lit."""
    _, _, xx, yy, _ = _moments(images)
    return 0.5 * np.log((yy + 1e-9) / (xx + 1e-9))


def slant(images: Bytes) -> Values:
    """How far what is lit leans to the right going up, as a slope."""
    _, _, _, yy, xy = _moments(images)
    return -xy / (yy + 1e-9)


def centre_lit(images: Bytes) -> Values:
    """Luminance of the middle quarter over that of the whole, as a log ratio."""
    light = _luminance(images)
    height, width = light.shape[1:]
    middle = light[:, height // 4 : -(height // 4), width // 4 : -(width // 4)].mean(axis=(1, 2))
    return np.log((middle + 1e-3) / (light.mean(axis=(1, 2)) + 1e-3))


STATISTICS: dict[str, Callable[[Any], Values]] = {
    **PIXEL_JUDGES,
    "saturation": saturation,
    "sharpness": sharpness,
    "light to the right": right_lit,
    "light to the bottom": bottom_lit,
    "light in the centre": centre_lit,
    "size": extent,
    "tallness": elongation,
    "slant": slant,
}


def measure_statistics(images: Bytes) -> dict[str, Values]:
    """Every statistic of images [n, C, H, W], each [n]."""
    return {name: function(images) for name, function in STATISTICS.items()}


def association(code: Code, values: Values, measure: Values) -> float:
    """How strongly a code goes with a measure over n images; both [n].

    Ordered codes: Spearman's rank correlation, -1 … 1. Categories: the correlation ratio of the ranks, 0 … 1,
    whose square is the share of their variance that lies between categories, less what chance would give
    (Kelley's epsilon squared). 0 for a measure that is the same everywhere.
    """
    ranks = rankdata(measure)
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if total <= 0 or len(measure) < 3:
        return 0.0
    if code.kind != "cat":
        other = rankdata(values)
        other, ranks = other - other.mean(), ranks - ranks.mean()
        size = float(np.sqrt((other**2).sum() * total))
        return float((other * ranks).sum()) / size if size > 0 else 0.0
    groups = [ranks[values == value] for value in np.unique(values)]
    within = float(sum(((group - group.mean()) ** 2).sum() for group in groups))
    spare = len(ranks) - len(groups)
    if spare <= 0:
        return 0.0
    return float(np.sqrt(max(0.0, 1.0 - (within / spare) / (total / (len(ranks) - 1)))))


def chance_level(samples: int, comparisons: int) -> float:
    """The correlation that the strongest of so many, all of nothing, stays below in 95 of 100 atlases."""
    return float(norm.ppf(1.0 - 0.025 / max(1, comparisons)) / np.sqrt(max(2, samples) - 1))
