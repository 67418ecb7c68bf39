"""Data sets as training sees them, and the stream of batches drawn from them.

Images are uint8 [n, C, R, R] in a data set and float32 [n, C, r, r] in [-1, 1] in a batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch

from dnnlib.files import atomic_write
from infostylegan.data.annotations import UNKNOWN, Annotated, Annotations
from infostylegan.data.errors import DataError
from infostylegan.data.images import BadImage, Framing, decode
from infostylegan.data.pyramid import box_sums, to_float
from infostylegan.data.sources import Files

RAM_LIMIT = 2 << 30  # bytes of decoded images that are kept in memory; larger sets are decoded per batch

Progress = Callable[[int, int], None]  # (done, total)
Indices = np.ndarray | Sequence[int]
In = TypeVar("In")
Out = TypeVar("Out")


class Dataset(Protocol):
    """Square images of one size and, where known, their class labels and generative factors."""

    name: str
    labels: np.ndarray | None  # int64 [N]
    label_names: tuple[str, ...] | None
    factors: dict[str, np.ndarray] | None  # what the images were drawn from, each [N]
    attributes: dict[str, np.ndarray] | None  # what is known of them besides, each [N]; never trained on
    patients: np.ndarray | None  # str [N]: no patient belongs on both sides of a split
    skipped: list[tuple[str, str]]  # (file, reason)
    digest: str  # sha256 (hex) of what training sees

    @property
    def resolution(self) -> int: ...

    @property
    def channels(self) -> int:
        """1 or 3."""
        ...

    def __len__(self) -> int: ...

    def images(self, indices: Indices) -> np.ndarray:
        """The images at `indices`, uint8 [n, C, R, R]."""
        ...


def annotations_of(dataset: Dataset) -> Annotations:
    """What a data set knows of its images."""
    return Annotations(
        dataset.labels, dataset.label_names, dataset.factors, dataset.attributes, dataset.patients
    )


@runtime_checkable
class BlockSums(Protocol):
    """A data set that knows its images at lower resolutions without adding up all their pixels anew."""

    def block_sums(self, indices: Indices, resolution: int) -> np.ndarray:
        """What `pyramid.box_sums` makes of the images at `indices`."""
        ...


@dataclass
class ArrayDataset:
    """A data set held in memory as one array, uint8 [N, C, R, R]."""

    name: str
    array: np.ndarray
    labels: np.ndarray | None = None
    label_names: tuple[str, ...] | None = None
    factors: dict[str, np.ndarray] | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    digest: str = ""
    attributes: dict[str, np.ndarray] | None = None
    patients: np.ndarray | None = None
    _sums: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.digest:
            self.digest = array_digest(self.array, self.labels)

    @property
    def resolution(self) -> int:
        return int(self.array.shape[3])

    @property
    def channels(self) -> int:
        return int(self.array.shape[1])

    def __len__(self) -> int:
        return len(self.array)

    def images(self, indices: Indices) -> np.ndarray:
        return self.array[np.asarray(indices, dtype=np.int64)]

    def block_sums(self, indices: Indices, resolution: int) -> np.ndarray:
        """Sums over blocks; those of the whole set are kept, at the resolution asked for last."""
        if resolution == self.resolution:
            return self.images(indices)
        if self._sums is None or self._sums.shape[-1] != resolution:
            self._sums = self._reduce(resolution)  # at most half the set's own memory
        return self._sums[np.asarray(indices, dtype=np.int64)]

    def _reduce(self, resolution: int) -> np.ndarray:
        first = box_sums(self.array[:1], resolution)
        sums = np.empty((len(self.array), *first.shape[1:]), dtype=first.dtype)
        rows = max(1, (16 << 20) // max(1, self.array[0].nbytes))

        def reduce(start: int) -> None:
            sums[start : start + rows] = box_sums(self.array[start : start + rows], resolution)

        with ThreadPoolExecutor(worker_count()) as pool:
            list(pool.map(reduce, range(0, len(self.array), rows)))
        return sums


def pixel_digest(image: np.ndarray) -> bytes:
    """SHA-256 of an image's pixels, uint8 [C, R, R]."""
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()


