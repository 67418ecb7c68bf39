"""Automatic judges for ACM: an attribute is measured in each image of a row, and a stated rule votes.

The rule, for a code whose values have an order: along the row the measure moves by `least` or more from one
end to the other, in the direction that most rows share, and on its way never turns back by more than `slack`
of that. For a categorical code: the measure differs between the values by `least` or more, and is highest for
the value for which it is highest in most rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metrics.acm import Proportion, acm
from metrics.errors import MetricError

SLACK = 0.1
LIT = 0.1  # luminance from which a pixel counts as part of the picture, not of the dark around it


@dataclass(frozen=True)
class AutomaticACM:
    """ACM by a judge that measures."""

    score: Proportion
    votes: np.ndarray  # bool [N]
    rising: bool  # whether most rows rise from the first value to the last; for a categorical: True
    movement: float  # mean over rows of the signed movement (of a categorical: of the range)
    least: float
    slack: float

    @property
    def value(self) -> float:
        return self.score.value


def automatic_acm(
    measures: ArrayLike, *, least: float, slack: float = SLACK, ordered: bool = True
) -> AutomaticACM:
    """Votes on rows of measures [N rows, S values of the code], by the rule of this module.

    A useful `least` is one standard deviation of the attribute in the data. Raises MetricError for less than
    two values, NaN, or a `least` that is not above 0.
    """
    m = np.asarray(measures, dtype=np.float64)
    if m.ndim != 2 or m.shape[1] < 2 or not len(m):
        raise MetricError(
            f"measures must be [rows, values of the code], with two values or more; got {m.shape}"
        )
    if not np.isfinite(m).all():
        raise MetricError(f"row {int(np.argwhere(~np.isfinite(m))[0][0])} has a measure that is not a number")
    if not (least > 0 and 0 <= slack < 1):
        raise MetricError(f"least must be above 0 and slack within 0 … 1; got {least} and {slack}")
    if not ordered:
        span = m.max(axis=1) - m.min(axis=1)
        top = m.argmax(axis=1)
        common = np.bincount(top, weights=span >= least, minlength=m.shape[1]).argmax()
        votes = (span >= least) & (top == common)
        return AutomaticACM(acm(votes), votes, True, float(span.mean()), least, slack)
    total = m[:, -1] - m[:, 0]
    moved = np.abs(total) >= least
    rising = bool((total[moved] > 0).sum() * 2 >= moved.sum()) if moved.any() else bool(total.mean() >= 0)
    forward = m if rising else -m
    # How far a row falls back below the highest it has reached so far.
    back = (np.maximum.accumulate(forward, axis=1) - forward).max(axis=1)
    votes = moved & ((total > 0) == rising) & (back <= slack * np.abs(total))
    return AutomaticACM(acm(votes), votes, rising, float(total.mean()), least, slack)


def _channels(images: np.ndarray) -> np.ndarray:
    """float [n, 3, H, W] in 0 … 1 from uint8 [n, 1 or 3, H, W]."""
    x = np.asarray(images)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.dtype != np.uint8:
        raise MetricError(f"images must be uint8 [n, 1 or 3, H, W]; got {x.dtype} {list(x.shape)}")
    return np.broadcast_to(x / 255.0, (len(x), 3, *x.shape[2:]))


def _luminance(x: np.ndarray) -> np.ndarray:
    return np.tensordot(x, [0.299, 0.587, 0.114], axes=(1, 0))


def _over_lit(values: np.ndarray, luminance: np.ndarray) -> np.ndarray:
    """The mean of values [n, H, W] over the pixels that are lit, [n]; over all where none is."""
    lit = luminance >= LIT
    lit |= ~lit.any(axis=(1, 2), keepdims=True)
    return (values * lit).sum(axis=(1, 2)) / lit.sum(axis=(1, 2))


def brightness(images: ArrayLike) -> np.ndarray:
    """Mean luminance (Rec. 601) of uint8 [n, C, H, W] over lit pixels, 0 … 1."""
    luminance = _luminance(_channels(np.asarray(images)))
    return _over_lit(luminance, luminance)


def contrast(images: ArrayLike) -> np.ndarray:
    """Standard deviation of luminance over lit pixels."""
    luminance = _luminance(_channels(np.asarray(images)))
    mean = _over_lit(luminance, luminance)
    return np.sqrt(_over_lit((luminance - mean[:, None, None]) ** 2, luminance))


def pigmentation(images: ArrayLike) -> np.ndarray:
    """Share of red in the colour, R / (R + G + B), over lit pixels: 1/3 for gray.

    A chromaticity, so that more light alone does not move it. Pigment absorbs the short wavelengths most.
    """
    x = _channels(np.asarray(images))
    return _over_lit(x[:, 0] / np.maximum(x.sum(axis=1), 1e-6), _luminance(x))


def hue(images: ArrayLike) -> np.ndarray:
    """Mean hue in degrees, -180 … 180 about red, over lit pixels, weighted by chroma; 0 for gray."""
    x = _channels(np.asarray(images))
    # The hue's circle seen from the white axis: red at 0, green at 120, blue at 240 degrees.
    across = x[:, 0] - 0.5 * (x[:, 1] + x[:, 2])
    up = np.sqrt(0.75) * (x[:, 1] - x[:, 2])
    luminance = _luminance(x)
    return np.degrees(np.arctan2(_over_lit(up, luminance), _over_lit(across, luminance)))


def coverage(images: ArrayLike) -> np.ndarray:
    """The share of pixels that are lit: ink on a page, or the field of view of a camera."""
    return (_luminance(_channels(np.asarray(images))) >= LIT).mean(axis=(1, 2))


PIXEL_JUDGES: dict[str, Callable[[ArrayLike], np.ndarray]] = {
    "brightness": brightness,
    "contrast": contrast,
    "pigmentation": pigmentation,
    "hue": hue,
    "coverage": coverage,
}
