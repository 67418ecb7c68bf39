"""Splits of a set by patient: nobody is on both sides, and both eyes of a patient stay together.

Which side a patient falls on depends on the patient's name and a seed alone, not on the order of the images,
nor on the machine. A person of CelebA is a patient in this sense.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from infostylegan.data.annotations import Annotated
from infostylegan.data.errors import DataError
from infostylegan.data.loading import BlockSums, Dataset, Indices, annotations_of
from infostylegan.data.pyramid import box_sums


def patient_folds(patients: np.ndarray | Sequence[str], folds: int, seed: int = 0) -> np.ndarray:
    """The fold, 0 to folds - 1, of each image by its patient (str [N]): int64 [N].

    The folds have the same number of patients, or one more. Raises ValueError where there are fewer patients
    than folds.
    """
    names, which = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if not 1 <= folds <= len(names):
        raise ValueError(f"{len(names)} patients cannot be put into {folds} folds")
    fold = np.empty(len(names), dtype=np.int64)
    fold[_shuffled(names, seed)] = np.arange(len(names)) % folds
    return fold[which]


def hold_out(patients: np.ndarray | Sequence[str], share: float, seed: int = 0) -> np.ndarray:
    """Which images (bool [N]) belong to the share of the patients, rounded, that is held out; at least one
    patient is, and one is not.

    Holding out more with the same seed holds out the same patients and further ones.
    """
    names, which = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if not 0 < share < 1 or len(names) < 2:
        raise ValueError(
            f"a share {share:g} of {len(names)} patients cannot be held out: between 0 and 1, of two"
        )
    held = np.zeros(len(names), dtype=bool)
    held[_shuffled(names, seed)[: min(len(names) - 1, max(1, round(share * len(names))))]] = True
    return held[which]


def _shuffled(names: np.ndarray, seed: int) -> np.ndarray:
    """The indices of `names` in an order that only their texts and the seed decide."""
    keys = [hashlib.sha256(f"{seed}\n{name}".encode()).digest() for name in names]
    return np.array(sorted(range(len(names)), key=keys.__getitem__), dtype=np.int64)


def split_by_patient(dataset: Dataset, share: float, seed: int = 0) -> tuple[Subset, Subset]:
    """The images of the patients that are not held out, and of those that are. Raises DataError."""
    if dataset.patients is None:
        raise DataError(f"{dataset.name}: does not say whose image is whose; pack it with its patients")
    try:
        held = hold_out(dataset.patients, share, seed)
    except ValueError as error:
        raise DataError(f"{dataset.name}: {error}") from error
    return (
        Subset(dataset, np.flatnonzero(~held), f"{dataset.name}-rest"),
        Subset(dataset, np.flatnonzero(held), f"{dataset.name}-held"),
    )


class Subset(Annotated):
    """Some images of a data set, as a data set."""

    def __init__(self, dataset: Dataset, indices: np.ndarray, name: str) -> None:
        super().__init__(annotations_of(dataset).take(indices))
        self.name = name
        self.skipped: list[tuple[str, str]] = []
        self._dataset = dataset
        self._indices = indices
        # Of which images out of which set: telling this takes no look at any of them.
        chosen = np.ascontiguousarray(indices, dtype="<i8")
        self.digest = hashlib.sha256(dataset.digest.encode() + chosen.tobytes()).hexdigest()

    @property
    def resolution(self) -> int:
        return self._dataset.resolution

    @property
    def channels(self) -> int:
        return self._dataset.channels

    def __len__(self) -> int:
        return len(self._indices)

    def images(self, indices: Indices) -> np.ndarray:
        return self._dataset.images(self._indices[np.asarray(indices, dtype=np.int64)])

    def block_sums(self, indices: Indices, resolution: int) -> np.ndarray:
        """Sums over blocks; see `pyramid.box_sums`."""
        chosen = self._indices[np.asarray(indices, dtype=np.int64)]
        if isinstance(self._dataset, BlockSums):
            return self._dataset.block_sums(chosen, resolution)
        return box_sums(self._dataset.images(chosen), resolution)
