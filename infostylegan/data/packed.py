"""Reading a packed zip: any image, at any resolution kept in it, without looking at the others."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from infostylegan.data import loading
from infostylegan.data.annotations import Annotated, Annotations
from infostylegan.data.errors import DataError
from infostylegan.data.images import BadImage, Framing, decode
from infostylegan.data.loading import (
    Indices,
    Progress,
    Threads,
    content_digest,
    parallel,
    pixel_digest,
    read,
)
from infostylegan.data.packing import FORMAT, lower_name, member_name, packed_format, read_annotations
from infostylegan.data.pyramid import box_sums, decode_sums, lower_resolutions, sum_type
from infostylegan.data.sources import ZipFiles, find_labels


@dataclass(frozen=True)
class Contents:
    """What packed.json says of a zip."""

    images: int
    channels: int
    resolution: int
    lower: tuple[int, ...]
    chunk: int
    digest: str
    sha256: dict[str, str]  # member -> SHA-256 of its content (hex)


def read_contents(files: ZipFiles) -> Contents | None:
    """The table of contents of a zip packed here in the present format; None of any other zip.

    Raises DataError where it is damaged, or was written by a later version.
    """
    version = packed_format(files)
    if version > FORMAT:
        raise DataError(
            f"{files.path}: packed in format {version}, and this version reads up to {FORMAT}; "
            "update infostylegan"
        )
    if version < 2 or files.pieces:  # pieces are read like any zip
        return None
    try:
        document = json.loads(files.beside("packed.json") or b"null")
        contents = Contents(
            int(document["images"]),
            int(document["channels"]),
            int(document["resolution"]),
            tuple(int(size) for size in document["lower"]),
            int(document["chunk"]),
            str(document["digest"]),
            {str(name): str(value) for name, value in document["sha256"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{files.path}: its packed.json is damaged ({error!r}); pack it again") from error
    whole = contents.images == len(files.names) and contents.chunk >= 1 and contents.channels in (1, 3)
    if not whole or contents.lower != lower_resolutions(contents.resolution):
        raise DataError(
            f"{files.path}: its packed.json tells of {contents.images} images of {contents.resolution}x"
            f"{contents.resolution}, and it holds {len(files.names)}; pack it again"
        )
    return contents


class Slices:
    """Pieces of a zip's stored members, read in any order, by many threads and forked processes at once."""

    def __init__(self, files: ZipFiles) -> None:
        self.path = files.path
        self._files = files
        self._starts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._handle: tuple[int, Any] = (0, None)

    def read(self, member: str, offset: int, size: int) -> bytes:
        """`size` bytes of a member from `offset` on. Raises BadImage where they are not there."""
        try:
            start = self._starts.get(member)
            if start is None:
                start = self._starts[member] = self._find(member)
            content = self._read(start + offset, size)
        except (OSError, KeyError) as error:
            raise BadImage(f"cannot be read: {error}") from error
        if len(content) != size:
            raise BadImage("cut short")
        return content

    def sha256(self, member: str) -> str:
        """The SHA-256 (hex) of a member, however large. Raises BadImage where it cannot be read."""
        digest, size = hashlib.sha256(), self._files.info(member).file_size
        for offset in range(0, size, 1 << 20):
            digest.update(self.read(member, offset, min(1 << 20, size - offset)))
        return digest.hexdigest()

    def _find(self, member: str) -> int:
        """Where a member's content begins in the zip."""
        info = self._files.info(member)
        if info.compress_type != zipfile.ZIP_STORED:
            raise BadImage("deflated, and not stored as it was packed")
        # The local header repeats name and extra field, whose length may differ from the directory's.
        header = self._read(info.header_offset, 30)
        if len(header) != 30:
            raise BadImage("cut short")
        name, extra = struct.unpack("<26xHH", header)
        return info.header_offset + 30 + int(name) + int(extra)

    def _read(self, position: int, size: int) -> bytes:
        handle = self._open()
        if hasattr(os, "pread"):
            return os.pread(handle.fileno(), size, position)
        with self._lock:
            handle.seek(position)
            content: bytes = handle.read(size)
            return content

    def _open(self) -> Any:
        # A handle inherited through a fork shares its place in the file, and maybe a lock in use.
        pid, handle = self._handle
        if pid != os.getpid():
            self._lock = threading.Lock()
            handle = open(self.path, "rb")  # noqa: SIM115  kept open
            self._handle = os.getpid(), handle
        return handle


