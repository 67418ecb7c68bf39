"""Data sets as worlds to draw from: choose factors, hold some at a value, and get images that have them.

The FactorVAE and BetaVAE scores ask for this (`metrics.FactorSource`). Every factor takes the values 0, 1,
... below its size; images are uint8 [n, C, R, R].

* dSprites and fundus are rendered; Color MNIST colours a digit of the class that is asked for.
* A set with known factors, such as 3D Shapes or any packed zip with factors.npz, is looked up: images are
  drawn from those that have the factors.
* A continuous factor is cut into `BINS` intervals of equal width over its range. Where images are rendered,
  it takes the value in the middle of its interval.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from infostylegan.data import dsprites, fundus
from infostylegan.data.color_mnist import BACKGROUND, FOREGROUND, colour
from infostylegan.data.errors import DataError
from infostylegan.data.loading import ArrayDataset, Dataset

BINS = 10
MANY = 50  # more distinct values than this make a floating-point factor continuous


def _check_fixed(fixed: Mapping[str, int] | None, sizes: Mapping[str, int]) -> dict[str, int]:
    fixed = dict(fixed or {})
    for name, value in fixed.items():
        if name not in sizes:
            raise ValueError(f"no factor {name!r}; there are {', '.join(sizes)}")
        if not 0 <= value < sizes[name]:
            raise ValueError(f"{name} takes the values 0 to {sizes[name] - 1}, not {value}")
    return fixed


class _Independent:
    """Factors that are drawn independently of each other, each with probabilities of its own."""

    def __init__(self, probabilities: Mapping[str, np.ndarray]) -> None:
        self._probabilities = probabilities
        self.factor_sizes = {name: len(shares) for name, shares in probabilities.items()}

    def draw(self, n: int, rng: np.random.Generator, fixed: Mapping[str, int] | None = None) -> np.ndarray:
        """Value indices int64 [n, K]; `fixed` holds some factors at a value."""
        held = _check_fixed(fixed, self.factor_sizes)
        columns = []
        for name, shares in self._probabilities.items():
            drawn = rng.choice(len(shares), size=n, p=shares)  # drawn even if held: it shifts no other
            columns.append(np.full(n, held[name]) if name in held else drawn)
        return np.stack(columns, axis=1).astype(np.int64)


def _uniform(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    return {name: np.full(size, 1 / size) for name, size in sizes.items()}


class DspritesSource(_Independent):
    """dSprites, drawn anew; every combination of its five factors has one image."""

    def __init__(self) -> None:
        super().__init__(_uniform(dsprites.SIZES))

    def images(self, factors: np.ndarray) -> np.ndarray:
        return dsprites.render(factors)


class ColorMnistSource(_Independent):
    """Digits in colours; which of the digits of a class is drawn anew for each image.

    `mnist` holds gray digits with labels. `seed` is that of the choice of digits.
    """

    def __init__(self, mnist: ArrayDataset, seed: int = 0) -> None:
        if mnist.labels is None:
            raise ValueError("Color MNIST needs MNIST's labels, for the digit is one of its factors")
        sizes = {
            "digit": int(mnist.labels.max()) + 1,
            "foreground": len(FOREGROUND),
            "background": len(BACKGROUND),
        }
        super().__init__(_uniform(sizes))
        self._mnist = mnist
        self._rows = [np.flatnonzero(mnist.labels == digit) for digit in range(sizes["digit"])]
        self._rng = np.random.default_rng(seed)

    def images(self, factors: np.ndarray) -> np.ndarray:
        digit, foreground, background = np.asarray(factors, dtype=np.int64).reshape(-1, 3).T
        chosen = np.array([self._rng.choice(self._rows[d]) for d in digit], dtype=np.int64)
        return colour(self._mnist.images(chosen), foreground, background)


class FundusSource(_Independent):
    """Drawn retinal photographs; everything that is not a factor is drawn anew for each image.

    `seed` is that of vessels, place of the disc, camera and the rest.
    """

    def __init__(self, resolution: int = 64, seed: int = 0) -> None:
        shares = {}
        for factor in fundus.FACTORS:
            size = BINS if factor.values is None else len(factor.values)
            shares[factor.name] = np.array(factor.probabilities or [1 / size] * size)
        super().__init__(shares)
        self.resolution = resolution
        self._seed = seed
        self._drawn = 0

    def value(self, name: str, index: int) -> float:
        """What `fundus.render` is given for a value index."""
        factor = next(factor for factor in fundus.FACTORS if factor.name == name)
        if factor.values is not None:
            return factor.values[index]
        return factor.low + (factor.high - factor.low) * (index + 0.5) / BINS

    def images(self, factors: np.ndarray) -> np.ndarray:
        factors = np.asarray(factors, dtype=np.int64).reshape(-1, len(self.factor_sizes))
        out = np.empty((len(factors), 3, self.resolution, self.resolution), dtype=np.uint8)
        for row, indices in enumerate(factors.tolist()):
            values = {name: self.value(name, index) for name, index in zip(self.factor_sizes, indices)}
            picture = fundus.render(values, self.resolution, seed=self._seed, index=self._drawn)
            out[row] = picture.transpose(2, 0, 1)
            self._drawn += 1
        return out


class LookupSource:
    """A data set with known factors. Factors are drawn as they occur in it, and images from those that fit.

    `seed` is that of the choice among images with the same factors.
    """

    def __init__(self, dataset: Dataset, seed: int = 0) -> None:
        if not dataset.factors:
            raise DataError(
                f"{dataset.name}: its factors are not known, so none can be held fixed; take a set with "
                "factors, such as dsprites, shapes3d, color-mnist or fundus"
            )
        self._dataset = dataset
        self._rng = np.random.default_rng(seed)
        columns = {name: discretise(values) for name, values in dataset.factors.items()}
        self.factor_sizes = {name: int(values.max()) + 1 for name, values in columns.items()}
        self._table = np.stack(list(columns.values()), axis=1)
        keys = self._key(self._table)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def draw(self, n: int, rng: np.random.Generator, fixed: Mapping[str, int] | None = None) -> np.ndarray:
        """Value indices int64 [n, K] of images of the set; `fixed` holds some factors at a value."""
        held = _check_fixed(fixed, self.factor_sizes)
        fits = np.ones(len(self._table), dtype=bool)
        for column, name in enumerate(self.factor_sizes):
            if name in held:
                fits &= self._table[:, column] == held[name]
        rows = np.flatnonzero(fits)
        if not len(rows):
            raise DataError(f"{self._dataset.name}: no image has " + _told(held))
        return self._table[rows[rng.integers(0, len(rows), n)]]

    def images(self, factors: np.ndarray) -> np.ndarray:
        factors = np.asarray(factors, dtype=np.int64).reshape(-1, len(self.factor_sizes))
        keys = self._key(factors)
        first, last = np.searchsorted(self._keys, keys, "left"), np.searchsorted(self._keys, keys, "right")
        missing = np.flatnonzero(first == last)
        if len(missing):
            wanted = dict(zip(self.factor_sizes, factors[missing[0]].tolist()))
            raise DataError(f"{self._dataset.name}: no image has " + _told(wanted))
        return self._dataset.images(self._order[self._rng.integers(first, last)])

    def _key(self, factors: np.ndarray) -> np.ndarray:
        sizes = list(self.factor_sizes.values())
        inside = ((factors >= 0) & (factors < sizes)).all(axis=1)
        key = np.zeros(len(factors), dtype=np.int64)
        for column, size in enumerate(sizes):
            key = key * size + factors[:, column]
        return np.where(inside, key, -1)


def _told(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def discretise(values: np.ndarray) -> np.ndarray:
    """Value indices int64 [N] of one factor: its distinct values in order, or intervals where continuous."""
    distinct, index = np.unique(values, return_inverse=True)
    if values.dtype.kind != "f" or len(distinct) <= MANY:
        return index.astype(np.int64)
    low, high = distinct[0], distinct[-1]
    return np.minimum((values - low) / (high - low) * BINS, BINS - 1).astype(np.int64)
