"""Q(c_i | x) on N images as arrays of parameters: what the paper's form of MIG and total correlation read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from metrics.errors import MetricError

HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


@dataclass(frozen=True)
class DiscreteQ:
    """A code of K values: probabilities [N, K]. A Bernoulli code may be given as P(1), [N]."""

    probs: np.ndarray

    def __post_init__(self) -> None:
        p = np.asarray(self.probs, dtype=np.float64)
        if p.ndim == 1:
            p = np.stack([1 - p, p], axis=1)
        if p.ndim != 2 or p.shape[1] < 2:
            raise MetricError(
                f"probabilities must be [N, K], or [N] for a Bernoulli code; got {list(p.shape)}"
            )
        _finite("probabilities", p)
        if (p < -1e-6).any() or (np.abs(p.sum(axis=1) - 1) > 1e-4).any():
            raise MetricError("probabilities must not be negative, and sum to 1 for each image")
        p = np.maximum(p, 0)
        object.__setattr__(self, "probs", p / p.sum(axis=1, keepdims=True))

    def __len__(self) -> int:
        return len(self.probs)

    def rows(self, index: np.ndarray | slice) -> DiscreteQ:
        return DiscreteQ(self.probs[index])

    def code(self) -> np.ndarray:
        """The representation, [N]: P(1) of a Bernoulli code, and of any other its likeliest value."""
        return self.probs[:, 1] if self.probs.shape[1] == 2 else self.probs.argmax(axis=1).astype(np.float64)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One value a row, [N]."""
        below = rng.random((len(self), 1)) > self.probs.cumsum(axis=1)[:, :-1]
        return below.sum(axis=1).astype(np.float64)

    def log_prob(self, value: np.ndarray) -> np.ndarray:
        """log Q(value | x), [N], of values [N]; -inf where Q rules the value out."""
        with np.errstate(divide="ignore"):
            return np.log(self.probs[np.arange(len(self)), np.asarray(value).astype(np.int64)])

    def log_probs(self, values: np.ndarray) -> np.ndarray:
        """log Q(values [S] | each x), [S, N]."""
        with np.errstate(divide="ignore"):
            return np.log(self.probs).T[np.asarray(values).astype(np.int64)]


@dataclass(frozen=True)
class NormalQ:
    """A Gaussian of each image: location [N]; scale [N], or one for all (the paper's is 1)."""

    loc: np.ndarray
    scale: np.ndarray | float = 1.0

    def __post_init__(self) -> None:
        _set_loc_scale(self)

    def __len__(self) -> int:
        return len(self.loc)

    def rows(self, index: np.ndarray | slice) -> NormalQ:
        return NormalQ(self.loc[index], np.asarray(self.scale)[index])

    def code(self) -> np.ndarray:
        return self.loc

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return self.loc + self.scale * rng.standard_normal(len(self))

    def log_prob(self, value: np.ndarray) -> np.ndarray:
        return -0.5 * ((value - self.loc) / self.scale) ** 2 - np.log(self.scale) - HALF_LOG_2PI

    def log_probs(self, values: np.ndarray) -> np.ndarray:
        """[S, N]."""
        return self.log_prob(values[:, None])


@dataclass(frozen=True)
class TruncatedNormalQ:
    """A normal restricted to [low, high], with its location inside: [N]; scale [N] or one for all."""

    loc: np.ndarray
    scale: np.ndarray | float
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _set_loc_scale(self)
        if self.low >= self.high or self.loc.min() < self.low - 1e-9 or self.loc.max() > self.high + 1e-9:
            raise MetricError(
                f"locations must lie within {self.low} … {self.high}, where the posterior lives"
            )

    def __len__(self) -> int:
        return len(self.loc)

    def rows(self, index: np.ndarray | slice) -> TruncatedNormalQ:
        return TruncatedNormalQ(self.loc[index], np.asarray(self.scale)[index], self.low, self.high)

    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        return (self.low - self.loc) / self.scale, (self.high - self.loc) / self.scale

    def log_mass(self) -> np.ndarray:
        """log of the normal's mass within the interval, [N]."""
        a, b = self._ends()
        return np.log(ndtr(b) - ndtr(a))

    def code(self) -> np.ndarray:
        """The mean, [N]."""
        a, b = self._ends()
        log_mass = self.log_mass()
        return self.loc + self.scale * (
            np.exp(-0.5 * a**2 - HALF_LOG_2PI - log_mass) - np.exp(-0.5 * b**2 - HALF_LOG_2PI - log_mass)
        )

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        a, b = ndtr(self._ends()[0]), ndtr(self._ends()[1])
        value = self.loc + self.scale * ndtri(a + (b - a) * rng.random(len(self)))
        return np.clip(value, self.low, self.high)

    def log_prob(self, value: np.ndarray) -> np.ndarray:
        inside = (value >= self.low) & (value <= self.high)
        log_density = (
            -0.5 * ((value - self.loc) / self.scale) ** 2
            - np.log(self.scale)
            - HALF_LOG_2PI
            - self.log_mass()
        )
        return np.where(inside, log_density, -np.inf)

    def log_probs(self, values: np.ndarray) -> np.ndarray:
        """[S, N]."""
        return self.log_prob(values[:, None])


PosteriorRows = DiscreteQ | NormalQ | TruncatedNormalQ


def check_posteriors(posteriors: Sequence[PosteriorRows]) -> int:
    """The number of images that all of them describe. Raises MetricError for none or for unequal numbers."""
    if not posteriors:
        raise MetricError("there are no codes to measure: the model has none (--codes none)")
    lengths = {len(q) for q in posteriors}
    if len(lengths) != 1 or not min(lengths):
        raise MetricError(f"posteriors describe different numbers of images: {sorted(lengths)}")
    return lengths.pop()


def representation(posteriors: Sequence[PosteriorRows]) -> tuple[np.ndarray, list[int]]:
    """Codes [N, L] from Q, one column a code, and which columns are categorical.

    The mean of a continuous code, P(1) of a Bernoulli, the likeliest value of a categorical.
    """
    check_posteriors(posteriors)
    categorical = [i for i, q in enumerate(posteriors) if isinstance(q, DiscreteQ) and q.probs.shape[1] > 2]
    return np.stack([q.code() for q in posteriors], axis=1), categorical


def _set_loc_scale(q: NormalQ | TruncatedNormalQ) -> None:
    loc = np.asarray(q.loc, dtype=np.float64)
    scale = np.asarray(q.scale, dtype=np.float64)
    if loc.ndim != 1 or scale.shape not in ((), loc.shape):
        raise MetricError(
            f"location must be [N] and scale [N] or a number; got {loc.shape} and {scale.shape}"
        )
    _finite("locations", loc)
    _finite("scales", scale)
    if (scale <= 0).any():
        raise MetricError("scales must be above 0")
    object.__setattr__(q, "loc", loc)
    object.__setattr__(q, "scale", np.broadcast_to(scale, loc.shape))


def _finite(what: str, array: ArrayLike) -> None:
    bad = ~np.isfinite(np.asarray(array))
    if bad.any():
        row = int(np.argwhere(np.atleast_1d(bad))[0][0])
        raise MetricError(
            f"codes are not all finite numbers: {what} of image {row}, and {int(bad.sum())} in all; "
            "the network has diverged, or its images are damaged"
        )
