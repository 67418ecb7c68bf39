"""Metrics: pure functions on arrays."""

from metrics.clustering import MatchedAccuracy, matched_accuracy, spread_within

__all__ = ["MatchedAccuracy", "matched_accuracy", "spread_within"]
