"""What lies on disk: MNIST's idx files, folders of images, zips of images, and the labels beside them.

Nothing is ever unpacked, so a name in an archive cannot lead anywhere. What is no plain file (a pipe, a link
in a zip, a member that declares absurd sizes) keeps its place in the list, and reading it raises BadImage.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from infostylegan.data.annotations import Labels
from infostylegan.data.errors import DataError
from infostylegan.data.images import EXTENSIONS, BadImage
from infostylegan.data.pieces import Pieces, find_pieces, is_piece, whole_name

MAX_FILE = 1 << 28  # bytes; no image file is larger
FILE_COLUMNS = ("image", "file", "filename", "name", "path", "id_code", "image_id")
LABEL_COLUMNS = ("label", "level", "grade", "class", "diagnosis")
DIGITS = tuple(str(digit) for digit in range(10))
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


# ---- image files ---------------------------------------------------------------------------------------


class Files(Protocol):
    """Image files of one origin, in an order that depends on their names alone."""

    path: Path
    names: list[str]  # relative to `path`, with forward slashes

    def open(self, index: int) -> IO[bytes]: ...

    def read(self, index: int) -> bytes: ...

    def stamps(self) -> list[tuple[str, int, int]]:
        """(name, bytes, something that changes when the content does) of each file, without reading it."""
        ...

    def beside(self, name: str) -> bytes | None:
        """The content of a file such as dataset.json that lies at the root of the images, if any."""
        ...


class FolderFiles:
    """The images in a folder and its sub-folders; hidden files and folders are passed over.

    Links are followed, but never in circles. `others` are the other files.
    Raises DataError where there is no image, unless `needed` is False.
    """

    def __init__(self, path: Path, *, needed: bool = True) -> None:
        self.path = path
        self.names, self.others = self._walk()
        if needed and not self.names:
            raise DataError(_no_images(path, self.others))

    def _walk(self) -> tuple[list[str], list[str]]:
        images: list[str] = []
        others: list[str] = []
        seen: set[str] = set()

        def refuse(error: OSError) -> None:
            raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")

        for folder, subfolders, files in os.walk(self.path, followlinks=True, onerror=refuse):
            real = os.path.realpath(folder)
            if real in seen:  # a link back to where we have been
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = sorted(name for name in subfolders if not _hidden(name))
            for file in files:
                if not _hidden(file):
                    name = Path(folder, file).relative_to(self.path).as_posix()
                    (images if _is_image(name) else others).append(name)
        return sorted(images), sorted(others)

    def open(self, index: int) -> IO[bytes]:
        path = self.path / self.names[index]
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not a plain file")  # opening a pipe would wait for ever
        _check_size(status.st_size)
        return open(path, "rb")

    def read(self, index: int) -> bytes:
        with self.open(index) as file:
            return file.read()

    def stamps(self) -> list[tuple[str, int, int]]:
        return [(name, *self._stamp(name)) for name in self.names]

    def _stamp(self, name: str) -> tuple[int, int]:
        try:
            status = (self.path / name).stat()
        except OSError:  # a link to nowhere
            return 0, 0
        return status.st_size, status.st_mtime_ns

    def beside(self, name: str) -> bytes | None:
        file = self.path / name
        return file.read_bytes() if file.is_file() else None


class ZipFiles:
    """The images in a zip, stored or deflated. Each is checked against the zip's CRC as it is read.

    The zip may be cut into pieces, of which `path` is any (pieces.py). Hidden files are passed over.
    `others` are the other files. Raises DataError where the file is no zip, is locked by a password, holds
    two different images of one name, or, unless `needed` is False, holds no image.
    """

    def __init__(self, path: Path, *, needed: bool = True) -> None:
        pieces = find_pieces(path) if is_piece(path) else []
        self.path = whole_name(path) if pieces else path
        self.pieces = pieces
        try:
            self._opened = os.getpid(), self._open()
            _check_end(self._zip())
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(_no_zip(path, pieces, str(error))) from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip().infolist():
            name = info.filename.replace("\\", "/")  # as some archivers of Windows have it
            if info.is_dir() or name.endswith("/") or any(map(_hidden, name.split("/"))):
                continue
            other = self._infos.setdefault(name, info)
            if (other.CRC, other.file_size) != (info.CRC, info.file_size) and _is_image(name):
                raise DataError(f"{path}: holds two different images called {name}; make the zip again")
            self._infos[name] = info  # of files, the last counts, as on unpacking
        self.names = sorted(name for name in self._infos if _is_image(name))
        self.others = sorted(name for name in self._infos if not _is_image(name))
        if needed and not self.names:
            raise DataError(_no_images(path, self.others))
        locked = [name for name in self.names if self._infos[name].flag_bits & 1]
        if locked:
            raise DataError(
                f"{path}: {len(locked)} images are locked by a password, e.g. {locked[0]}; "
                "unpack it and give the folder"
            )

    def _open(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(Pieces(self.pieces) if self.pieces else self.path)

    def _zip(self) -> zipfile.ZipFile:
        # A handle inherited through a fork shares its place in the file, and maybe a lock in use.
        pid, archive = self._opened
        if pid != os.getpid():
            archive = self._open()
            self._opened = os.getpid(), archive
        return archive

    @property
    def comment(self) -> bytes:
        return self._zip().comment

    def info(self, name: str) -> zipfile.ZipInfo:
        """The entry of a member in the zip's directory. Raises KeyError where there is none."""
        return self._infos[name]

    def open(self, index: int) -> IO[bytes]:
        return self._zip().open(self._checked(index))

    def read(self, index: int) -> bytes:
        return self._zip().read(self._checked(index))  # safe from many threads at once

    def _checked(self, index: int) -> zipfile.ZipInfo:
        info = self._infos[self.names[index]]
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BadImage("a link inside the zip, not an image")
        if _leads_out(self.names[index]):
            raise BadImage("its name leads out of the archive")
        _check_size(info.file_size)
        return info

    def stamps(self) -> list[tuple[str, int, int]]:
        return [(name, self._infos[name].file_size, self._infos[name].CRC) for name in self.names]

    def beside(self, name: str) -> bytes | None:
        # Archivers often wrap everything in one folder: take the file nearest to the root.
        found = [member for member in self._infos if member == name or member.endswith("/" + name)]
        if not found:
            return None
        nearest = min(found, key=lambda member: (member.count("/"), member))
        try:
            _check_size(self._infos[nearest].file_size)
            return self._zip().read(self._infos[nearest])
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError, BadImage) as error:
            raise DataError(
                f"{self.path}: {nearest} in it is damaged ({error}); make the zip again"
            ) from error

    def sound(self) -> bool:
        """Whether every member has the CRC that the zip's directory gives; no image is decoded."""
        try:
            return self._zip().testzip() is None
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError):
            return False

    def close(self) -> None:
        self._zip().close()


