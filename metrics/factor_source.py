"""Where factor-based metrics take their samples from: two arrays, or a world that draws on request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class FactorSource(Protocol):
    """A world of images made from factors, each of which takes one of finitely many values.

    `factor_sizes` names the factors, in order, with the number of values of each.
    """

    factor_sizes: dict[str, int]

    def draw(self, n: int, rng: np.random.Generator, fixed: Mapping[str, int] | None = None) -> np.ndarray:
        """Value indices int64 [n, K], columns as in `factor_sizes`; `fixed` holds some at a value."""
        ...

    def images(self, factors: np.ndarray) -> np.ndarray:
        """The images uint8 [n, C, R, R] that have these factors [n, K]; nuisance is drawn anew each time."""
        ...
