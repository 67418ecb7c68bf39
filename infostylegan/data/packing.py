"""Packing a data set into one zip of square images, as StyleGAN does.

The zip is stored, not deflated, for PNG is compressed already: `00000/img00000000.png`, ..., and a
`dataset.json` with the labels, `{"labels": [[name, number], ...]}` or `{"labels": null}`. Generative
factors, where known, lie beside it in `factors.npz`, one array of N values each, in the order of the names.
The zip's comment says that every image in it has been decoded once, so that opening it is quick.
The same images give the same bytes. The file is whole or absent.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dnnlib.files import DiskFull, atomic_write
from infostylegan.data.errors import DataError
from infostylegan.data.images import BadImage, Framing, decode, encode_png
from infostylegan.data.loading import Dataset, Progress, check_bad, parallel, read
from infostylegan.data.sources import Files, Labels, ZipFiles

_MARK = b"packed by infostylegan, format 1"


@dataclass
class Packed:
    """What went into a zip."""

    path: Path
    count: int
    resolution: int
    channels: int
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (file, reason)


def member_name(index: int) -> str:
    """The name of an image in the zip; folders of a thousand."""
    return f"{index // 1000:05d}/img{index:08d}.png"


def is_packed(files: ZipFiles) -> bool:
    """Whether the zip was written here, and so holds square images that have been decoded once."""
    return files.comment.startswith(_MARK)


def pack_files(
    files: Files,
    dest: Path,
    framing: Framing,
    *,
    labels: Labels | None = None,
    max_bad: float = 0.05,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Packed:
    """Decode, frame and pack image files. Raises DataError as soon as too many turn out to be bad."""

    def prepare(index: int) -> bytes | BadImage:
        try:
            return encode_png(decode(read(files, index), framing))
        except BadImage as error:
            return error

    total = len(files.names)
    packed = Packed(dest, 0, framing.resolution, framing.channels)
    kept: list[int] = []

    def pngs() -> Iterable[bytes]:
        for index, png in enumerate(parallel(prepare, range(total))):
            if isinstance(png, BadImage):
                packed.skipped.append((files.names[index], str(png)))
                check_bad(files.path, packed.skipped, total, max_bad, all_seen=False)
            else:
                kept.append(index)
                yield png
            if progress is not None:
                progress(index + 1, total)

    def document() -> dict[str, object]:
        return label_document(None if labels is None else labels[0][kept], labels[1] if labels else None)

    write_zip(dest, pngs(), document, overwrite=overwrite)
    packed.count = len(kept)
    return packed


def pack_dataset(
    dataset: Dataset, dest: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> Packed:
    """Pack an open data set as it is."""
    pack_chunks(
        (
            dataset.images(range(start, min(start + 256, len(dataset))))
            for start in range(0, len(dataset), 256)
        ),
        dest,
        total=len(dataset),
        document=lambda: label_document(dataset.labels, dataset.label_names),
        factors=dataset.factors,
        overwrite=overwrite,
        progress=progress,
    )
    return Packed(dest, len(dataset), dataset.resolution, dataset.channels)


def pack_chunks(
    chunks: Iterable[np.ndarray],
    dest: Path,
    *,
    total: int,
    document: Callable[[], Mapping[str, object]],
    factors: Mapping[str, np.ndarray] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Pack arrays of images, uint8 [n, C, R, R], as they arrive; the rest as for `write_zip`."""

    def pngs() -> Iterable[bytes]:
        images = (image for chunk in chunks for image in chunk)
        for done, png in enumerate(parallel(encode_png, images), start=1):
            yield png
            if progress is not None:
                progress(done, total)

    write_zip(dest, pngs(), document, factors, overwrite=overwrite)


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


def read_factors(files: Files) -> dict[str, np.ndarray] | None:
    """The generative factors packed beside the images, each [N]; None where there are none."""
    content = files.beside("factors.npz")
    if content is None:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            factors = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{files.path}: its factors.npz is damaged ({error}); pack it again") from error
    for name, values in factors.items():
        if values.shape != (len(files.names),):
            raise DataError(
                f"{files.path}: its factors.npz has {name} of shape {values.shape} for {len(files.names)} "
                "images; pack it again"
            )
    return factors


def write_zip(
    dest: Path,
    pngs: Iterable[bytes],
    document: Callable[[], Mapping[str, object]],
    factors: Mapping[str, np.ndarray] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write the zip; `document` (dataset.json) and `factors` are asked for after the last image."""
    if dest.suffix.lower() != ".zip":
        raise DataError(f"{dest}: the packed data set is a zip; give a name that ends in .zip")
    if dest.exists() and not overwrite:
        raise DataError(f"{dest}: exists already; give another name, or --overwrite")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        # The outer with statement removes the unfinished file, whatever happens.
        with atomic_write(dest) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for index, png in enumerate(pngs):
                archive.writestr(_member(member_name(index)), png)
            if factors:
                buffer = io.BytesIO()
                np.savez(buffer, **dict(factors))  # type: ignore[arg-type]
                archive.writestr(_member("factors.npz"), buffer.getvalue())
            archive.writestr(_member("dataset.json"), json.dumps(document()))
            archive.comment = _MARK
    except DiskFull as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(
            f"{dest}: cannot be written ({error.strerror or error}); choose another place"
        ) from error


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # no clock: same images, same bytes
    info.external_attr = 0o644 << 16
    return info