def content_digest(digests: bytes, shape: tuple[int, ...], labels: np.ndarray | None) -> str:
    """The digest (hex) of a data set: of its images in their order, their shape and their labels.

    `digests` holds the `pixel_digest` of each. Names, places and the form on disk have no part in it: a
    folder, the zip packed from it and the array read from either have the same digest.
    """
    digest = hashlib.sha256(repr((shape, labels is not None)).encode())
    digest.update(digests)
    if labels is not None:
        digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def array_digest(array: np.ndarray, labels: np.ndarray | None) -> str:
    return content_digest(b"".join(map(pixel_digest, array)), array.shape[1:], labels)


def worker_count() -> int:
    """Threads worth starting: the cores this process may use, at most 32."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return max(1, min(cores, 32))


def parallel(function: Callable[[In], Out], items: Iterable[In], window: int = 0) -> Iterator[Out]:
    """function(item) of each item, in order, computed by threads that run at most `window` items ahead.

    A result not fetched is never waited for: an error or Ctrl-C ends it at once.
    """
    workers = worker_count()
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > (window or 4 * workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# ---- files ---------------------------------------------------------------------------------------------


class Threads:
    """Threads for reading and decoding, started when first needed, and anew in a forked process."""

    def __init__(self, name: str, count: int | None = None) -> None:
        self._name = name
        self._count = count
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def pool(self) -> ThreadPoolExecutor:
        if self._pool is None or self._pool[0] != os.getpid():
            pool = ThreadPoolExecutor(self._count or worker_count(), thread_name_prefix=self._name)
            self._pool = os.getpid(), pool
        return self._pool[1]

    def close(self) -> None:
        if self._pool is not None and self._pool[0] == os.getpid():
            self._pool[1].shutdown(wait=False, cancel_futures=True)
        self._pool = None


class FileDataset(Annotated):
    """A data set too large for memory: images are read and decoded as they are asked for."""

    def __init__(
        self,
        files: Files,
        framing: Framing,
        kept: np.ndarray,
        annotations: Annotations,
        *,
        name: str,
        skipped: list[tuple[str, str]],
        digest: str,
    ) -> None:
        super().__init__(annotations)
        self.name = name
        self.resolution = framing.resolution
        self.channels = framing.channels
        self.skipped = skipped
        self.digest = digest
        self._files = files
        self._framing = framing
        self._kept = kept  # int64 [N]: which of the files are in the set
        self._threads = Threads("decode")

    def __len__(self) -> int:
        return len(self._kept)

    def images(self, indices: Indices) -> np.ndarray:
        size = self.resolution
        out = np.empty((len(indices), self.channels, size, size), dtype=np.uint8)
        wanted = self._kept[np.asarray(indices, np.int64)]
        for place, pixels in enumerate(self._threads.pool().map(self._decode, wanted)):
            out[place] = pixels
        return out

    def _decode(self, file: int) -> np.ndarray:
        try:
            return decode(read(self._files, file), self._framing)
        except BadImage as error:
            raise DataError(
                f"{self._files.path}: {self._files.names[file]} was sound and is now bad ({error}); "
                "put it back, or start again without it"
            ) from error


def read(files: Files, index: int) -> bytes:
    """The content of one file. Raises BadImage where it cannot be read."""
    try:
        return files.read(index)
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        text = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
        raise BadImage(f"cannot be read: {text}") from error


def check_bad(
    where: Path, skipped: Sequence[tuple[str, str]], total: int, max_bad: float, *, all_seen: bool = True
) -> None:
    """Raise DataError where more than a share `max_bad` of `total` images had to be skipped."""
    if len(skipped) <= max_bad * total and len(skipped) < total:
        return
    shown = "; ".join(f"{name} ({reason})" for name, reason in skipped[:3])
    if len(skipped) == total:
        raise DataError(f"{where}: none of its {total} images can be used: {shown}")
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    already, needed = "already ", "with a higher --max-bad"
    if all_seen:
        already, needed = "", f"with --max-bad {np.ceil(1000 * len(skipped) / total) / 1000:g}"
    raise DataError(
        f"{where}: {already}{len(skipped)} of {total} images cannot be used: {shown}{more}. "
        f"Mend or remove them, or go on without them {needed} (now {max_bad:g})"
    )


def load_files(
    files: Files,
    framing: Framing,
    annotations: Annotations = UNKNOWN,
    *,
    name: str,
    max_bad: float = 0.05,
    memo: Path | None = None,
    progress: Progress | None = None,
) -> ArrayDataset | FileDataset:
    """Decode every file once, keep what fits in RAM_LIMIT, and leave out the files that cannot be used.

    A set too large for memory is remembered in the folder `memo`, so that the next start need not look at
    every file again.
    Raises DataError where more than a share `max_bad` has to be left out.
    """
    total = len(files.names)
    size = framing.resolution
    array: np.ndarray | None = None
    if total * framing.nbytes() <= RAM_LIMIT:
        array = np.empty((total, framing.channels, size, size), dtype=np.uint8)
    stamps = files.stamps()
    known = None if array is not None else _recall(memo, files, stamps, framing)
    if known is None:
        known = _examine(files, framing, array, progress)
        if array is None:
            _remember(memo, files, stamps, framing, known)
    skipped = [(files.names[i], reason) for i, reason in sorted(known.bad.items())]
    check_bad(files.path, skipped, total, max_bad)
    kept = np.array([i for i in range(total) if i not in known.bad], dtype=np.int64)
    annotations = annotations.take(kept)
    digests = np.frombuffer(known.digests, dtype=np.uint8).reshape(total, -1)[kept].tobytes()
    digest = content_digest(digests, (framing.channels, size, size), annotations.labels)
    if array is None:
        return FileDataset(files, framing, kept, annotations, name=name, skipped=skipped, digest=digest)
    if skipped:  # close the gaps in place: a copy would need the memory twice
        for place, i in enumerate(kept):
            array[place] = array[i]
        array = array[: len(kept)]
    return ArrayDataset(
        name, array, annotations.labels, annotations.label_names, annotations.factors, skipped, digest,
        annotations.attributes, annotations.patients,
    )  # fmt: skip


@dataclass
class Verdict:
    """What looking at every file once has shown."""

    bad: dict[int, str]  # index of the file -> reason
    digests: bytes  # the `pixel_digest` of each file's image; zeros of a bad one


def _examine(files: Files, framing: Framing, array: np.ndarray | None, progress: Progress | None) -> Verdict:
    def look(index: int) -> tuple[bytes, str | None]:
        try:
            pixels = decode(read(files, index), framing)
        except BadImage as error:
            return bytes(hashlib.sha256().digest_size), str(error)
        if array is not None:
            array[index] = pixels
        return pixel_digest(pixels), None

    bad: dict[int, str] = {}
    digests = []
    for index, (digest, reason) in enumerate(parallel(look, range(len(files.names)))):
        digests.append(digest)
        if reason is not None:
            bad[index] = reason
        if progress is not None:
            progress(index + 1, len(files.names))
    return Verdict(bad, b"".join(digests))


def _memo_file(folder: Path, files: Files, stamps: list[tuple[str, int, int]], framing: Framing) -> Path:
    key = json.dumps([str(files.path.resolve()), asdict(framing), stamps])
    return folder / f"examined-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _recall(
    folder: Path | None, files: Files, stamps: list[tuple[str, int, int]], framing: Framing
) -> Verdict | None:
    if folder is None:
        return None
    try:
        known = json.loads(_memo_file(folder, files, stamps, framing).read_text())
        verdict = Verdict(
            {int(i): str(why) for i, why in known["bad"].items()}, bytes.fromhex(known["digests"])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not there, or damaged: look again
    return verdict if len(verdict.digests) == hashlib.sha256().digest_size * len(stamps) else None


def _remember(
    folder: Path | None, files: Files, stamps: list[tuple[str, int, int]], framing: Framing, verdict: Verdict
) -> None:
    if folder is not None:
        with contextlib.suppress(OSError):  # no more than time is lost
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(_memo_file(folder, files, stamps, framing), "w") as file:
                json.dump({"bad": verdict.bad, "digests": verdict.digests.hex()}, file)


# ---- batches -------------------------------------------------------------------------------------------


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of `size` images in one epoch, int64 [size]; the same on every machine and NumPy."""
    # Raw bits of a bit generator are promised never to change between NumPy releases;
    # Generator.permutation is not.
    bits = np.random.Philox(np.random.SeedSequence([seed & (1 << 64) - 1, epoch, 0x1DA7A]))
    return np.argsort(bits.random_raw(size), kind="stable")


