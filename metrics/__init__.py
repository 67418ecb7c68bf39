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
from metrics.betavae import BetaVAEScore, betavae_score
from metrics.clustering import MatchedAccuracy, matched_accuracy, spread_within
from metrics.dci import DCI, dci
from metrics.errors import MetricError
from metrics.factor_source import FactorSource
from metrics.factorvae import FactorVAEScore, factorvae_score
from metrics.frechet import FeatureStatistics, FrechetDistance, Moments, frechet_distance
from metrics.kernel import KernelDistance, kid
from metrics.mig import MIG, mig, mig_chen, mig_locatello
from metrics.modularity import Explicitness, Modularity, explicitness, modularity
from metrics.neighbours import PrecisionRecall, precision_recall
from metrics.posteriors import DiscreteQ, NormalQ, TruncatedNormalQ, representation
from metrics.sap import SAP, sap

__all__ = [
    "DCI",
    "MIG",
    "SAP",
    "Agreement",
    "BetaVAEScore",
    "DiscreteQ",
    "Explicitness",
    "FactorSource",
    "FactorVAEScore",
    "FeatureStatistics",
    "FrechetDistance",
    "KernelDistance",
    "MatchedAccuracy",
    "MetricError",
    "Modularity",
    "Moments",
    "NormalQ",
    "PrecisionRecall",
    "Proportion",
    "TruncatedNormalQ",
    "acm",
    "betavae_score",
    "cohen_kappa",
    "dci",
    "explicitness",
    "factorvae_score",
    "fleiss_kappa",
    "frechet_distance",
    "gwet_ac1",
    "kid",
    "matched_accuracy",
    "mig",
    "mig_chen",
    "mig_locatello",
    "modularity",
    "precision_recall",
    "proportion",
    "representation",
    "sap",
    "self_consistency",
    "spread_within",
]
