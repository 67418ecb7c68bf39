"""Codes and factors as every metric reads them: checked, named, and factors cut into classes by one rule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metrics.errors import MetricError
from metrics.factor_source import FactorSource

BINS = 10
# A factor of real numbers is taken as it is if it has at most so many values, each so often on average.
MAX_VALUES, MIN_EACH = 64, 8
MAX_CLASSES = 256

Encoder = Callable[[np.ndarray], ArrayLike]  # images uint8 [n, C, R, R] -> codes [n, L]
Codes = ArrayLike | Encoder
Factors = ArrayLike | Mapping[str, ArrayLike] | FactorSource


@dataclass(frozen=True)
class CodeTable:
    """Codes float64 [N, L], one column a code. A categorical code's column holds the index of its value."""

    values: np.ndarray
    categorical: frozenset[int]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def count(self) -> int:
        return self.values.shape[1]

    def rows(self, index: np.ndarray | slice) -> CodeTable:
        return CodeTable(self.values[index], self.categorical)

    def columns(self, keep: Collection[int]) -> CodeTable:
        kept = list(keep)
        return CodeTable(
            self.values[:, kept], frozenset(i for i, at in enumerate(kept) if at in self.categorical)
        )

    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """What a classifier reads, [N, F], and the code that each of the F columns belongs to.

        A categorical code of K values is K columns of zeros and ones: its index has no order to regress on.
        """
        parts, owner = [], []
        for i in range(self.count):
            column = self.values[:, i]
            part = one_hot(column) if i in self.categorical else column[:, None]
            parts.append(part)
            owner += [i] * part.shape[1]
        return np.concatenate(parts, axis=1), np.array(owner)


@dataclass(frozen=True)
class FactorTable:
    """Factors as classes int64 [N, K], numbered from 0, and as they were given."""

    names: tuple[str, ...]
    classes: np.ndarray
    sizes: tuple[int, ...]  # classes of each factor
    continuous: tuple[bool, ...]  # whether the classes were cut from real numbers
    raw: tuple[np.ndarray, ...]  # [N] each

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def count(self) -> int:
        return self.classes.shape[1]

    def rows(self, index: np.ndarray | slice) -> FactorTable:
        raw = tuple(column[index] for column in self.raw)
        return FactorTable(self.names, self.classes[index], self.sizes, self.continuous, raw)


def one_hot(column: np.ndarray) -> np.ndarray:
    """[N, K] of zeros and ones from indices [N]; K is the largest index and one."""
    index = column.astype(np.int64)
    return np.eye(int(index.max()) + 1)[index]


def read_codes(codes: ArrayLike, categorical: Collection[int] = ()) -> CodeTable:
    """Check codes [N, L]. Raises MetricError for other shapes, and names the first NaN or infinity."""
    values = np.asarray(codes, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size:
        raise MetricError(
            f"codes must be [samples, codes], with some of each; got {list(np.asarray(codes).shape)}"
        )
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise MetricError(
            f"codes are not all finite numbers: code {column} of sample {row} is {values[row, column]}, and "
            f"{int(bad.sum())} of {values.size} in all; remove those samples, or mend what made them"
        )
    for i in categorical:
        if not 0 <= i < values.shape[1]:
            raise MetricError(f"categorical code {i}: there are codes 0 to {values.shape[1] - 1}")
        if (values[:, i] != np.floor(values[:, i])).any() or values[:, i].min() < 0:
            raise MetricError(f"categorical code {i} must hold indices 0, 1, 2, … of its values")
    return CodeTable(values, frozenset(categorical))


def read_factors(
    factors: ArrayLike | Mapping[str, ArrayLike], n: int, *, bins: int = BINS, constant: str = "refuse"
) -> FactorTable:
    """Check factors, [N, K] or name -> [N], for N samples, and number their classes.

    The rule: whole numbers, truth values and words are classes as they are (at most 256 of them). So are real
    numbers that take at most 64 values, each 8 times or more on average. All else is continuous and is cut at
    its quantiles into `bins` classes of equal count.

    Raises MetricError for none, for another length, for missing values, and for a factor that never changes
    (constant="drop" leaves it out).
    """
    if factors is None:
        raise MetricError("there are no labels: this metric needs factors, or attributes, of every sample")
    if isinstance(factors, Mapping):
        named = {str(name): np.asarray(column) for name, column in factors.items()}
    else:
        table = np.asarray(factors)
        if table.ndim == 1:
            table = table[:, None]
        if table.ndim != 2:
            raise MetricError(f"factors must be [samples, factors] or name -> [samples]; got {table.shape}")
        named = {f"factor{k}": table[:, k] for k in range(table.shape[1])}
    if not named:
        raise MetricError("there are no labels: this metric needs factors, or attributes, of every sample")
    kept: list[tuple[str, np.ndarray, bool, np.ndarray]] = []
    for name, column in named.items():
        if column.shape != (n,):
            raise MetricError(f"factor {name!r}: has shape {list(column.shape)} for {n} samples of codes")
        classes, continuous = classify(name, column, bins)
        if classes.max() == 0:
            if constant == "drop":
                continue
            raise MetricError(
                f"factor {name!r}: is {column[0]} for all {n} samples; it tells nothing, leave it out"
            )
        kept.append((name, classes, continuous, column))
    if not kept:
        raise MetricError("every factor is constant: there is nothing to measure")
    names, columns, continuous_, raw = zip(*kept)
    sizes = tuple(int(c.max()) + 1 for c in columns)
    return FactorTable(names, np.stack(columns, axis=1), sizes, continuous_, raw)


def classify(name: str, column: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, bool]:
    """Classes int64 [N] from 0, and whether they were cut from real numbers; see `read_factors`."""
    if column.dtype.kind == "O":
        column = _plain(name, column)
    if column.dtype.kind == "f":
        missing = ~np.isfinite(column)
        if missing.any():
            raise MetricError(
                f"factor {name!r}: {int(missing.sum())} of {len(column)} values are missing (the first at "
                f"sample {int(np.argmax(missing))}); leave out those samples or the factor"
            )
    elif column.dtype.kind not in "biuUS":
        raise MetricError(f"factor {name!r}: must hold numbers, truth values or words, not {column.dtype}")
    values, classes = np.unique(column, return_inverse=True)
    classes = classes.reshape(-1)
    if column.dtype.kind in "bUS":
        if len(values) > MAX_CLASSES:
            raise MetricError(f"factor {name!r}: has {len(values)} different values, more than {MAX_CLASSES}")
        return classes, False
    whole = bool((values == np.floor(values)).all()) and len(values) <= MAX_CLASSES
    if whole or (len(values) <= MAX_VALUES and len(column) >= MIN_EACH * len(values)):
        return classes, False
    edges = np.quantile(column.astype(np.float64), np.arange(1, bins) / bins)
    cut = np.searchsorted(edges, column, side="right")
    return np.unique(cut, return_inverse=True)[1].reshape(-1), True


def _plain(name: str, column: np.ndarray) -> np.ndarray:
    """A column of Python objects as numbers or words."""
    if any(value is None for value in column):
        at = next(i for i, value in enumerate(column) if value is None)
        raise MetricError(f"factor {name!r}: has no value for sample {at}; leave out such samples, or it")
    if all(isinstance(value, str) for value in column):
        return column.astype(str)
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError):
        raise MetricError(f"factor {name!r}: mixes numbers and words") from None


