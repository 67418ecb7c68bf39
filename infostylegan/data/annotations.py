"""What is known of the images of a set, besides their pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

Labels = tuple[np.ndarray, tuple[str, ...] | None]  # int64 [N]; the names of the classes, where they have any


@dataclass(frozen=True)
class Annotations:
    """Every array has one value an image."""

    labels: np.ndarray | None = None  # int64 [N]
    label_names: tuple[str, ...] | None = None
    factors: dict[str, np.ndarray] | None = None  # what the images were drawn from
    attributes: dict[str, np.ndarray] | None = None  # observed; never trained on
    patients: np.ndarray | None = None  # str [N]
    extras: Mapping[str, bytes] = field(default_factory=dict)  # further files to pack: name -> content

    @classmethod
    def labelled(cls, found: Labels | None) -> Annotations:
        """Of what `find_labels` has found."""
        return cls() if found is None else cls(*found)

    def unlabelled(self) -> Annotations:
        return replace(self, labels=None, label_names=None)

    def take(self, indices: np.ndarray) -> Annotations:
        """Those of the images at `indices`, int64 [n]."""

        def some(table: dict[str, np.ndarray] | None) -> dict[str, np.ndarray] | None:
            return None if table is None else {name: values[indices] for name, values in table.items()}

        return replace(
            self,
            labels=None if self.labels is None else self.labels[indices],
            factors=some(self.factors),
            attributes=some(self.attributes),
            patients=None if self.patients is None else self.patients[indices],
        )

    def check(self, count: int) -> None:
        """Raise ValueError unless every array has `count` values."""
        columns = {"labels": self.labels, "patients": self.patients}
        for name, values in {**columns, **(self.factors or {}), **(self.attributes or {})}.items():
            if values is not None and values.shape != (count,):
                raise ValueError(f"{name} has shape {values.shape} for {count} images")


UNKNOWN = Annotations()


class Annotated:
    """A data set that has its annotations as attributes of its own."""

    def __init__(self, known: Annotations) -> None:
        self.labels = known.labels
        self.label_names = known.label_names
        self.factors = known.factors
        self.attributes = known.attributes
        self.patients = known.patients
