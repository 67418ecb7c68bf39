"""Mistakes in what a metric was given."""

from __future__ import annotations

from dnnlib.errors import UserError


class MetricError(UserError, ValueError):
    """Input that a metric cannot be computed from; the message says what, where, and how to mend it."""