class PackedDataset(Annotated):
    """A zip packed here, opened at its own resolution and channels; nothing is decoded to begin with.

    A batch at a lower resolution reads the records of that resolution alone. Where the whole set fits into
    RAM_LIMIT at a resolution, what has been decoded at it is kept, for the two resolutions used last.
    """

    def __init__(self, files: ZipFiles, contents: Contents, annotations: Annotations, *, name: str) -> None:
        super().__init__(annotations)
        self.name = name
        self.resolution = contents.resolution
        self.channels = contents.channels
        self.skipped: list[tuple[str, str]] = []
        self._files = files
        self._contents = contents
        self._framing = Framing(contents.resolution, contents.channels)
        self._slices = Slices(files)
        self._threads = Threads("decode")
        self._tables: dict[int, np.ndarray] = {}
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.digest = content_digest(
            self.pixel_digests(), (self.channels, self.resolution, self.resolution), self.labels
        )

    def __len__(self) -> int:
        return self._contents.images

    def images(self, indices: Indices) -> np.ndarray:
        return self.block_sums(indices, self.resolution)

    def block_sums(self, indices: Indices, resolution: int) -> np.ndarray:
        """Sums over blocks; see `pyramid.box_sums`."""
        wanted = np.asarray(indices, dtype=np.int64)
        size = len(self)
        if len(wanted) and not (-size <= wanted.min() and wanted.max() < size):
            raise IndexError(f"{self.name} has {size} images, not {wanted.min()} to {wanted.max()}")
        wanted %= max(size, 1)
        kind = sum_type(self.resolution // resolution)
        shape = (self.channels, resolution, resolution)
        kept = self._keep(resolution, shape, kind)
        if kept is None:
            out = np.empty((len(wanted), *shape), kind)
            places = range(len(wanted))

            def fill(place: int) -> None:
                out[place] = self.decode_at(int(wanted[place]), resolution)

            list(self._threads.pool().map(fill, places))
            return out
        array, known = kept

        def keep(index: int) -> None:
            array[index] = self.decode_at(index, resolution)
            known[index] = True  # after the image: another thread may be waiting to use it

        missing = np.unique(wanted[~known[wanted]]).tolist()
        if missing:
            list(self._threads.pool().map(keep, missing))
        return array[wanted]

    def _keep(
        self, resolution: int, shape: tuple[int, ...], kind: np.dtype
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The images at one resolution that are in memory, and which of them are there."""
        kept = self._kept.pop(resolution, None)
        if kept is None:
            if len(self) * int(np.prod(shape)) * kind.itemsize > loading.RAM_LIMIT:
                return None
            # Memory is taken by the system as it is filled.
            kept = np.empty((len(self), *shape), kind), np.zeros(len(self), dtype=bool)
        for other in list(self._kept)[:-1]:  # several threads may be here at once; at worst they decode twice
            self._kept.pop(other, None)
        self._kept[resolution] = kept
        return kept

    def decode_at(self, index: int, resolution: int) -> np.ndarray:
        """One image at one resolution, sums [C, r, r]."""
        try:
            if resolution in self._contents.lower:
                return self._lower(index, resolution)
            name = member_name(index)
            info = self._files.info(name)
            content = self._slices.read(name, 0, info.file_size)
            if zlib.crc32(content) != info.CRC:  # decoders of PNG files let damaged pixels pass
                raise BadImage("its CRC does not fit")
            image = decode(content, self._framing)
        except (BadImage, ValueError) as error:
            raise DataError(
                f"{self._files.path}: image {index} is damaged at {resolution}x{resolution} ({error}); "
                "copy, download or pack the zip again"
            ) from error
        return image if resolution == self.resolution else box_sums(image[None], resolution)[0]

    def _lower(self, index: int, resolution: int) -> np.ndarray:
        chunk, row = divmod(index, self._contents.chunk)
        starts = self._table(chunk)
        place = self._contents.lower.index(resolution) * (starts.shape[1]) + row
        flat = starts.reshape(-1)
        record = self._slices.read(
            lower_name(chunk), int(flat[place]), int(self._end(chunk, flat, place) - flat[place])
        )
        return decode_sums(record, self.channels, resolution, self.resolution // resolution)

    def _end(self, chunk: int, flat: np.ndarray, place: int) -> int:
        if place + 1 < len(flat):
            return int(flat[place + 1])
        return self._files.info(lower_name(chunk)).file_size

    def _table(self, chunk: int) -> np.ndarray:
        """Where each record of a chunk begins in its member, int64 [resolutions, images]."""
        table = self._tables.get(chunk)
        if table is None:
            images = min(self._contents.chunk, len(self) - chunk * self._contents.chunk)
            levels = len(self._contents.lower)
            head = 4 * levels * images
            index = self._slices.read(lower_name(chunk), 0, head)
            lengths = np.frombuffer(index, dtype="<u4").astype(np.int64)
            starts = head + np.cumsum(lengths) - lengths
            if starts[-1] + lengths[-1] != self._files.info(lower_name(chunk)).file_size:
                raise ValueError(f"{lower_name(chunk)} does not fit its own index")
            table = self._tables[chunk] = starts.reshape(levels, images)
        return table

    @property
    def lower(self) -> tuple[int, ...]:
        """The resolutions kept below its own."""
        return self._contents.lower

    def beside(self, name: str) -> bytes | None:
        """The content of a further file that was packed with the images, such as about.json, if any."""
        return self._files.beside(name)

    def pixel_digests(self) -> bytes:
        """The `pixel_digest` of each image, one after the other."""
        content = self._files.beside("digests.bin") or b""
        if len(content) != 32 * len(self):
            raise DataError(f"{self._files.path}: its digests.bin is damaged; pack it again")
        return content


def verify_packed(files: ZipFiles, progress: Progress | None = None) -> list[tuple[str, str]]:
    """Decode every image of a zip packed here, and hold everything in it against its digests.

    What is wrong, as (member, problem) pairs; none where the zip is what was packed. A lower resolution must
    be, to the bit, what the image itself gives. Raises DataError for a zip without digests.
    """
    contents = read_contents(files)
    if contents is None:
        raise DataError(f"{files.path}: carries no digests to verify (not packed here, or in format 1)")
    wrong: list[tuple[str, str]] = []
    slices = Slices(files)
    for name, expected in contents.sha256.items():
        if name not in files.others:
            wrong.append((name, "missing"))
            continue
        try:
            found = slices.sha256(name)
        except BadImage as error:
            wrong.append((name, str(error)))
            continue
        if found != expected:
            wrong.append((name, "its SHA-256 is not the one noted when it was packed"))
    if wrong:
        return wrong  # images are held against what these members say
    known = read_annotations(files, find_labels(files))
    dataset = PackedDataset(files, contents, known, name=files.path.stem)
    if dataset.digest != contents.digest:
        wrong.append(("packed.json", "its digest is not that of the images and labels"))
    digests = files.beside("digests.bin") or b""

    def look(index: int) -> str | None:
        try:
            image = decode(read(files, index), Framing(contents.resolution, contents.channels))
            if pixel_digest(image) != digests[32 * index : 32 * index + 32]:
                return "other pixels than were packed"
            for resolution in contents.lower:
                if not np.array_equal(
                    dataset.decode_at(index, resolution), box_sums(image[None], resolution)[0]
                ):
                    return f"at {resolution}x{resolution} it is not what its own pixels give"
        except (BadImage, DataError) as error:
            return str(error)
        return None

    for index, problem in enumerate(parallel(look, range(contents.images))):
        if problem is not None:
            wrong.append((files.names[index], problem))
        if progress is not None:
            progress(index + 1, contents.images)
    return wrong