class BatchStream:
    """Batches as a pure function of (seed, position, count): any position, any restart, exactly the same.

    `position` counts the images served before the batch over all ranks together. Epoch e = position // N
    walks a permutation drawn from (seed, e), so each image is seen once an epoch. Of a global batch of
    `count * world_size` images, rank r takes items r, r + world_size, ...

    Sets decoded per batch are decoded ahead of need, `prefetch` batches far (0: never); this changes the
    time a batch takes and never its content.
    """

    def __init__(
        self, dataset: Dataset, seed: int, *, rank: int = 0, world_size: int = 1, prefetch: int = 2
    ) -> None:
        if len(dataset) == 0:
            raise DataError(f"{dataset.name}: the data set holds no images")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0..{world_size - 1}")
        self.dataset = dataset
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.prefetch = prefetch if not isinstance(dataset, ArrayDataset) else 0
        self._orders: dict[int, np.ndarray] = {}
        self._ahead: dict[tuple[int, int, int], Future[torch.Tensor]] = {}
        self.waited = 0.0  # seconds spent in `batch`
        self._threads = Threads("look-ahead", 1)
        self._pid = os.getpid()

    def indices(self, position: int, count: int) -> np.ndarray:
        """Which images of the data set make up this rank's batch, int64 [count]."""
        if position < 0 or count < 0:
            raise ValueError(f"position {position} and count {count} must not be negative")
        size = len(self.dataset)
        places = position + self.rank + self.world_size * np.arange(count, dtype=np.int64)
        epochs, offsets = np.divmod(places, size)
        chosen = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            chosen[here] = self._order(int(epoch))[offsets[here]]
        return chosen

    def batch(
        self, position: int, count: int, resolution: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Images float32 [count, C, r, r] in [-1, 1] and labels int64 [count] (None without labels).

        A `resolution` below the data set's takes the mean of each block of s*s pixels.
        """
        full = self.dataset.resolution
        resolution = full if resolution is None else resolution
        if resolution < 1 or full % resolution or not is_power_of_two(full // resolution):
            raise DataError(
                f"{self.dataset.name}: cannot give {resolution}x{resolution} images of {full}x{full} ones; "
                f"use {full} or {full} halved some number of times"
            )
        begun = time.perf_counter()
        indices = self.indices(position, count)
        if self._pid != os.getpid():  # what the parent of a fork was decoding never comes to an end here
            self._pid = os.getpid()
            self._ahead = {}
        ready = self._ahead.pop((position, count, resolution), None)
        self._look_ahead(position, count, resolution)
        images = ready.result() if ready is not None else self._images(indices, resolution)
        self.waited += time.perf_counter() - begun
        labels = self.dataset.labels
        return images, None if labels is None else torch.from_numpy(labels[indices].astype(np.int64))

    def close(self) -> None:
        """Drop what was decoded ahead, and the threads; the stream stays usable."""
        for future in self._ahead.values():
            future.cancel()
        self._ahead.clear()
        self._threads.close()

    def _order(self, epoch: int) -> np.ndarray:
        order = self._orders.get(epoch)
        if order is None:
            while len(self._orders) >= 4:  # a batch and its look-ahead touch two epochs each, as a rule
                self._orders.pop(next(iter(self._orders)))
            order = self._orders[epoch] = permutation(self.seed, epoch, len(self.dataset))
        return order

    def _images(self, indices: np.ndarray, resolution: int) -> torch.Tensor:
        if isinstance(self.dataset, BlockSums):
            sums = self.dataset.block_sums(indices, resolution)
        else:
            sums = box_sums(self.dataset.images(indices), resolution)
        return to_float(sums, self.dataset.resolution // resolution)

    def _look_ahead(self, position: int, count: int, resolution: int) -> None:
        """Start decoding the batches that follow, and forget those no longer wanted."""
        step = count * self.world_size
        wanted = [(position + step * (i + 1), count, resolution) for i in range(self.prefetch if step else 0)]
        for key in [key for key in self._ahead if key not in wanted]:
            self._ahead.pop(key).cancel()
        for key in wanted:
            if key not in self._ahead:
                indices = self.indices(key[0], count)
                self._ahead[key] = self._threads.pool().submit(self._images, indices, resolution)


def is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0
