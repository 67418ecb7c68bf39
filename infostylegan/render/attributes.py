"""Attributes of real images read back from generated ones, through a linear probe on D's trunk.

The rule: ridge regression from the trunk's last features, standardised, to each attribute of the data, fitted
on three quarters of the real images; the penalty is the one of five that predicts a fifth of those best. An
attribute counts as readable if on the last quarter, which nothing was fitted on, prediction and truth have a
rank correlation of 0.3 or more. A readable attribute is then predicted for generated images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor

from infostylegan.data import Dataset
from infostylegan.networks import Discriminator

Values = npt.NDArray[np.float64]

READABLE = 0.3
PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)  # of standardised features
MOST_CLASSES = 40


@dataclass(frozen=True)
class Probe:
    """A linear function of features, and how well it predicted what it had not seen."""

    weights: Values  # [features]
    offset: float
    mean: Values
    scale: Values
    quality: float  # rank correlation on held-out real images

    @property
    def readable(self) -> bool:
        return self.quality >= READABLE

    def __call__(self, features: Values) -> Values:
        return (features - self.mean) / self.scale @ self.weights + self.offset


def rank_correlation(a: Values, b: Values) -> float:
    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / size if size > 0 else 0.0


def fit_probe(features: Values, target: Values, held: npt.NDArray[np.bool_]) -> Probe:
    """Ridge regression of target [N] on features [N, F], scored on the samples in `held`, bool [N]."""
    learn = ~held
    mean, scale = features[learn].mean(axis=0), features[learn].std(axis=0) + 1e-6
    x, offset = (features - mean) / scale, float(target[learn].mean())
    y = target - offset
    rows = np.flatnonzero(learn)
    check = rows[::5]
    fit = np.setdiff1d(rows, check)
    penalty = max(PENALTIES, key=lambda p: rank_correlation(x[check] @ _ridge(x[fit], y[fit], p), y[check]))
    weights = _ridge(x[rows], y[rows], penalty)
    return Probe(weights, offset, mean, scale, rank_correlation(x[held] @ weights, y[held]))


def _ridge(x: Values, y: Values, penalty: float) -> Values:
    """(xᵀx + penalty)⁻¹ xᵀ y, in the smaller of both spaces."""
    if len(x) < x.shape[1]:
        w = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    else:
        w = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return np.asarray(w, dtype=np.float64)


@torch.no_grad()
def trunk_vectors(D: Discriminator, images: Tensor, fade: float = 1.0, batch: int = 32) -> Values:
    """The trunk's last features of images [N, C, R, R] in [-1, 1], as float64 [N, F]."""
    device = next(D.parameters()).device
    parts = [D.trunk(part.to(device), fade).flatten(1).double().cpu() for part in images.split(batch)]
    return torch.cat(parts).numpy()


def known_attributes(dataset: Dataset) -> dict[str, Values]:
    """What is known of a data set's images as numbers, each [N]: factors, attributes, and each class against
    the rest (of two, the second)."""
    found: dict[str, Values] = {}
    for source in (dataset.factors, dataset.attributes):
        for name, values in (source or {}).items():
            array = np.asarray(values)
            if array.dtype.kind in "biuf":
                found[name.replace("_", " ")] = array.astype(np.float64)
    labels = dataset.labels
    if labels is not None and len(np.unique(labels)) > 1:
        classes = np.unique(labels)[:MOST_CLASSES]
        names = dataset.label_names or ()
        for value in classes[1:] if len(classes) == 2 else classes:
            name = names[value] if value < len(names) else str(value)
            found[f"class {name}"] = (labels == value).astype(np.float64)
    return {name: v for name, v in found.items() if np.isfinite(v).all() and v.std() > 0}


def fit_probes(
    D: Discriminator,
    dataset: Dataset,
    *,
    fade: float = 1.0,
    most: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Probe]:
    """A probe for each attribute of the data, from at most `most` of its images; patients stay together."""
    attributes = known_attributes(dataset)
    if not attributes:
        return {}
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(dataset))[:most])
    parts = []
    for i in range(0, len(chosen), 64):
        images = torch.from_numpy(dataset.images(chosen[i : i + 64])).float() / 127.5 - 1.0
        parts.append(trunk_vectors(D, images, fade))
        if progress is not None:
            progress(min(i + 64, len(chosen)), len(chosen))
    units = chosen if dataset.patients is None else dataset.patients[chosen]
    groups = np.unique(units)
    held = np.isin(units, rng.permutation(groups)[: max(1, len(groups) // 4)])
    features = np.concatenate(parts)
    return {
        name: fit_probe(features, values[chosen], held)
        for name, values in attributes.items()
        if values[chosen][~held].std() > 0 and values[chosen][held].std() > 0
    }
