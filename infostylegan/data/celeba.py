"""CelebA's aligned faces, as people have them: a zip, a folder, torchvision's layout, or the official one.

Read are 178x218 images called 000001.jpg, ... (or .png), in a folder or zip, at whatever depth, and, in the
same place or around it (also in folders Anno and Eval), as .txt or .csv:

    list_attr_celeba        40 attributes of each image, 1 or -1
    list_eval_partition     0, 1, 2: train, valid, test
    identity_CelebA         the person; optional

The square is rows 57:185 and columns 25:153, the 128x128 crop of ProGAN and StyleGAN.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from infostylegan.data.annotations import Annotations
from infostylegan.data.errors import DataError
from infostylegan.data.images import BadImage, Framing, decode, read_header
from infostylegan.data.loading import Progress, read
from infostylegan.data.packing import Packed, entry, member_name
from infostylegan.data.preparing import Made, Record, about, prepare_zip, write_manifest
from infostylegan.data.sources import Files, FolderFiles, ZipFiles

CROP = (25, 57, 153, 185)  # left, top, right, bottom
SIZE = (178, 218)
COUNT = 202_599
PARTITIONS = ("train", "valid", "test")
COLUMNS = ("name", "source", "person", "partition", "skipped")

_IMAGE = re.compile(r"\d{6}")
_ARCHIVE = "img_align_celeba.zip"
_TABLES = ("list_attr_celeba", "list_eval_partition", "identity_celeba")

Row = tuple[str, list[str]]  # the image's number, its values


@dataclass
class Faces:
    """The images found, in the order of their numbers, and what is known of them."""

    files: Files
    indices: list[int]
    numbers: list[str]
    attributes: dict[str, np.ndarray] | None = None  # uint8 [N], 0 or 1
    partition: np.ndarray | None = None  # int64 [N]
    persons: np.ndarray | None = None  # str [N]
    foreign: int = 0

    def take(self, indices: np.ndarray) -> Faces:
        known = Annotations(attributes=self.attributes, labels=self.partition, patients=self.persons)
        known = known.take(indices)
        return Faces(
            self.files, [self.indices[i] for i in indices], [self.numbers[i] for i in indices],
            known.attributes, known.labels, known.patients, self.foreign,
        )  # fmt: skip


@dataclass
class Result:
    """What was packed, and what came along."""

    packed: Packed
    manifest: Path
    attributes: int
    persons: bool
    partitions: dict[str, int] = field(default_factory=dict)
    foreign: int = 0


def pack_celeba(
    source: Path,
    dest: Path,
    resolution: int = 128,
    *,
    split: str = "all",
    attributes: bool = True,
    max_bad: float = 0.05,
    overwrite: bool = False,
    progress: Progress | None = None,
    writing: Progress | None = None,
) -> Result:
    """Crop and pack the faces in `source` into the zip `dest`, with their attributes and official partition.

    split       "all", "train", "valid" or "test"
    attributes  False: do without attributes and partition

    Raises DataError. See `preparing` on going on after a kill.
    """
    if resolution > 128:
        raise DataError(f"resolution {resolution}: CelebA's crop is 128x128, and images are never enlarged; "
                        "use 128 or less")  # fmt: skip
    framing = Framing(resolution, 3, "crop", CROP)
    faces = find_faces(source, attributes=attributes)
    if split != "all":
        if split not in PARTITIONS:
            raise DataError(f"split {split!r} is unknown; use all, {', '.join(PARTITIONS)}")
        if faces.partition is None:
            raise DataError(f"{source}: --split {split} needs list_eval_partition; leave out --no-attributes")
        chosen = np.flatnonzero(faces.partition == PARTITIONS.index(split))
        if len(chosen) == 0:
            raise DataError(f"{source}: none of its {len(faces.numbers)} images is of the partition {split}")
        faces = faces.take(chosen)
    names = [faces.files.names[index] for index in faces.indices]

    def make(index: int) -> Made:
        try:
            content = read(faces.files, faces.indices[index])
            header = read_header(io.BytesIO(content))
            if (header.width, header.height) != SIZE:
                raise BadImage(f"{header.width}x{header.height}, not the 178x218 of the aligned images")
            return Made(entry(decode(content, framing)), {})
        except BadImage as error:
            return Made(None, {"skipped": str(error)})

    manifest = b""

    def annotate(records: list[Record]) -> Annotations:
        nonlocal manifest
        manifest = _manifest(faces, names, records)
        kept = faces.take(
            np.array([i for i, r in enumerate(records) if not r.get("skipped")], dtype=np.int64)
        )
        options: dict[str, object] = {"resolution": resolution, "crop": CROP, "split": split}
        return Annotations(
            attributes=kept.attributes,
            patients=kept.persons,
            extras={"manifest.csv": manifest, "about.json": about("celeba", options)},
        )

    stamps = faces.files.stamps()
    lines = json.dumps([stamps[index] for index in faces.indices])
    known = {name: values.tolist() for name, values in (faces.attributes or {}).items()}
    told = json.dumps([known, *(None if v is None else v.tolist() for v in (faces.partition, faces.persons))])
    records = prepare_zip(
        dest,
        names,
        make,
        annotate,
        plan={
            "set": "celeba", "resolution": resolution, "images": hashlib.sha256(lines.encode()).hexdigest(),
            "attributes": hashlib.sha256(told.encode()).hexdigest(),
        },
        where=source,
        max_bad=max_bad,
        overwrite=overwrite,
        progress=progress,
        writing=writing,
    )  # fmt: skip
    beside = dest.with_suffix(".manifest.csv")
    write_manifest(beside, manifest)
    skipped = [
        (name, str(record["skipped"])) for name, record in zip(names, records) if record.get("skipped")
    ]
    result = Result(
        Packed(dest, len(names) - len(skipped), resolution, 3, skipped), beside,
        len(faces.attributes or ()), faces.persons is not None, foreign=faces.foreign,
    )  # fmt: skip
    if faces.partition is not None:
        counts = np.bincount(faces.partition, minlength=3)
        result.partitions = {name: int(count) for name, count in zip(PARTITIONS, counts)}
    return result


def _manifest(faces: Faces, names: list[str], records: list[Record]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    packed = 0
    for index, record in enumerate(records):
        reason = record.get("skipped", "")
        writer.writerow((
            "" if reason else member_name(packed),
            names[index],
            "" if faces.persons is None else faces.persons[index],
            "" if faces.partition is None else PARTITIONS[int(faces.partition[index])],
            reason,
        ))  # fmt: skip
        packed += not reason
    return out.getvalue().encode()


# ---- finding -------------------------------------------------------------------------------------------


def find_faces(source: Path, *, attributes: bool = True) -> Faces:
    """The images in `source` by number, and, if `attributes`, what is known of them. Raises DataError."""
    files, tables = _look(source)
    found: dict[str, int] = {}
    foreign = 0
    for index, name in enumerate(files.names):
        stem = PurePosixPath(name).stem
        if not _IMAGE.fullmatch(stem):
            foreign += 1
        elif stem in found:
            raise DataError(
                f"{source}: image {stem} is there twice, as {files.names[found[stem]]} and {name}; "
                "give the folder that holds the ones to use"
            )
        else:
            found[stem] = index
    if not found:
        raise DataError(f"{source}: none of its {foreign} images is called like 000001.jpg; give "
                        f"{_ARCHIVE}, or the folder unpacked from it")  # fmt: skip
    numbers = sorted(found)
    faces = Faces(files, [found[number] for number in numbers], numbers, foreign=foreign)
    if not attributes:
        return faces
    for needed in _TABLES[:2]:
        if needed not in tables:
            raise DataError(f"{source}: there is no {needed}.txt in it or beside it; put it there, or go on "
                            "without it: --no-attributes")  # fmt: skip
    where, content = tables["list_attr_celeba"]
    columns, rows = _read(where, content)
    if columns is None:
        raise DataError(f"{where}: the line with the names of the attributes is missing; download it again")
    values = _matched(where, rows, numbers, len(columns), _sign)
    faces.attributes = {name: values[:, i].astype(np.uint8) for i, name in enumerate(columns)}
    where, content = tables["list_eval_partition"]
    faces.partition = _matched(where, _read(where, content)[1], numbers, 1, _partition)[:, 0]
    if "identity_celeba" in tables:
        where, content = tables["identity_celeba"]
        faces.persons = _matched(where, _read(where, content)[1], numbers, 1, int)[:, 0].astype(str)
    return faces


def _look(source: Path) -> tuple[Files, dict[str, tuple[str, bytes]]]:
    """The folder or zip with the images, and the tables: stem -> (where, content)."""
    tables: dict[str, tuple[str, bytes]] = {}

    def take(paths: Iterable[Path]) -> None:
        for path in paths:
            if path.suffix.lower() in (".txt", ".csv") and path.stem.lower() in _TABLES and path.is_file():
                tables.setdefault(path.stem.lower(), (str(path), path.read_bytes()))

    files: Files
    if source.is_dir():
        folder = FolderFiles(source, needed=False)
        take(source / name for name in folder.others)
        files = folder
        if not folder.names:
            archives = [
                source / name for name in folder.others if PurePosixPath(name).name.lower() == _ARCHIVE
            ]
            if not archives:
                raise DataError(f"{source}: holds neither images nor {_ARCHIVE}; give the folder that does")
            files = ZipFiles(archives[0])
    else:
        if not source.exists():
            raise DataError(f"{source}: no such folder or archive")
        archive = ZipFiles(source)
        for name in archive.others:
            path = PurePosixPath(name)
            if path.suffix.lower() in (".txt", ".csv") and path.stem.lower() in _TABLES:
                tables.setdefault(path.stem.lower(), (f"{source}/{name}", archive.beside(path.name) or b""))
        files = archive
    place = source.absolute().parent
    for folder_ in (place, place.parent):
        if folder_.is_dir():
            inner = [folder_, *(path for path in folder_.iterdir() if path.name.lower() in ("anno", "eval"))]
            take(path for place_ in inner if place_.is_dir() for path in sorted(place_.iterdir()))
    return files, tables


def _read(where: str, content: bytes) -> tuple[list[str] | None, list[Row]]:
    """The names of the columns, where there are any, and the rows of a .txt of words or of a .csv."""
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not a text ({error}); download it again") from error
    split: Callable[[str], list[str]] = str.split
    if where.lower().endswith(".csv"):
        split = lambda line: [cell.strip() for cell in line.split(",")]  # noqa: E731
    table = [split(line) for line in lines if line.strip()]
    announced = int(table.pop(0)[0]) if table and len(table[0]) == 1 and table[0][0].isdigit() else None
    columns = None
    if table and not _IMAGE.fullmatch(PurePosixPath(table[0][0]).stem):
        columns = table.pop(0)
        if columns[0].lower() in ("image_id", "image"):
            columns = columns[1:]
    if announced is not None and announced != len(table):
        raise DataError(f"{where}: announces {announced} images and holds {len(table)}; download it again")
    return columns, [(PurePosixPath(row[0]).stem, row[1:]) for row in table]


def _matched(
    where: str, rows: list[Row], numbers: list[str], width: int, value: Callable[[str], int]
) -> np.ndarray:
    """The values of each image, int64 [N, width]."""
    found: Mapping[str, list[str]] = dict(rows)
    missing = [number for number in numbers if number not in found]
    if missing:
        raise DataError(f"{where}: no line for {len(missing)} of the {len(numbers)} images, e.g. "
                        f"{', '.join(missing[:3])}; download it again")  # fmt: skip
    out = np.empty((len(numbers), width), dtype=np.int64)
    for index, number in enumerate(numbers):
        cells = found[number]
        try:
            if len(cells) != width:
                raise ValueError(f"{len(cells)} values where there are {width} columns")
            out[index] = [value(cell) for cell in cells]
        except ValueError as error:
            raise DataError(f"{where}: the line of {number} has {error}; download it again") from error
    return out


def _sign(text: str) -> int:
    if text not in ("1", "-1", "0"):
        raise ValueError(f"the value {text!r}, which is neither 1 nor -1")
    return int(text == "1")


def _partition(text: str) -> int:
    if text not in ("0", "1", "2"):
        raise ValueError(f"the partition {text!r}, which is none of 0, 1 and 2")
    return int(text)
