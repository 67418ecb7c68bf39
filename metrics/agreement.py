"""Do metrics agree? The rank correlation of their values over models, as in the lecture's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from metrics.errors import MetricError


@dataclass(frozen=True)
class RankAgreement:
    value: float  # mean over pairs of different metrics
    correlation: np.ndarray  # [M, M], Spearman's; NaN where a metric has the same value for all models
    names: tuple[str, ...]
    models: int


def rank_agreement(scores: Mapping[str, ArrayLike]) -> RankAgreement:
    """Spearman's rank correlation of metrics over models: name -> values [models].

    Models without a value (NaN) of either metric are left out of that pair. Raises MetricError for fewer than
    three models, with which any correlation is 1, -1 or close to it by chance.
    """
    names = tuple(scores)
    table = [np.asarray(values, dtype=np.float64) for values in scores.values()]
    lengths = {values.shape for values in table}
    if len(names) < 2 or len(lengths) != 1 or table[0].ndim != 1:
        raise MetricError(
            f"give two metrics or more, each with a value of every model; got {sorted(lengths)}"
        )
    if len(table[0]) < 3:
        raise MetricError(f"rank correlation needs three models or more, and there are {len(table[0])}")
    correlation = np.array([[_spearman(a, b) for b in table] for a in table])
    off = correlation[~np.eye(len(names), dtype=bool)]
    known = off[~np.isnan(off)]
    return RankAgreement(
        float(known.mean()) if len(known) else float("nan"), correlation, names, len(table[0])
    )


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    both = ~(np.isnan(a) | np.isnan(b))
    ranks = [rankdata(v[both]) for v in (a, b)]
    if both.sum() < 3 or any(np.ptp(r) == 0 for r in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
