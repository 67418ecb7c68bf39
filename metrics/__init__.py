"""Metrics: pure functions on arrays.

They import neither torch nor infostylegan. Every one takes (codes, factors, ...) in this order where it takes
both, and returns a frozen dataclass whose `value` is the number that the metric's name stands for. Input that
cannot be used raises MetricError.
"""

from metrics.acm import (
    Agreement,
    Proportion,
    acm,
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    proportion,
    self_consistency,
)
from metrics.clustering import MatchedAccuracy, matched_accuracy, spread_within
from metrics.errors import MetricError
from metrics.factor_source import FactorSource

__all__ = [
    "Agreement",
    "FactorSource",
    "MatchedAccuracy",
    "MetricError",
    "Proportion",
    "acm",
    "cohen_kappa",
    "fleiss_kappa",
    "gwet_ac1",
    "matched_accuracy",
    "proportion",
    "self_consistency",
    "spread_within",
]
