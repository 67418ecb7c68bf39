"""The BetaVAE score (Higgins et al. 2017): can a linear classifier tell which factor two images share?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from metrics.tables import BINS, Codes, CodeTable, Factors
from metrics.worlds import World, open_world


@dataclass(frozen=True)
class BetaVAEScore:
    value: float  # accuracy on held-out points
    train: float  # accuracy on the points learned from; not the score
    chance: float  # 1 / factors
    names: tuple[str, ...]


def betavae_score(
    codes: Codes,
    factors: Factors,
    *,
    categorical: Collection[int] = (),
    train: int = 10_000,
    test: int = 5_000,
    pairs: int = 64,
    bins: int = BINS,
    seed: int = 0,
) -> BetaVAEScore:
    """Accuracy in telling the shared factor from the mean of |z - z'| over `pairs` pairs of samples.

    codes, factors  arrays [N, L] and [N, K] (or name -> [N]); or an encoder of images and a FactorSource
    categorical     columns of codes that hold an index: there |z - z'| is whether the two differ
    train, test     points that the logistic regression learns from, and others that it is scored on

    With one factor there is nothing to tell apart, and the score is 1.
    """
    from sklearn.linear_model import LogisticRegression

    world = open_world(codes, factors, categorical, bins)
    if len(world.names) == 1:
        return BetaVAEScore(1.0, 1.0, 1.0, world.names)
    rng = np.random.default_rng(seed)
    x_train, y_train = _points(world, train, pairs, rng)
    x_test, y_test = _points(world, test, pairs, rng)
    model = LogisticRegression(max_iter=2000).fit(x_train, y_train)
    return BetaVAEScore(
        float(model.score(x_test, y_test)),
        float(model.score(x_train, y_train)),
        1 / len(world.names),
        world.names,
    )


def _points(world: World, n: int, pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """[n, L] mean differences, and the factor that each point's pairs share."""
    k = len(world.names)
    shared = np.sort(np.arange(n) % k)  # as many points of each factor as can be
    points = []
    for factor in range(k):
        left = int((shared == factor).sum())
        while left:
            now = min(left, max(1, 200_000 // pairs))
            points.append(
                _difference(world.held(factor, now * pairs, 2, rng)).reshape(now, pairs, -1).mean(axis=1)
            )
            left -= now
    return np.concatenate(points), shared


def _difference(table: CodeTable) -> np.ndarray:
    """|z - z'| of consecutive samples, [n, L]; of a categorical whether they differ."""
    gap = np.abs(table.values[0::2] - table.values[1::2])
    for i in table.categorical:
        gap[:, i] = gap[:, i] > 0
    return gap
