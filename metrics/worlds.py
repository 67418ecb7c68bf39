"""Draws in which some factor is held: what the BetaVAE and FactorVAE scores are made of."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

from metrics.errors import MetricError
from metrics.factor_source import FactorSource
from metrics.tables import BINS, Codes, CodeTable, Encoder, Factors, encoder_of, read_codes, read_pairs

CHUNK = 4096  # images encoded at a time


class World(Protocol):
    """Samples of codes, free or with one factor held."""

    names: tuple[str, ...]

    def free(self, n: int, rng: np.random.Generator) -> CodeTable:
        """n samples."""
        ...

    def held(self, factor: int, groups: int, size: int, rng: np.random.Generator) -> CodeTable:
        """groups * size samples, group by group; those of a group share a value of `factor`."""
        ...


class ArrayWorld:
    """Rows of two arrays. A group is a row, and others, without itself, that share its class."""

    def __init__(self, codes: Codes, factors: Factors, categorical: Collection[int], bins: int) -> None:
        self.codes, self.factors = read_pairs(codes, factors, categorical=categorical, bins=bins)
        self.names = self.factors.names
        self._members: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        for k, name in enumerate(self.names):
            counts = np.bincount(self.factors.classes[:, k])
            if counts.max() < 2:
                raise MetricError(f"factor {name!r}: no two samples share a value, so none can be held")
            order = np.argsort(self.factors.classes[:, k], kind="stable")
            self._members[k] = (order, np.cumsum(counts) - counts, counts)

    def free(self, n: int, rng: np.random.Generator) -> CodeTable:
        return self.codes if n >= len(self.codes) else self.codes.rows(rng.permutation(len(self.codes))[:n])

    def held(self, factor: int, groups: int, size: int, rng: np.random.Generator) -> CodeTable:
        order, starts, counts = self._members[factor]
        place = rng.integers(
            len(order), size=groups
        )  # of the first sample of each group, in the sorted order
        value = self.factors.classes[order[place], factor]
        lone = counts[value] < 2
        while lone.any():  # a value that one sample alone has cannot be shared
            place[lone] = rng.integers(len(order), size=int(lone.sum()))
            value = self.factors.classes[order[place], factor]
            lone = counts[value] < 2
        own = place - starts[value]
        # Steps of 1 … count - 1 from the first sample, round its class: never that sample itself.
        others = 1 + rng.integers(0, (counts[value] - 1)[:, None], size=(groups, size - 1))
        within = np.concatenate([own[:, None], (own[:, None] + others) % counts[value][:, None]], axis=1)
        return self.codes.rows(order[starts[value][:, None] + within].ravel())


class SourceWorld:
    """Images drawn on request, encoded a few thousand at a time."""

    def __init__(self, encoder: Encoder, source: FactorSource, categorical: Collection[int]) -> None:
        self.encoder, self.source, self.categorical = encoder, source, categorical
        # A factor of one value can be neither changed nor held.
        self._factors = [(k, name) for k, (name, size) in enumerate(source.factor_sizes.items()) if size > 1]
        self.names = tuple(name for _, name in self._factors)
        if not self.names:
            raise MetricError("every factor of the source is constant: there is nothing to measure")

    def free(self, n: int, rng: np.random.Generator) -> CodeTable:
        return self._encode(self.source.draw(n, rng))

    def held(self, factor: int, groups: int, size: int, rng: np.random.Generator) -> CodeTable:
        column, name = self._factors[factor]
        value = self.source.draw(groups, rng)[:, column]
        drawn = np.zeros((groups, size, len(self.source.factor_sizes)), dtype=np.int64)
        for v in np.unique(value):
            of = value == v
            drawn[of] = self.source.draw(int(of.sum()) * size, rng, {name: int(v)}).reshape(
                -1, size, drawn.shape[2]
            )
        return self._encode(drawn.reshape(-1, drawn.shape[2]))

    def _encode(self, drawn: np.ndarray) -> CodeTable:
        parts = []
        for start in range(0, len(drawn), CHUNK):
            images = self.source.images(drawn[start : start + CHUNK])
            parts.append(np.asarray(self.encoder(images), dtype=np.float64).reshape(len(images), -1))
        return read_codes(np.concatenate(parts), self.categorical)


def open_world(codes: Codes, factors: Factors, categorical: Collection[int], bins: int = BINS) -> World:
    if isinstance(factors, FactorSource):
        return SourceWorld(encoder_of(codes), factors, categorical)
    return ArrayWorld(codes, factors, categorical, bins)
