"""The separated attribute predictability score (Kumar, Sattigeri and Balakrishnan 2018)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from metrics.tables import BINS, Codes, Factors, one_hot, read_pairs, split

STILL = 1e-12  # variance below which a code or factor predicts nothing


@dataclass(frozen=True)
class SAP:
    value: float  # mean over factors
    gaps: np.ndarray  # [K]: best - second best
    scores: np.ndarray  # [K, L]: how well each single code predicts each factor
    best: np.ndarray  # int [K]
    names: tuple[str, ...]


def sap(
    codes: Codes,
    factors: Factors,
    *,
    categorical: Collection[int] = (),
    samples: int = 15_000,
    train: float = 2 / 3,
    bins: int = BINS,
    seed: int = 0,
) -> SAP:
    """The gap between the two single codes that best predict each factor, averaged over factors.

    A factor that is a class is predicted by a linear SVM (C = 0.01, classes balanced) and scored by its
    accuracy on held-out samples; a continuous one by R², the squared correlation (of a categorical code, the
    share of variance that its values explain). Codes are taken as they are, not standardised.
    """
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(seed)
    table, classes = read_pairs(codes, factors, categorical=categorical, samples=samples, rng=rng, bins=bins)
    parts = split(classes, rng.permutation(len(table)), train)
    scores = np.zeros((classes.count, table.count))
    for i in range(table.count):
        column = table.values[:, i]
        if column.var() < STILL:
            continue
        wide = one_hot(column) if i in table.categorical else column[:, None]
        for k in range(classes.count):
            if classes.continuous[k]:
                scores[k, i] = _r2(wide, np.asarray(classes.raw[k], dtype=np.float64), i in table.categorical)
                continue
            label = classes.classes[:, k]
            model = LinearSVC(C=0.01, class_weight="balanced", random_state=seed)
            model.fit(wide[parts.learn], label[parts.learn])
            scores[k, i] = model.score(wide[parts.held], label[parts.held])
    padded = np.pad(scores, ((0, 0), (0, max(0, 2 - scores.shape[1]))))
    largest = np.sort(padded, axis=1)[:, -2:]
    gaps = largest[:, 1] - largest[:, 0]
    return SAP(float(gaps.mean()), gaps, scores, scores.argmax(axis=1), classes.names)


def _r2(wide: np.ndarray, factor: np.ndarray, categorical: bool) -> float:
    if factor.var() < STILL:
        return 0.0
    if not categorical:
        return float(np.corrcoef(wide[:, 0], factor)[0, 1] ** 2)
    counts = wide.sum(axis=0)
    means = (wide.T @ factor) / np.where(counts > 0, counts, 1)
    return float(counts @ (means - factor.mean()) ** 2 / len(factor) / factor.var())
