"""Packing a data set into one zip of square images that every StyleGAN tool reads.

The zip is stored, not deflated, for its parts are compressed already. It holds

    00000/img00000000.png, ...   the images, in folders of a thousand
    dataset.json                 {"labels": [[name, number], ...]} or {"labels": null}; "label_names"
    factors.npz                  what the images were drawn from, where known: one array of N values each
    attributes.npz               what is known of them besides, likewise; never trained on
    patients.npz                 the patient of each image
    lower/00000.bin, ...         the images at half their size, a quarter, ... down to 4x4
    digests.bin                  SHA-256 of each image's pixels
    packed.json                  the format, the shape, and a digest of each of the members above

and whatever else the maker of the set puts beside the images, such as a manifest or a licence.

Other tools take every member that has the ending of an image for one of the set's images. This is why the
lower resolutions are not PNG files: they lie in one member for each 256 images, which begins with the lengths
of its records (uint32, little-endian, [resolutions, images], resolutions falling) and goes on with the
records, those of a resolution together. Such a member is read in pieces: an image at 8x8 costs a read of some
hundred bytes and no PNG. Records are exact (see `pyramid`).

The zip's comment names the format. One of format 1, with no `lower` and what follows, is read like any zip.
The same images give the same bytes. The file is whole or absent.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dnnlib.files import DiskFull, atomic_write
from infostylegan.data.annotations import UNKNOWN, Annotations, Labels
from infostylegan.data.errors import DataError
from infostylegan.data.images import BadImage, Framing, decode, encode_png
from infostylegan.data.loading import (
    Dataset,
    Progress,
    annotations_of,
    check_bad,
    content_digest,
    parallel,
    pixel_digest,
    read,
)
from infostylegan.data.pyramid import encode_pyramid, lower_resolutions
from infostylegan.data.sources import Files, ZipFiles

FORMAT = 2
CHUNK = 256  # images whose lower resolutions share a member
_MARK = b"packed by infostylegan, format "


@dataclass
class Packed:
    """What went into a zip."""

    path: Path
    count: int
    resolution: int
    channels: int
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (file, reason)


@dataclass(frozen=True)
class Entry:
    """One image made ready for the zip."""

    png: bytes
    lower: tuple[bytes, ...]  # its records at `lower_resolutions`
    digest: bytes  # SHA-256 of its pixels
    channels: int
    resolution: int


def entry(pixels: np.ndarray, png: bytes | None = None) -> Entry:
    """Make an image uint8 [C, R, R] ready; most of the work of packing, to be done by many threads.

    `png`: the image as a PNG file, where that exists already.
    """
    return Entry(
        png if png is not None else encode_png(pixels), encode_pyramid(pixels), pixel_digest(pixels),
        pixels.shape[0], pixels.shape[-1],
    )  # fmt: skip


def member_name(index: int) -> str:
    """The name of an image in the zip; folders of a thousand."""
    return f"{index // 1000:05d}/img{index:08d}.png"


def lower_name(chunk: int) -> str:
    """The name of the member with the lower resolutions of images chunk*CHUNK and on."""
    return f"lower/{chunk:05d}.bin"


def packed_format(files: Files) -> int:
    """The format of a zip that was packed here, and so holds square images decoded once; 0 of any other."""
    comment = files.comment if isinstance(files, ZipFiles) else b""
    number = comment[len(_MARK) :]
    return int(number) if comment.startswith(_MARK) and number.isdigit() else 0


def pack_files(
    files: Files,
    dest: Path,
    framing: Framing,
    annotations: Annotations = UNKNOWN,
    *,
    max_bad: float = 0.05,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Packed:
    """Decode, frame and pack image files, together with what is known of them (one value a file).

    Raises DataError as soon as too many turn out to be bad.
    """

    def prepare(index: int) -> Entry | BadImage:
        try:
            return entry(decode(read(files, index), framing))
        except BadImage as error:
            return error

    total = len(files.names)
    packed = Packed(dest, 0, framing.resolution, framing.channels)
    kept: list[int] = []

    def entries() -> Iterable[Entry]:
        for index, made in enumerate(parallel(prepare, range(total))):
            if isinstance(made, BadImage):
                packed.skipped.append((files.names[index], str(made)))
                check_bad(files.path, packed.skipped, total, max_bad, all_seen=False)
            else:
                kept.append(index)
                yield made
            if progress is not None:
                progress(index + 1, total)

    write_zip(dest, entries(), lambda: annotations.take(np.array(kept, dtype=np.int64)), overwrite=overwrite)
    packed.count = len(kept)
    return packed


def pack_dataset(
    dataset: Dataset,
    dest: Path,
    *,
    extras: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Packed:
    """Pack an open data set as it is."""
    known = replace(annotations_of(dataset), extras=extras or {})
    pack_chunks(
        (
            dataset.images(range(start, min(start + 256, len(dataset))))
            for start in range(0, len(dataset), 256)
        ),
        dest,
        lambda: known,
        total=len(dataset),
        overwrite=overwrite,
        progress=progress,
    )
    return Packed(dest, len(dataset), dataset.resolution, dataset.channels)


def pack_chunks(
    chunks: Iterable[np.ndarray],
    dest: Path,
    annotations: Callable[[], Annotations],
    *,
    total: int,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Pack arrays of images, uint8 [n, C, R, R], as they arrive; the rest as for `write_zip`."""

    def entries() -> Iterable[Entry]:
        images = (image for chunk in chunks for image in chunk)
        for done, made in enumerate(parallel(entry, images), start=1):
            yield made
            if progress is not None:
                progress(done, total)

    write_zip(dest, entries(), annotations, overwrite=overwrite)