def _check_end(archive: zipfile.ZipFile) -> None:
    """Raise BadZipFile where what was found is not the zip itself, but one that lies in it.

    Of a zip cut short, zipfile takes the last directory that it finds, which may be that of an npz inside.
    """
    file = archive.fp
    assert file is not None
    length = 22 + len(archive.comment)
    file.seek(-min(length, file.seek(0, os.SEEK_END)), os.SEEK_END)
    ends_here = file.read(4) == b"PK\x05\x06"
    if not ends_here and min((info.header_offset for info in archive.infolist()), default=1) > 0:
        raise zipfile.BadZipFile("its directory is missing")


def _hidden(name: str) -> bool:
    return (name.startswith(".") and name not in (".", "..")) or name == "__MACOSX"


def _leads_out(name: str) -> bool:
    """Whether unpacking a member of this name could write outside the folder unpacked into."""
    parts = name.split("/")
    return ".." in parts or parts[0] == "" or ":" in parts[0]


def _check_size(size: int) -> None:
    if size > MAX_FILE:
        raise BadImage(f"declares {size:,} bytes; more than {MAX_FILE:,} are refused")


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _no_images(path: Path, others: list[str]) -> str:
    if not others:
        return f"{path}: empty; give a folder or zip of PNG, JPEG or WebP images"
    zips = [name for name in others if name.lower().endswith(".zip") or is_piece(Path(name))]
    if zips:
        return f"{path}: no images in it, but archives such as {zips[0]}; give that archive, or unpack it"
    packed = [name for name in others if os.path.splitext(name)[1] in (".tar", ".gz", ".tgz", ".7z")]
    if packed:
        return f"{path}: no images in it, but archives such as {packed[0]}; unpack them first"
    return (
        f"{path}: no images in it, only {len(others)} other files such as {others[0]}; "
        "give a folder or zip of PNG, JPEG or WebP images"
    )


