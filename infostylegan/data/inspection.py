"""What a data set holds, from a look at every image: numbers, tables, and pictures of mean and contrast."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from infostylegan.data.errors import DataError
from infostylegan.data.licences import licence_note
from infostylegan.data.loading import BlockSums, Dataset, Progress, pixel_digest
from infostylegan.data.packed import PackedDataset
from infostylegan.data.pyramid import box_sums

LOOK_AT = 64  # pixels a side at which means are taken
_CHUNK = 256


@dataclass
class Group:
    """The images of one class, or all of them."""

    name: str
    indices: np.ndarray  # int64 [n]
    mean: np.ndarray  # float64 [C, r, r], 0 to 255
    deviation: np.ndarray  # float64 [C, r, r]


@dataclass
class Inspection:
    """What was seen.

    tables      attributes and factors: name -> what its values are
    duplicates  groups of images, by index, with the same pixels
    across      how many of these groups span two patients
    brightness  5th, 50th and 95th percentile, over the images, of their mean
    """

    name: str
    count: int
    resolution: int
    channels: int
    digest: str
    everything: Group
    groups: list[Group]
    lower: tuple[int, ...] = ()
    tables: dict[str, dict[str, str]] = field(default_factory=dict)
    patients: dict[str, int] = field(default_factory=dict)  # patient -> images
    duplicates: list[list[int]] = field(default_factory=list)
    across: int = 0
    brightness: tuple[float, float, float] = (0, 0, 0)
    about: dict[str, Any] = field(default_factory=dict)
    licence: str = ""


def inspect_dataset(
    dataset: Dataset, about: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> Inspection:
    """Look at every image; of a packed set, at its lower resolutions alone, and at its digests."""
    size = min(LOOK_AT, dataset.resolution)
    total = len(dataset)
    digests: list[bytes] = []
    packed = dataset.pixel_digests() if isinstance(dataset, PackedDataset) else b""
    labels = np.zeros(total, dtype=np.int64) if dataset.labels is None else dataset.labels
    classes = int(labels.max()) + 1
    shape = (classes, dataset.channels, size, size)
    sums, squares, levels = np.zeros(shape), np.zeros(shape), np.empty(total)
    area = (dataset.resolution // size) ** 2
    for start in range(0, total, _CHUNK):
        stop = min(start + _CHUNK, total)
        if packed:
            digests += [packed[32 * i : 32 * i + 32] for i in range(start, stop)]
        else:
            images = dataset.images(range(start, stop))
            digests += [pixel_digest(image) for image in images]
        if isinstance(dataset, BlockSums):
            means = dataset.block_sums(range(start, stop), size) / area
        else:
            means = box_sums(images, size) / area
        levels[start:stop] = means.mean((1, 2, 3))
        np.add.at(sums, labels[start:stop], means)
        np.add.at(squares, labels[start:stop], means**2)
        if progress is not None:
            progress(stop, total)
    counts = np.bincount(labels, minlength=classes)
    names = dataset.label_names or tuple(str(label) for label in range(classes))

    def group(name: str, indices: np.ndarray, total_: np.ndarray, square: np.ndarray) -> Group:
        mean = total_ / max(1, len(indices))
        return Group(name, indices, mean, np.sqrt(np.maximum(square / max(1, len(indices)) - mean**2, 0)))

    groups = []
    if dataset.labels is not None:
        groups = [
            group(names[k], np.flatnonzero(labels == k), sums[k], squares[k])
            for k in range(classes) if counts[k]
        ]  # fmt: skip
    low, middle, high = np.percentile(levels, (5, 50, 95))
    told = dict(about or {})
    duplicates = _same(digests)
    across = 0
    patients: dict[str, int] = {}
    if dataset.patients is not None:
        across = sum(len(set(dataset.patients[same])) > 1 for same in duplicates)
        patients = {str(p): int(n) for p, n in zip(*np.unique(dataset.patients, return_counts=True))}
    return Inspection(
        dataset.name, total, dataset.resolution, dataset.channels, dataset.digest,
        group("all", np.arange(total), sums.sum(0), squares.sum(0)), groups,
        lower=dataset.lower if isinstance(dataset, PackedDataset) else (),
        tables={
            kind: {name: describe(values) for name, values in table.items()}
            for kind, table in (("attributes", dataset.attributes), ("factors", dataset.factors)) if table
        },
        patients=patients,
        duplicates=duplicates,
        across=across,
        brightness=(float(low), float(middle), float(high)),
        about=told,
        licence=licence_note(str(told.get("dataset", dataset.name))),
    )  # fmt: skip


def _same(digests: list[bytes]) -> list[list[int]]:
    found: dict[bytes, list[int]] = {}
    for index, digest in enumerate(digests):
        found.setdefault(digest, []).append(index)
    return [same for same in found.values() if len(same) > 1]


def describe(values: np.ndarray) -> str:
    """The values of an attribute or factor, [N], in a few words."""
    different = np.unique(values)
    if len(different) == 1:
        return f"always {different[0]}"
    if values.dtype.kind in "biu" and set(different.tolist()) <= {0, 1}:
        return f"{100 * float(np.mean(values)):.1f}% yes"
    if len(different) <= 12:
        shares = ((value, np.count_nonzero(values == value)) for value in different)
        return ", ".join(f"{value}: {count}" for value, count in shares)
    if values.dtype.kind in "biuf":
        return f"{values.min():g} to {values.max():g}, mean {values.mean():.3g}, {len(different)} values"
    return f"{len(different)} values"


def read_about(content: bytes | None, where: Path) -> dict[str, Any]:
    """about.json of a packed zip. Raises DataError."""
    if content is None:
        return {}
    with contextlib.suppress(ValueError):
        document = json.loads(content)
        if isinstance(document, dict):
            return document
    raise DataError(f"{where}: its about.json is damaged; pack it again")


def sheet_cells(
    dataset: Dataset, seen: Inspection, *, columns: int = 10, rows: int = 12
) -> tuple[np.ndarray, list[str], list[str]]:
    """Pictures for a sheet: uint8 [n, r, r, C], with the names of its columns and rows.

    A row is a class: its mean, its contrast (twice the standard deviation), and images from all over the set.
    Without classes there is one row with mean and contrast, and more of images.
    """
    size = min(2 * LOOK_AT, dataset.resolution)
    factor = size // seen.everything.mean.shape[-1]
    cells: list[np.ndarray] = []
    labels: list[str] = []

    def statistic(values: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(values), 0, 255).astype(np.uint8).repeat(factor, 1).repeat(factor, 2)

    def images(indices: np.ndarray) -> np.ndarray:
        chosen = indices[np.unique(np.linspace(0, len(indices) - 1, columns - 2).astype(np.int64))]
        found = box_sums(dataset.images(chosen), size) // (dataset.resolution // size) ** 2
        blank = np.full((columns - 2 - len(chosen), *found.shape[1:]), 255)
        return np.concatenate((found, blank)).astype(np.uint8)

    shown = [seen.everything, *seen.groups[: rows - 1]]
    for group in shown:
        cells += [statistic(group.mean), statistic(2 * group.deviation), *images(group.indices)]
        labels.append(f"{group.name}: {len(group.indices)}")
    if not seen.groups:
        for part in np.array_split(np.arange(seen.count), 4):
            if len(part):
                blank = np.full_like(cells[0], 255)
                cells += [blank, blank, *images(part)]
                labels.append(f"{part[0]} to {part[-1]}")
    names = ["mean", "contrast x2", *[""] * (columns - 2)]
    return np.stack(cells).transpose(0, 2, 3, 1), names, labels