def read_pairs(
    codes: Codes,
    factors: Factors,
    *,
    categorical: Collection[int] = (),
    samples: int | None = None,
    rng: np.random.Generator | None = None,
    bins: int = BINS,
) -> tuple[CodeTable, FactorTable]:
    """Codes and factors of the same samples.

    Either two arrays, of which `samples` rows are drawn without replacement if there are more; or an encoder
    of images and a FactorSource, of which `samples` images are drawn (10,000 by default).
    """
    rng = rng or np.random.default_rng(0)
    if isinstance(factors, FactorSource):
        n = samples or 10_000
        drawn = factors.draw(n, rng)
        table = read_codes(encoder_of(codes)(factors.images(drawn)), categorical)
        if len(table) != n:
            raise MetricError(f"the encoder gave codes of {len(table)} samples for {n} images")
        return table, read_factors(dict(zip(factors.factor_sizes, drawn.T)), n, constant="drop")
    if callable(codes):
        raise MetricError("codes are an encoder of images: factors must then be a FactorSource, not an array")
    table = read_codes(codes, categorical)
    classes = read_factors(factors, len(table), bins=bins)
    if samples is None or samples >= len(table):
        return table, classes
    chosen = rng.permutation(len(table))[:samples]
    return table.rows(chosen), classes.rows(chosen)


def encoder_of(codes: Codes) -> Encoder:
    if not callable(codes):
        raise MetricError("factors are drawn from a FactorSource: codes must then be an encoder of images")
    return codes


@dataclass(frozen=True)
class Split:
    learn: np.ndarray  # rows to learn from
    held: np.ndarray  # rows held out


def split(factors: FactorTable, order: np.ndarray, train: float) -> Split:
    """The first share `train` of the rows in `order` [N] to learn from, the rest held out.

    Raises MetricError where a class does not occur among the first, or only one among the others.
    """
    cut = round(train * len(order))
    if not 0 < cut < len(order):
        raise MetricError(f"{len(order)} samples are too few to hold some out")
    parts = Split(order[:cut], order[cut:])
    for k, name in enumerate(factors.names):
        check_classes(name, factors.classes[parts.learn, k], factors.sizes[k])
        if len(np.unique(factors.classes[parts.held, k])) < 2:
            raise MetricError(
                f"factor {name!r}: all {len(parts.held)} samples held out are of one class; give more "
                "samples, or leave the factor out"
            )
    return parts


def check_classes(name: str, classes: np.ndarray, size: int) -> None:
    """Raise MetricError unless each of `size` classes occurs among those to learn from."""
    counts = np.bincount(classes, minlength=size)
    if not counts.all():
        raise MetricError(
            f"factor {name!r}: class {int(np.argmin(counts))} has no sample among the {len(classes)} to "
            "learn from; give more samples, or leave that class out"
        )