def _no_zip(path: Path, pieces: list[Path], problem: str) -> str:
    if pieces:
        return (
            f"{whole_name(path)}: its {len(pieces)} pieces, to {pieces[-1].name}, make no zip ({problem}); "
            "the last was cut short, or others follow it: download what is missing"
        )
    if path.suffix.lower() == ".zip":
        return f"{path}: a damaged or unfinished zip ({problem}); copy, download or make it again"
    if path.suffix.lower() in EXTENSIONS:
        return f"{path}: a single image; give the folder that holds the images"
    return f"{path}: not a zip ({problem}); give a zip of images, or unpack it and give the folder"


# ---- labels --------------------------------------------------------------------------------------------


def find_labels(files: Files, table: Path | None = None) -> Labels | None:
    """The label of each of `files`: from the CSV `table`, else from dataset.json or labels.csv beside them.

    None where there are none. Raises DataError where they cannot be understood or leave an image out.
    """
    if table is not None:
        try:
            return _match(files, read_label_csv(table.read_bytes(), str(table)), str(table))
        except OSError as error:
            raise DataError(f"{table}: the labels cannot be read ({error.strerror})") from error
    content = files.beside("dataset.json")
    if content is not None:
        where = f"{files.path}: its dataset.json"
        pairs, names = read_label_json(content, where)
        if pairs is None:
            return None
        labels, _ = _match(files, pairs, where)
        return labels, names if names and int(labels.max()) < len(names) else None
    content = files.beside("labels.csv")
    if content is not None:
        where = f"{files.path}: its labels.csv"
        return _match(files, read_label_csv(content, where), where)
    return None


def read_label_json(
    content: bytes, where: str
) -> tuple[list[tuple[str, str]] | None, tuple[str, ...] | None]:
    """StyleGAN's dataset.json: the (name, label) pairs, or None where it says null; names of the classes."""
    try:
        document = json.loads(content)
        labels = document.get("labels")
        pairs = None if labels is None else [(str(name), label) for name, label in labels]
        names = document.get("label_names")
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f'{where} is not {{"labels": [[name, number], ...]}} ({error}); mend it, or set labels aside '
            "(--no-labels)"
        ) from error
    if pairs is None:
        return None, None
    for name, label in pairs:
        if type(label) is not int or label < 0:
            raise DataError(
                f"{where} labels {name} with {json.dumps(label)[:40]}; a label must be a class number "
                "0, 1, 2, ...; change it, or set labels aside (--no-labels)"
            )
    return [(name, str(label)) for name, label in pairs], tuple(map(str, names)) if names else None


def read_csv(content: bytes, where: str) -> tuple[list[str], list[list[str]]]:
    """The columns (lower case) and rows of a table with a header, set apart by comma, semicolon or tab.

    Rows may be shorter than the header. Raises DataError.
    """
    try:
        text = content.decode("utf-8-sig")
        header = text.split("\n", 1)[0]
        reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=header.count))
        rows = [[cell.strip() for cell in row] for row in reader if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where} is not a CSV table in UTF-8 ({error}); save it as one") from error
    if len(rows) < 2:
        raise DataError(f"{where} holds no rows; it needs a header such as image,level and a row per image")
    return [cell.lower() for cell in rows[0]], rows[1:]


def read_label_csv(content: bytes, where: str) -> list[tuple[str, str]]:
    """The (file, label) pairs of a table. Raises DataError."""
    columns, rows = read_csv(content, where)
    file_column = find_column(columns, FILE_COLUMNS, "file", where)
    label_column = find_column(columns, LABEL_COLUMNS, "label", where)
    pairs = []
    for number, row in enumerate(rows, start=2):
        if len(row) <= max(file_column, label_column):
            raise DataError(
                f"{where}: row {number} has {len(row)} columns, its header {len(columns)}; mend the row"
            )
        pairs.append((row[file_column], row[label_column]))
    return pairs


def find_column(columns: list[str], wanted: tuple[str, ...], what: str, where: str) -> int:
    """Which column is called one of `wanted`, or is the only one to end in "_" and one of them."""
    for name in wanted:
        if name in columns:
            return columns.index(name)
    alike = [i for i, column in enumerate(columns) if any(column.endswith("_" + name) for name in wanted)]
    if len(alike) == 1:
        return alike[0]
    raise DataError(
        f"{where} has the columns {', '.join(columns)}; name the column of each image's {what} {wanted[0]!r}"
    )


