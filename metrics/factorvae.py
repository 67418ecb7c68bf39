"""The FactorVAE score (Kim and Mnih 2018): which code varies least while a factor stands still?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from metrics.tables import BINS, Codes, CodeTable, Factors
from metrics.worlds import World, open_world

DEAD = 0.05  # a code whose standard deviation is below this takes no part


@dataclass(frozen=True)
class FactorVAEScore:
    value: float  # share of held-out votes that the majority's table gets right
    train: float  # the same on the votes that made the table; not the score
    votes: np.ndarray  # int64 [L, K]: how often code i varied least while factor k stood still, in training
    active: np.ndarray  # bool [L]: codes that are not dead
    names: tuple[str, ...]


def factorvae_score(
    codes: Codes,
    factors: Factors,
    *,
    categorical: Collection[int] = (),
    train: int = 10_000,
    test: int = 5_000,
    size: int = 64,
    spread_samples: int = 10_000,
    bins: int = BINS,
    seed: int = 0,
) -> FactorVAEScore:
    """Accuracy of a majority vote: the code of least relative variance tells the factor that was held.

    codes, factors  arrays [N, L] and [N, K] (or name -> [N]); or an encoder of images and a FactorSource
    categorical     columns that hold an index; their variance is Gini's, 1 - sum p²
    train, test     votes that make the table, and others that it is scored on; each of `size` samples

    Variances are relative to those over all samples; codes with a standard deviation below 0.05 are dead and
    do not vote. If all are, the score is 0.
    """
    world = open_world(codes, factors, categorical, bins)
    rng = np.random.default_rng(seed)
    free = world.free(spread_samples, rng)
    spread = _variance(free, len(free))[0]
    active = np.sqrt(spread) >= DEAD
    k = len(world.names)
    if not active.any():
        return FactorVAEScore(0.0, 0.0, np.zeros((len(active), k), dtype=np.int64), active, world.names)
    table = _count(world, train, size, spread, active, rng)
    held_out = _count(world, test, size, spread, active, rng)
    answer = table.argmax(axis=1)
    return FactorVAEScore(_right(held_out, answer), _right(table, answer), table, active, world.names)


def _right(votes: np.ndarray, answer: np.ndarray) -> float:
    """The share of votes [L, K] whose factor is the answer [L] of their code."""
    return float(votes[np.arange(len(answer)), answer].sum() / votes.sum())


def _count(
    world: World, n: int, size: int, spread: np.ndarray, active: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """n votes, int64 [L, K]; the factor that is held is drawn at random for each."""
    k = len(world.names)
    votes = np.zeros((len(active), k), dtype=np.int64)
    relative = np.where(active, spread, 1.0)
    for factor, left in enumerate(np.bincount(rng.integers(k, size=n), minlength=k).tolist()):
        while left:
            now = min(left, max(1, 200_000 // size))
            variance = _variance(world.held(factor, now, size, rng), size) / relative
            variance[:, ~active] = np.inf
            votes[:, factor] += np.bincount(variance.argmin(axis=1), minlength=len(active))
            left -= now
    return votes


def _variance(table: CodeTable, size: int) -> np.ndarray:
    """Variance of each code in consecutive groups of `size` samples, [groups, L]; Gini's of a categorical.

    Both have the factor size / (size - 1) that makes their mean independent of the size.
    """
    grouped = table.values.reshape(-1, size, table.count)
    variance = grouped.var(axis=1)
    for i in table.categorical:
        index = grouped[:, :, i].astype(np.int64)
        share = np.stack([(index == v).mean(axis=1) for v in range(int(index.max()) + 1)], axis=1)
        variance[:, i] = 1 - (share**2).sum(axis=1)
    return variance * (size / max(1, size - 1))
