"""Metrics: pure functions on arrays.

They import neither torch nor infostylegan. Every one takes (codes, factors, ...) in this order where it takes
both, or (real, generated, ...), and returns a frozen dataclass whose `value` is the number that the metric's
name stands for. Input that cannot be used raises MetricError.
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
from metrics.frechet import FeatureStatistics, FrechetDistance, Moments, frechet_distance
from metrics.kernel import KernelDistance, kid
from metrics.mig import MIG, mig, mig_chen, mig_locatello
from metrics.neighbours import PrecisionRecall, precision_recall
from metrics.posteriors import DiscreteQ, NormalQ, TruncatedNormalQ, representation

__all__ = [
    "MIG",
    "Agreement",
    "DiscreteQ",
    "FactorSource",
    "FeatureStatistics",
    "FrechetDistance",
    "KernelDistance",
    "MatchedAccuracy",
    "MetricError",
    "Moments",
    "NormalQ",
    "PrecisionRecall",
    "Proportion",
    "TruncatedNormalQ",
    "acm",
    "cohen_kappa",
    "fleiss_kappa",
    "frechet_distance",
    "gwet_ac1",
    "kid",
    "matched_accuracy",
    "mig",
    "mig_chen",
    "mig_locatello",
    "precision_recall",
    "proportion",
    "representation",
    "self_consistency",
    "spread_within",
]