def label_document(labels: np.ndarray | None, names: tuple[str, ...] | None) -> dict[str, object]:
    """The content of dataset.json for images packed in order; labels int64 [N]."""
    if labels is None:
        return {"labels": None}
    document: dict[str, object] = {
        "labels": [[member_name(index), int(label)] for index, label in enumerate(labels)]
    }
    if names:
        document["label_names"] = list(names)
    return document


def read_table(files: Files, name: str) -> dict[str, np.ndarray] | None:
    """A table packed beside the images, such as "factors.npz": arrays [N]; None where there is none."""
    content = files.beside(name)
    if content is None:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            table = {column: archive[column] for column in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{files.path}: its {name} is damaged ({error}); pack it again") from error
    for column, values in table.items():
        if values.shape != (len(files.names),):
            raise DataError(
                f"{files.path}: its {name} has {column} of shape {values.shape} for {len(files.names)} "
                "images; pack it again"
            )
    return table


def read_annotations(files: Files, labels: Labels | None = None) -> Annotations:
    """What lies packed beside the images, and the labels that were found for them."""
    patients = read_table(files, "patients.npz")
    if patients is not None and list(patients) != ["patients"]:
        raise DataError(f"{files.path}: its patients.npz has no array of patients; pack it again")
    return replace(
        Annotations.labelled(labels),
        factors=read_table(files, "factors.npz"),
        attributes=read_table(files, "attributes.npz"),
        patients=patients["patients"] if patients else None,
    )


def check_dest(dest: Path, overwrite: bool) -> None:
    """Raise DataError unless a packed data set may be written there; before the work, not after it."""
    if dest.suffix.lower() != ".zip":
        raise DataError(f"{dest}: the packed data set is a zip; give a name that ends in .zip")
    if dest.exists() and not overwrite:
        raise DataError(f"{dest}: exists already; give another name, or --overwrite")


def write_zip(
    dest: Path,
    entries: Iterable[Entry],
    annotations: Callable[[], Annotations],
    *,
    overwrite: bool = False,
) -> None:
    """Write the zip; the `annotations`, one value an entry, are asked for after the last entry."""
    check_dest(dest, overwrite)
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        # The outer with statement removes the unfinished file, whatever happens.
        with atomic_write(dest) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            _Writer(archive).run(entries, annotations)
    except DiskFull as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(
            f"{dest}: cannot be written ({error.strerror or error}); choose another place"
        ) from error


class _Writer:
    """The members of one zip, in order."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._shape: tuple[int, int] | None = None  # channels, resolution
        self._digests = bytearray()
        self._members: dict[str, str] = {}
        self._waiting: list[tuple[bytes, ...]] = []  # records of the images since the last chunk
        self._chunks = 0

    def run(self, entries: Iterable[Entry], annotations: Callable[[], Annotations]) -> None:
        count = 0
        for made in entries:
            shape = made.channels, made.resolution
            if self._shape not in (None, shape):
                raise ValueError(f"image {count} is {shape}, the first {self._shape} (channels, resolution)")
            self._shape = shape
            self._archive.writestr(_member(member_name(count)), made.png)
            self._digests += made.digest
            self._waiting.append(made.lower)
            if len(self._waiting) == CHUNK:
                self._lower()
            count += 1
        if self._waiting:
            self._lower()
        if self._shape is None:
            raise ValueError("a data set without images cannot be packed")
        known = annotations()
        known.check(count)
        channels, resolution = self._shape
        for name, table in (
            ("factors.npz", known.factors),
            ("attributes.npz", known.attributes),
            ("patients.npz", None if known.patients is None else {"patients": known.patients}),
        ):
            if table:
                self._add(name, _npz(table))
        for name, content in known.extras.items():
            self._add(name, content)
        self._add("digests.bin", bytes(self._digests))
        document = {
            "format": FORMAT,
            "images": count,
            "channels": channels,
            "resolution": resolution,
            "lower": list(lower_resolutions(resolution)),
            "chunk": CHUNK,
            "digest": content_digest(bytes(self._digests), (channels, resolution, resolution), known.labels),
        }
        labels = json.dumps(label_document(known.labels, known.label_names))
        self._add("dataset.json", labels.encode())
        self._archive.writestr(_member("packed.json"), json.dumps({**document, "sha256": self._members}))
        self._archive.comment = _MARK + str(FORMAT).encode()

    def _lower(self) -> None:
        lengths = np.array([[len(record) for record in records] for records in self._waiting], dtype="<u4").T
        records = b"".join(record for level in zip(*self._waiting) for record in level)
        if lengths.size:
            self._add(lower_name(self._chunks), np.ascontiguousarray(lengths).tobytes() + records)
        self._chunks += 1
        self._waiting = []

    def _add(self, name: str, content: bytes) -> None:
        self._archive.writestr(_member(name), content)
        self._members[name] = hashlib.sha256(content).hexdigest()


def _npz(table: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    # Names of people's columns may be anything; np.savez takes them as keywords, and cannot.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in table.items():
            if values.dtype.kind == "O":
                values = values.astype(str)
            column = io.BytesIO()
            np.lib.format.write_array(column, np.ascontiguousarray(values), allow_pickle=False)
            archive.writestr(_member(f"{name}.npy"), column.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # no clock: same images, same bytes
    info.external_attr = 0o644 << 16
    return info
