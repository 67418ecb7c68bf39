"""3D Shapes (Burgess & Kim, 2018) from its official file, 3dshapes.h5.

480,000 images of 64x64, one for each value of six factors: the hue of floor, wall and object (10 each), the
object's scale (8), its shape (4) and the orientation of the room (15).
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from infostylegan.data.errors import DataError
from infostylegan.data.loading import Indices, Progress, content_digest, pixel_digest

FILE = "3dshapes.h5"
FACTORS = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
SHAPES = ("cube", "cylinder", "sphere", "capsule")
ROWS = 2000  # images read at a time when all are wanted


def import_h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError("3D Shapes is an HDF5 file, and h5py is missing; pip install '.[data]'") from error
    return h5py


class Shapes3d:
    """The images of the file, read as they are asked for: slower than from a packed zip."""

    name = "shapes3d"
    channels = 3
    attributes: dict[str, np.ndarray] | None = None
    patients: np.ndarray | None = None

    def __init__(self, path: Path, *, labels: bool = True, progress: Progress | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file: tuple[int, Any] = (0, None)
        h5py = import_h5py()
        try:
            images, values = self._images(), self._open()["labels"][:]
        except (OSError, KeyError) as error:
            raise DataError(
                f"{path}: damaged, or not 3D Shapes' file ({error}); download {FILE} again"
            ) from error
        size = images.shape[-2] if images.ndim == 4 else 0
        square = (
            images.ndim == 4 and images.shape[1:] == (size, size, 3) and size >= 4 and not size & (size - 1)
        )
        if not isinstance(images, h5py.Dataset) or images.dtype != np.uint8 or not square or not len(images):
            raise DataError(f"{path}: images is {images.dtype} {images.shape}, not uint8 [N, 64, 64, 3]; "
                            f"download {FILE} again")  # fmt: skip
        if values.shape != (len(images), len(FACTORS)):
            raise DataError(f"{path}: labels has shape {values.shape}, not {(len(images), len(FACTORS))}; "
                            f"download {FILE} again")  # fmt: skip
        self.resolution = int(size)
        self._count = len(images)
        columns = [np.unique(column, return_inverse=True)[1].astype(np.int64) for column in values.T]
        self.factors: dict[str, np.ndarray] | None = dict(zip(FACTORS, columns))
        shape = self.factors["shape"]
        self.labels: np.ndarray | None = shape.copy() if labels else None
        named = labels and int(shape.max()) < len(SHAPES)
        self.label_names: tuple[str, ...] | None = SHAPES if named else None
        self.skipped: list[tuple[str, str]] = []
        self.digest = self._digest(progress)

    def __len__(self) -> int:
        return self._count

    def images(self, indices: Indices) -> np.ndarray:
        # HDF5 reads rows in rising order, each once.
        rows, places = np.unique(np.asarray(indices, dtype=np.int64) % self._count, return_inverse=True)
        if not len(rows):
            return np.empty((0, 3, self.resolution, self.resolution), dtype=np.uint8)
        with self._lock:
            try:
                consecutive = rows[-1] - rows[0] + 1 == len(rows)
                wanted = slice(int(rows[0]), int(rows[-1]) + 1) if consecutive else rows
                images = self._images()[wanted]
            except OSError as error:
                raise DataError(f"{self.path}: cannot be read ({error}); download it again") from error
        return np.ascontiguousarray(images[places].transpose(0, 3, 1, 2))

    def _digest(self, progress: Progress | None) -> str:
        parts = []
        for start in range(0, self._count, ROWS):
            stop = min(start + ROWS, self._count)
            parts += [pixel_digest(image) for image in self.images(range(start, stop))]
            if progress is not None:
                progress(stop, self._count)
        return content_digest(b"".join(parts), (3, self.resolution, self.resolution), self.labels)

    def _images(self) -> Any:
        return self._open()["images"]

    def _open(self) -> Any:
        pid, file = self._file
        if pid != os.getpid():  # a handle inherited through a fork cannot be used
            self._lock = threading.Lock()
            file = import_h5py().File(self.path, "r")
            self._file = os.getpid(), file
        return file
