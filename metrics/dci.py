"""Disentanglement, completeness and informativeness (Eastwood and Williams 2018)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from metrics.information import entropy
from metrics.tables import BINS, Codes, Factors, read_pairs, split


@dataclass(frozen=True)
class DCI:
    disentanglement: float  # of codes, weighted by their importance: does a code serve one factor only?
    completeness: float  # of factors: is a factor served by one code only?
    informativeness: float  # mean over factors of `accuracy`
    importance: np.ndarray  # [L, K]; each column sums to 1
    accuracy: np.ndarray  # [K], held out; of a continuous factor R², and 0 where that is below 0
    names: tuple[str, ...]

    @property
    def value(self) -> float:
        return self.disentanglement


def dci(
    codes: Codes,
    factors: Factors,
    *,
    categorical: Collection[int] = (),
    samples: int = 15_000,
    train: float = 2 / 3,
    trees: int = 100,
    bins: int = BINS,
    seed: int = 0,
) -> DCI:
    """Importance of every code for every factor by gradient-boosted trees, and how it is shared out.

    codes, factors  arrays [N, L] and [N, K] (or name -> [N]); or an encoder of images and a FactorSource
    categorical     columns that hold an index; the importances of a code's one-hot columns are added up
    samples, train  how many samples are used (10,000 and 5,000), and the share that trees learn from
    trees           boosting steps; 100, of depth 3, are the literature's

    A continuous factor is predicted as the number that it is, every other as a class.
    """
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    rng = np.random.default_rng(seed)
    table, classes = read_pairs(codes, factors, categorical=categorical, samples=samples, rng=rng, bins=bins)
    features, owner = table.features()
    order = rng.permutation(len(table))
    parts = split(classes, order, train)
    importance = np.zeros((table.count, classes.count))
    accuracy = np.zeros(classes.count)
    for k in range(classes.count):
        boosted = GradientBoostingRegressor if classes.continuous[k] else GradientBoostingClassifier
        target = np.asarray(classes.raw[k], np.float64) if classes.continuous[k] else classes.classes[:, k]
        model = boosted(n_estimators=trees, random_state=seed)
        model.fit(features[parts.learn], target[parts.learn])
        np.add.at(importance[:, k], owner, model.feature_importances_)
        accuracy[k] = max(0.0, model.score(features[parts.held], target[parts.held]))
    return dci_of_importance(importance, accuracy, classes.names)


def dci_of_importance(importance: np.ndarray, accuracy: np.ndarray, names: tuple[str, ...]) -> DCI:
    """D and C of a matrix of importances [L, K] (Eastwood and Williams, section 2).

    D_i = 1 - H(R_i / sum R_i) / log K, averaged with the weight of its row; C_k = 1 - H(R_k / sum R_k)
    / log L of its column, averaged over the factors. A row or column without any importance has 0.
    """
    rows, columns = importance.sum(axis=1), importance.sum(axis=0)
    of_code = _concentration(importance / np.where(rows > 0, rows, 1)[:, None]) * (rows > 0)
    of_factor = _concentration(importance.T / np.where(columns > 0, columns, 1)[:, None]) * (columns > 0)
    weight = rows / rows.sum() if rows.sum() > 0 else rows
    return DCI(
        float(weight @ of_code), float(of_factor.mean()), float(accuracy.mean()), importance, accuracy, names
    )


def _concentration(p: np.ndarray) -> np.ndarray:
    """1 - H / log n of distributions [rows, n]: 1 all at one place, 0 evenly spread; 1 where n = 1."""
    n = p.shape[1]
    return np.ones(len(p)) if n == 1 else 1 - entropy(p) / np.log(n)
