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
from metrics.agreement import RankAgreement, rank_agreement
from metrics.betavae import BetaVAEScore, betavae_score
from metrics.clustering import MatchedAccuracy, matched_accuracy, spread_within
from metrics.dci import DCI, dci
from metrics.errors import MetricError
from metrics.factor_source import FactorSource
from metrics.factorvae import FactorVAEScore, factorvae_score
from metrics.frechet import FeatureStatistics, FrechetDistance, Moments, frechet_distance
from metrics.judges import AutomaticACM, automatic_acm
from metrics.kernel import KernelDistance, kid
from metrics.mig import MIG, mig, mig_chen, mig_locatello
from metrics.modularity import Explicitness, Modularity, explicitness, modularity
from metrics.neighbours import PrecisionRecall, precision_recall
from metrics.posteriors import DiscreteQ, NormalQ, TruncatedNormalQ, representation
from metrics.probe import LinearProbe, linear_probe
from metrics.sap import SAP, sap
from metrics.total_correlation import (
    AggregateTC,
    ConditionalTC,
    aggregate_total_correlation,
    conditional_total_correlation,
)

__all__ = [
    "DCI",
    "MIG",
    "SAP",
    "AggregateTC",
    "Agreement",
    "AutomaticACM",
    "BetaVAEScore",
    "ConditionalTC",
    "DiscreteQ",
    "Explicitness",
    "FactorSource",
    "FactorVAEScore",
    "FeatureStatistics",
    "FrechetDistance",
    "KernelDistance",
    "LinearProbe",
    "MatchedAccuracy",
    "MetricError",
    "Modularity",
    "Moments",
    "NormalQ",
    "PrecisionRecall",
    "Proportion",
    "RankAgreement",
    "TruncatedNormalQ",
    "acm",
    "aggregate_total_correlation",
    "automatic_acm",
    "betavae_score",
    "cohen_kappa",
    "conditional_total_correlation",
    "dci",
    "explicitness",
    "factorvae_score",
    "fleiss_kappa",
    "frechet_distance",
    "gwet_ac1",
    "kid",
    "linear_probe",
    "matched_accuracy",
    "mig",
    "mig_chen",
    "mig_locatello",
    "modularity",
    "precision_recall",
    "proportion",
    "rank_agreement",
    "representation",
    "sap",
    "self_consistency",
    "spread_within",
]
