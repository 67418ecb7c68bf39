"""The Attribute Control Metric (paper, section 4.3 and Table 3), and what raters' votes say of the raters.

A rater sees N rows; along each, one code is swept and everything else stands still. The ACM is the share of
the rows in which the rater saw the named attribute change consistently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metrics.errors import MetricError

Z95 = 1.96  # as the paper and every textbook round it


@dataclass(frozen=True)
class Proportion:
    """A share of n, with two 95 % intervals."""

    value: float  # p
    n: int
    margin: float  # the paper's: 1.96 sqrt(p (1 - p) / n); 0 at p = 0 and p = 1, where it says too much
    interval: tuple[float, float]  # Wilson's, which holds at both ends too


@dataclass(frozen=True)
class Agreement:
    """How far raters agree beyond chance: (observed - expected) / (1 - expected)."""

    value: float  # NaN where agreement by chance is certain, so that there is nothing beyond it
    observed: float
    expected: float
    items: int  # that were rated twice or more


def proportion(share: float, n: int) -> Proportion:
    """The share of n with its margin and Wilson's interval. Raises MetricError for none, or outside 0 … 1."""
    if n < 1 or not 0.0 <= share <= 1.0:
        raise MetricError(f"a share must lie within 0 … 1 and be of 1 or more: got {share} of {n}")
    spread = Z95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    margin = Z95 * math.sqrt(share * (1 - share) / n)
    return Proportion(share, n, margin, (max(0.0, centre - half), min(1.0, centre + half)))


def acm(votes: ArrayLike) -> Proportion:
    """ACM from votes [N] or [N, raters]: 1 controlled, 0 not, NaN not voted.

    With several raters a row counts with the share of its raters who saw it controlled, and n is the number
    of rows: votes on one row are not independent, so more raters do not make the interval narrower.
    Raises MetricError for other values, or where nobody voted.
    """
    share = _shares(_votes(votes))
    return proportion(float(share.mean()), len(share))


def self_consistency(first: ArrayLike, second: ArrayLike) -> Proportion:
    """The share of repeated rows on which a rater's two votes [N] agree."""
    a, b = _pair(first, second)
    return proportion(float((a == b).mean()), len(a))


def cohen_kappa(first: ArrayLike, second: ArrayLike) -> Agreement:
    """Cohen's κ of two raters' votes [N], on the rows that both voted on."""
    a, b = _pair(first, second)
    observed = float((a == b).mean())
    expected = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return _beyond_chance(observed, expected, len(a))


def fleiss_kappa(votes: ArrayLike) -> Agreement:
    """Fleiss' κ of votes [N, raters], NaN where not voted; rows with fewer than two votes say nothing."""
    share, observed = _agreeing(votes)
    yes = float(share.mean())
    return _beyond_chance(observed, yes**2 + (1 - yes) ** 2, len(share))


def gwet_ac1(votes: ArrayLike) -> Agreement:
    """Gwet's AC1 of votes [N, raters], NaN where not voted.

    Where nearly all votes are equal, as for a code that works, κ falls although raters agree; AC1 does not.
    """
    share, observed = _agreeing(votes)
    yes = float(share.mean())
    return _beyond_chance(observed, 2 * yes * (1 - yes), len(share))


def _beyond_chance(observed: float, expected: float, items: int) -> Agreement:
    value = (observed - expected) / (1 - expected) if expected < 1 else math.nan
    return Agreement(value, observed, expected, items)


def _votes(votes: ArrayLike) -> np.ndarray:
    """[N, raters] of 0, 1 and NaN."""
    v = np.asarray(votes, dtype=np.float64)
    v = v[:, None] if v.ndim == 1 else v
    if v.ndim != 2:
        raise MetricError(f"votes must be [rows] or [rows, raters], got {list(v.shape)}")
    wrong = ~(np.isnan(v) | (v == 0) | (v == 1))
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise MetricError(f"a vote is 0 or 1 (NaN: not voted); row {row} has {v[wrong][0]:g}")
    return v


def _shares(v: np.ndarray) -> np.ndarray:
    """For each row that anyone voted on, the share of its votes that are 1."""
    counts = (~np.isnan(v)).sum(axis=1)
    if not counts.any():
        raise MetricError("there are no votes to count")
    rated = counts > 0
    return np.nansum(v[rated], axis=1) / counts[rated]


def _agreeing(votes: ArrayLike) -> tuple[np.ndarray, float]:
    """Of the rows with two votes or more: the share of 1, and the mean share of agreeing pairs."""
    v = _votes(votes)
    counts = (~np.isnan(v)).sum(axis=1)
    twice = counts >= 2
    if not twice.any():
        raise MetricError("agreement needs rows that two raters or more voted on, and there are none")
    n, yes = counts[twice], np.nansum(v[twice], axis=1)
    pairs = (yes * (yes - 1) + (n - yes) * (n - yes - 1)) / (n * (n - 1))
    return yes / n, float(pairs.mean())


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = _votes(first), _votes(second)
    if a.shape != b.shape or a.shape[1] != 1:
        raise MetricError(f"two raters' votes must be equally many, got {len(a)} and {len(b)}")
    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        raise MetricError("the two raters voted on no common row")
    return a[both], b[both]