def _match(files: Files, pairs: Iterable[tuple[str, str]], where: str) -> Labels:
    """Give each file its label, by its name with or without folders and extension."""
    exact: dict[str, str] = {}
    short: dict[str, str | None] = {}  # by last part of the name; None: two images, two labels
    for name, label in pairs:
        name = name.replace("\\", "/").removeprefix("./")
        if exact.setdefault(_bare(name), label) != label:
            raise DataError(f"{where} gives {name} two labels, {exact[_bare(name)]} and {label}; keep one")
        last = _bare(name).rpartition("/")[2]
        short[last] = label if short.get(last, label) == label else None
    root = files.path.resolve().name
    found: list[str] = []
    missing: list[str] = []
    for name in files.names:
        bare = _bare(name)
        label_ = exact.get(bare) or exact.get(f"{root}/{bare}") or short.get(bare.rpartition("/")[2])
        if label_:
            found.append(label_)
        else:
            missing.append(name)
    if missing:
        raise DataError(
            f"{where} has no label for {len(missing)} of the {len(files.names)} images, e.g. "
            f"{', '.join(missing[:3])} (its own names look like {next(iter(exact), 'nothing')}); "
            "add them, or set labels aside (--no-labels)"
        )
    return _numbers(found, where)


def _bare(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in EXTENSIONS else name


def _numbers(values: list[str], where: str) -> Labels:
    """Class numbers as they stand; classes given by name are numbered in the order of their names."""
    try:
        floats = np.array([float(value) for value in values])
    except ValueError:
        names = sorted(set(values))
        number = {name: i for i, name in enumerate(names)}
        return np.array([number[value] for value in values], dtype=np.int64), tuple(names)
    labels = floats.astype(np.int64)
    wrong = np.flatnonzero((labels != floats) | (labels < 0))
    if len(wrong):
        raise DataError(
            f"{where} has the label {values[wrong[0]]}; labels must be class numbers 0, 1, 2, ..., or names"
        )
    return labels, None


# ---- MNIST ---------------------------------------------------------------------------------------------


def is_mnist_folder(folder: Path) -> bool:
    return any(find_idx(folder, part, "images-idx3") for part in ("train", "t10k"))


def find_idx(folder: Path, part: str, kind: str) -> Path | None:
    """The file of `kind` ("images-idx3" | "labels-idx1") of a `part` ("train" | "t10k"), if there."""
    stem, _, rank = kind.partition("-")
    for name in (f"{part}-{stem}-{rank}-ubyte", f"{part}-{stem}.{rank}-ubyte"):  # some unpackers leave a dot
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    return None


def read_idx(path: Path) -> np.ndarray:
    """An idx file of bytes, gzipped or not, as a uint8 array of its own shape.

    Raises DataError where the file is damaged or is no such file.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); download the file again") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or not 1 <= content[3] <= 3:
        start = content[:4].hex() or "nothing"
        raise DataError(f"{path}: not an idx file of bytes (starts with {start}); download the file again")
    header = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:header].ljust(header - 4, b"\xff"), dtype=">u4").astype(np.int64)
    expected = header + int(np.prod(shape))
    if len(content) != expected:
        raise DataError(f"{path}: {len(content)} bytes where its header announces {expected}; "
                        "download the file again")  # fmt: skip
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def read_mnist(
    folder: Path, split: str = "train", *, labels: bool = True
) -> tuple[np.ndarray, Labels | None]:
    """MNIST, or any set in its layout, such as Fashion-MNIST: images uint8 [N, 1, 32, 32] and their labels.

    The 28x28 images are padded by two black pixels on each side, so that their size is a power of two.
    """
    part = {"train": "train", "test": "t10k"}.get(split)
    if part is None:
        raise DataError(f"{folder}: there is no split {split!r}; use 'train' or 'test'")
    image_path = find_idx(folder, part, "images-idx3")
    if image_path is None:
        raise DataError(f"{folder}: {part}-images-idx3-ubyte (or .gz) is missing; put it there")
    images = read_idx(image_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or len(images) == 0:
        raise DataError(f"{image_path}: holds an array of shape {images.shape}, not 28x28 images; "
                        "download the file again")  # fmt: skip
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, None]
    label_path = find_idx(folder, part, "labels-idx1") if labels else None
    if label_path is None:
        return padded, None
    values = read_idx(label_path)
    if values.shape != images.shape[:1]:
        raise DataError(
            f"{label_path}: {values.size} labels for the {len(images)} images of {image_path.name}; "
            "download the pair again"
        )
    names = FASHION if "fashion" in str(folder.resolve()).lower() else DIGITS
    return padded, (values.astype(np.int64), names if int(values.max()) < len(names) else None)
