"""Modularity and explicitness (Ridgeway and Mozer 2018)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from metrics.errors import MetricError
from metrics.mig import mig_locatello
from metrics.tables import BINS, Codes, Factors, read_pairs, split


@dataclass(frozen=True)
class Modularity:
    value: float  # mean over codes
    per_code: np.ndarray  # [L]; 0 of a dead code
    information: np.ndarray  # [K, L] in nats, plug-in
    names: tuple[str, ...]


@dataclass(frozen=True)
class Explicitness:
    value: float  # mean over factors of the mean over their classes; 0.5 is chance
    per_factor: np.ndarray  # [K]
    names: tuple[str, ...]


def modularity(
    codes: Codes,
    factors: Factors,
    *,
    categorical: Collection[int] = (),
    samples: int = 10_000,
    code_bins: int = 20,
    bins: int = BINS,
    seed: int = 0,
) -> Modularity:
    """Does each code have information about one factor only?

    Of a code with information m_f, 1 - (sum of m_f² over all factors but its best) / (m_best² (K - 1)).
    Information as in `mig_locatello`; a code without any is dead and has 0. Its plug-in bias lets a code that
    knows next to nothing look as if it knew a little of everything.
    Raises MetricError for fewer than two factors.
    """
    found = mig_locatello(
        codes, factors, categorical=categorical, samples=samples, code_bins=code_bins, bins=bins, seed=seed
    )
    if len(found.names) < 2:
        raise MetricError("modularity compares factors, and there is only one; give two or more")
    per_code = modularity_of_information(found.information)
    return Modularity(float(per_code.mean()), per_code, found.information, found.names)


def modularity_of_information(information: np.ndarray) -> np.ndarray:
    """[L] from information [K, L]."""
    squares = information**2
    best = squares.max(axis=0)
    rest = squares.sum(axis=0) - best
    alive = best > 0
    return np.where(alive, 1 - rest / (np.where(alive, best, 1) * (len(information) - 1)), 0.0)


def explicitness(
    codes: Codes,
    factors: Factors,
    *,
    categorical: Collection[int] = (),
    samples: int = 15_000,
    train: float = 2 / 3,
    bins: int = BINS,
    seed: int = 0,
) -> Explicitness:
    """How well a linear classifier of all codes tells each factor's classes: area under the ROC curve.

    One logistic regression a factor; for each class its probability against all others, on held-out samples.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    table, classes = read_pairs(codes, factors, categorical=categorical, samples=samples, rng=rng, bins=bins)
    features, _ = table.features()
    parts = split(classes, rng.permutation(len(table)), train)
    per_factor = np.zeros(classes.count)
    for k in range(classes.count):
        label = classes.classes[:, k]
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(features[parts.learn], label[parts.learn])
        probs, held = model.predict_proba(features[parts.held]), label[parts.held]
        present = np.unique(held)
        per_factor[k] = np.mean([roc_auc_score(held == v, probs[:, v]) for v in present])
    return Explicitness(float(per_factor.mean()), per_factor, classes.names)
