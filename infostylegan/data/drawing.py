"""The embedded data set: retinal photographs drawn by all cores, once, and kept in a cache."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import queue
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from dnnlib.cache import cache_folder
from dnnlib.lock import exclusive
from infostylegan.data import fundus
from infostylegan.data.annotations import Annotations
from infostylegan.data.errors import DataError
from infostylegan.data.images import Framing, luma
from infostylegan.data.loading import (
    ArrayDataset,
    Dataset,
    Progress,
    load_files,
    parallel,
    worker_count,
)
from infostylegan.data.packed import PackedDataset, read_contents
from infostylegan.data.packing import pack_chunks, read_annotations
from infostylegan.data.sources import ZipFiles, find_labels

FUNDUS_COUNT = 8192
WORTHWHILE = 256  # images, below which starting processes costs more than it saves
GRADES = ("no retinopathy", "mild", "moderate", "severe", "proliferative")


def open_fundus(
    resolution: int = 64,
    channels: int = 3,
    *,
    count: int = FUNDUS_COUNT,
    seed: int = 0,
    cache: Path | None = None,
    labels: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """Drawn retinal photographs with known factors; drawn once, then read from `cache`.

    The labels are the grades of retinopathy. A damaged cache is drawn again; where it cannot be written,
    the images are drawn for this process alone, with a warning.
    """
    check_fundus(resolution, count)
    version = hashlib.sha256(Path(fundus.__file__).read_bytes()).hexdigest()
    path = (cache or cache_folder()) / f"fundus-{resolution}-{count}-seed{seed}-{version[:12]}.zip"
    framing = Framing(resolution, channels)
    known = partial(_cached_fundus, path, framing, count, labels)
    try:
        dataset = known()
        if dataset is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with exclusive(path.with_suffix(".lock")):
                dataset = known()  # another process may have drawn it while we waited
                if dataset is None:
                    pack_fundus(path, resolution, count, seed, overwrite=True, progress=progress)
                    dataset = known()
    except (OSError, DataError) as error:
        warnings.warn(
            f"drawn images cannot be kept in {path.parent} ({_reason(error)}), so they are drawn at every "
            "start; point INFOSTYLEGAN_CACHE at a folder that can be written",
            stacklevel=2,
        )
        dataset = None
    if dataset is None:
        dataset = _fundus_in_memory(framing, count, seed, labels, progress)
    return dataset


def pack_fundus(
    dest: Path,
    resolution: int = 64,
    count: int = FUNDUS_COUNT,
    seed: int = 0,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Draw `count` images straight into a zip. Raises DataError where it cannot be written."""
    check_fundus(resolution, count)
    factors: dict[str, np.ndarray] = {}

    def annotations() -> Annotations:
        return Annotations(factors["dr_grade"].astype(np.int64), GRADES, factors)

    pack_chunks(
        draw_fundus(resolution, count, seed, factors), dest, annotations, total=count, overwrite=overwrite,
        progress=progress,
    )  # fmt: skip


def check_fundus(resolution: int, count: int) -> None:
    if resolution not in fundus.RESOLUTIONS:
        raise DataError(f"fundus: cannot be drawn at {resolution}x{resolution}; "
                        f"use one of {', '.join(map(str, fundus.RESOLUTIONS))}")  # fmt: skip
    if count < 1:
        raise DataError(f"fundus: {count} images; ask for at least one")


def draw_fundus(
    resolution: int, count: int, seed: int, factors: dict[str, np.ndarray]
) -> Iterator[np.ndarray]:
    """The images in order, uint8 [n, 3, R, R] at a time, drawn by all cores.

    `factors` is filled, each [N], once the last images have been fetched.
    """
    # A few seconds of work a chunk at the most, and enough chunks to keep every core busy to the end.
    rows = max(1, min(64, (1 << 18) // resolution**2, -(-count // worker_count())))
    chunks = [range(start, min(start + rows, count)) for start in range(0, count, rows)]
    drawn: dict[str, list[np.ndarray]] = {}
    with Painters(worker_count() if count >= WORTHWHILE else 0, seed, resolution) as painters:
        for images, values in parallel(painters.draw, chunks):
            for name, column in values.items():
                drawn.setdefault(name, []).append(np.asarray(column))
            yield images.transpose(0, 3, 1, 2)
    factors.update({name: np.concatenate(columns) for name, columns in drawn.items()})


class Painters:
    """Processes that draw. Threads would gain nothing: a small picture is many short steps, which hold the
    interpreter's lock.

    They are plain programs at the end of a pipe, not `multiprocessing`, for that runs the user's script anew
    in each process: without `if __name__ == "__main__"` in it, every process would start from the top.
    Where none can be started, or one dies, the drawing is done right here.
    """

    _PROGRAM = """\
import io, sys
import numpy, fundus
seed, resolution = map(int, sys.argv[1:])
for line in sys.stdin.buffer:
    start, stop = map(int, line.split())
    images, factors = fundus.render_batch(seed, range(start, stop), resolution)
    file = io.BytesIO()
    numpy.savez(file, images=images, **factors)
    sys.stdout.buffer.write(len(file.getvalue()).to_bytes(8, "little") + file.getvalue())
    sys.stdout.buffer.flush()
"""

    def __init__(self, count: int, seed: int, resolution: int) -> None:
        self._seed = seed
        self._resolution = resolution
        self._all: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        # The folder of the module alone: the package around it would load torch, for seconds and in vain.
        paths = [str(Path(fundus.__file__).parent), *(path or os.getcwd() for path in sys.path)]
        command = [sys.executable, "-c", self._PROGRAM, str(seed), str(resolution)]
        with contextlib.suppress(OSError):
            for _ in range(count if count > 1 else 0):
                self._all.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                    )
                )
        for painter in self._all:
            self._idle.put(painter)
        if not self._all:
            self._idle.put(None)  # one at a time, right here

    def __enter__(self) -> Painters:
        return self

    def __exit__(self, *error: object) -> None:
        for painter in self._all:
            painter.kill()
            painter.communicate()

    def draw(self, indices: range) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Images uint8 [n, R, R, 3] and factors, each [n]; to be called from many threads."""
        painter = self._idle.get()
        try:
            result = None if painter is None else self._ask(painter, indices)
            if result is None:
                painter = None  # it is dead: from now on, its share is drawn here
                result = fundus.render_batch(self._seed, indices, self._resolution)
            return result
        finally:
            self._idle.put(painter)

    @staticmethod
    def _ask(
        painter: subprocess.Popen[bytes], indices: range
    ) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
        assert painter.stdin is not None
        assert painter.stdout is not None
        try:
            painter.stdin.write(f"{indices.start} {indices.stop}\n".encode())
            painter.stdin.flush()
            content = painter.stdout.read(int.from_bytes(painter.stdout.read(8), "little"))
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                factors = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        return factors.pop("images"), factors


def _cached_fundus(path: Path, framing: Framing, count: int, labels: bool) -> Dataset | None:
    """The data set in `path`, or None where there is none, or none that is whole."""
    try:
        files = ZipFiles(path)
        contents = read_contents(files)
        known = read_annotations(files, find_labels(files))
        if contents is None or contents.images != count or known.factors is None or known.labels is None:
            return None
        if not files.sound():
            return None
        known = known if labels else known.unlabelled()
        if framing.channels == contents.channels:
            return PackedDataset(files, contents, known, name="fundus")
        return load_files(files, framing, known, name="fundus", max_bad=0.0)
    except DataError:
        return None


def _fundus_in_memory(
    framing: Framing, count: int, seed: int, labels: bool, progress: Progress | None
) -> ArrayDataset:
    factors: dict[str, np.ndarray] = {}
    array = np.empty((count, framing.channels, framing.resolution, framing.resolution), dtype=np.uint8)
    done = 0
    for images in draw_fundus(framing.resolution, count, seed, factors):
        array[done : done + len(images)] = luma(images) if framing.channels == 1 else images
        done += len(images)
        if progress is not None:
            progress(done, count)
    grades = factors["dr_grade"].astype(np.int64)
    return ArrayDataset("fundus", array, grades if labels else None, GRADES if labels else None, factors)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
