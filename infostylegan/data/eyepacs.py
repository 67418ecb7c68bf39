"""EyePACS, the photographs of the Kaggle competition Diabetic Retinopathy Detection, as people have them.

What is read, from a folder, an archive, or a folder of archives:

    test.zip.001 ... 007, train.zip.001 ... 005    Kaggle's archives in pieces, never joined nor unpacked
    test.zip, train.zip, or any other zip of it    whole archives
    test/10_left.jpeg, "resized train 15"/...      unpacked folders, and the resized sets that go round
    trainLabels.csv, retinopathy_solution.csv      grades, also as .csv.zip; and trainLabels_cropped.csv,
                                                   trainLabels15.csv, testLabels15.csv

A photograph is known by its name, PATIENT_left or PATIENT_right, whatever folder it lies in. The order of the
set is that of split, patient and eye: the same photographs give the same set from every layout.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from infostylegan.data.annotations import Annotations
from infostylegan.data.errors import DataError
from infostylegan.data.images import BadImage
from infostylegan.data.loading import Progress, read
from infostylegan.data.packing import Packed, entry, member_name
from infostylegan.data.pieces import is_piece, whole_name
from infostylegan.data.preparing import Made, Record, about, prepare_zip, write_manifest
from infostylegan.data.retina import Recipe, prepare
from infostylegan.data.sources import (
    FILE_COLUMNS,
    LABEL_COLUMNS,
    Files,
    FolderFiles,
    ZipFiles,
    find_column,
    read_csv,
)

SPLITS = {"train": 35_126, "test": 53_576}  # photographs in each; the paper trained on the second
GRADES = ("none", "mild", "moderate", "severe", "proliferative")  # diabetic retinopathy, 0 to 4
KNOWN_BAD = frozenset(("492_right", "25313_right", "27096_right"))
QUALITIES = ("good", "usable", "reject")  # EyeQ: 0, 1, 2
COLUMNS = (
    "name", "source", "patient", "eye", "split", "grade", "usage", "quality",
    "crop", "found", "optic_disc", "mirrored", "skipped",
)  # fmt: skip

_NAME = re.compile(r"(\d+)_(left|right)")
_TABLE = re.compile(r"(trainlabels\w*|testlabels\w*|retinopathy_solution)\.csv(\.zip)?")
_NOT_IMAGES = re.compile(r"sample.*\.zip.*|.*\.csv\.zip")


@dataclass
class Photograph:
    """One photograph of the source, and why it is left out, if it is."""

    files: Files
    index: int
    source: str
    patient: str
    eye: str
    split: str
    grade: int | None = None
    usage: str = ""
    quality: str = ""
    skipped: str = ""

    @property
    def stem(self) -> str:
        return f"{self.patient}_{self.eye}"


@dataclass
class Choice:
    """Which photographs to take.

    split          "test", "train" or "all"
    tables         files of grades to read besides those found
    quality        EyeQ's files; photographs rated worse than `accept`, or not rated, are left out
    keep_patients  a file of patients, one a line; all others are left out
    labels         False: do without grades
    """

    split: str = "test"
    tables: Sequence[Path] = ()
    quality: Sequence[Path] = ()
    accept: str = "usable"
    keep_patients: Path | None = None
    labels: bool = True


@dataclass
class Result:
    """What was packed, and what became of all the rest."""

    packed: Packed
    manifest: Path
    found: int  # photographs of the splits asked for
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> photographs
    foreign: int = 0  # images whose names are not EyePACS's


def pack_eyepacs(
    source: Path,
    dest: Path,
    recipe: Recipe,
    choice: Choice,
    *,
    max_bad: float = 0.05,
    overwrite: bool = False,
    progress: Progress | None = None,
    writing: Progress | None = None,
) -> Result:
    """Prepare the photographs in `source` into the zip `dest`, with a manifest in it and beside it.

    Raises DataError, which says what is wrong, where, and how to mend it. See `preparing` on going on after a
    kill.
    """
    photographs, foreign = find_photographs(source, choice)
    wanted = [photo for photo in photographs if not photo.skipped]
    if not wanted:
        reasons = sorted({photo.skipped for photo in photographs})
        raise DataError(f"{source}: every photograph is left out ({'; '.join(reasons[:3])}); choose others")

    def make(index: int) -> Made:
        photo = wanted[index]
        try:
            made = prepare(read(photo.files, photo.index), recipe)
        except BadImage as error:
            return Made(None, {"skipped": str(error)})
        record = {
            "crop": " ".join(f"{value:g}" for value in made.crop), "found": made.found,
            "optic_disc": made.side, "mirrored": int(made.mirrored),
        }  # fmt: skip
        return Made(entry(made.pixels), record)

    manifest = b""

    def annotate(records: list[Record]) -> Annotations:
        nonlocal manifest
        kept = [photo for photo, record in zip(wanted, records) if not record.get("skipped")]
        manifest = make_manifest(photographs, wanted, records)
        grades = [photo.grade for photo in kept]
        return Annotations(
            labels=np.array(grades, dtype=np.int64) if choice.labels else None,
            label_names=GRADES if choice.labels else None,
            patients=np.array([photo.patient for photo in kept]),
            extras={"manifest.csv": manifest, "about.json": about("eyepacs", asdict(recipe))},
        )

    records = prepare_zip(
        dest,
        [photo.source for photo in wanted],
        make,
        annotate,
        plan=_plan(wanted, recipe, choice),
        where=source,
        max_bad=max_bad,
        overwrite=overwrite,
        progress=progress,
        writing=writing,
    )
    beside = dest.with_suffix(".manifest.csv")
    write_manifest(beside, manifest)
    skipped = [(p.source, str(r["skipped"])) for p, r in zip(wanted, records) if r.get("skipped")]
    skipped += [(p.source, p.skipped) for p in photographs if p.skipped == _BAD]
    count = sum(1 for record in records if not record.get("skipped"))
    packed = Packed(dest, count, recipe.resolution, 3, skipped)
    result = Result(packed, beside, len(photographs), foreign=foreign)
    for photo in photographs:
        if photo.skipped:
            result.left_out[photo.skipped] = result.left_out.get(photo.skipped, 0) + 1
    return result


_BAD = "known to be bad"


def _plan(wanted: list[Photograph], recipe: Recipe, choice: Choice) -> dict[str, object]:
    stamps = {id(photo.files): photo.files for photo in wanted}
    known = {key: files.stamps() for key, files in stamps.items()}
    lines = [
        (photo.source, *known[id(photo.files)][photo.index][1:], photo.grade, photo.quality)
        for photo in wanted
    ]
    return {
        "set": "eyepacs",
        "recipe": asdict(recipe),
        "labels": choice.labels,
        "images": len(wanted),
        "photographs and grades": hashlib.sha256(json.dumps(lines).encode()).hexdigest(),
    }


def make_manifest(photographs: list[Photograph], wanted: list[Photograph], records: list[Record]) -> bytes:
    """manifest.csv: a row for each photograph, packed or not, in the order of the set."""
    made = {id(photo): record for photo, record in zip(wanted, records)}
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    packed = 0
    for photo in photographs:
        record = made.get(id(photo), {})
        row: dict[str, object] = {
            "source": photo.source, "patient": photo.patient, "eye": photo.eye, "split": photo.split,
            "grade": "" if photo.grade is None else photo.grade, "usage": photo.usage,
            "quality": photo.quality, "skipped": photo.skipped,
        }  # fmt: skip
        row.update((key, value) for key, value in record.items() if key in COLUMNS)
        if not row["skipped"]:
            row["name"] = member_name(packed)
            packed += 1
        writer.writerow(row)
    return out.getvalue().encode()


# ---- finding the photographs ---------------------------------------------------------------------------


def find_photographs(source: Path, choice: Choice) -> tuple[list[Photograph], int]:
    """The photographs of the splits asked for, in the set's order, each with what is known of it, and why it
    is to be left out; and how many images there are besides whose names are not EyePACS's.

    Raises DataError.
    """
    if choice.split not in (*SPLITS, "all"):
        raise DataError(f"split {choice.split!r} is unknown; use test, train or all")
    containers, tables = _look(source, choice.split)
    grades = _Grades()
    for where, content in tables:
        grades.add(where, content, asked=False)
    for path in choice.tables:
        grades.add(str(path), _read_table(path), asked=True)
    found: dict[str, Photograph] = {}
    foreign = 0
    for files, hint in containers:
        for index, name in enumerate(files.names):
            match = _NAME.fullmatch(PurePosixPath(name).stem)
            if match is None:
                foreign += 1
                continue
            label = f"{files.path.name}/{name}" if isinstance(files, ZipFiles) else name
            photo = Photograph(files, index, label, match[1], match[2], "")
            photo.split = grades.split.get(photo.stem) or hint or _hint(name) or _hint(source.name)
            if photo.stem in found:
                raise DataError(
                    f"{source}: {photo.stem} is there twice, as {found[photo.stem].source} and {label}; "
                    "give the folder or archive that holds the one to use"
                )
            found[photo.stem] = photo
    photographs = _of_split(source, list(found.values()), choice.split, foreign)
    _grade(source, photographs, grades, choice)
    _rate(photographs, choice)
    _keep(photographs, choice)
    for photo in photographs:
        if photo.stem in KNOWN_BAD:
            photo.skipped = _BAD
    photographs.sort(key=lambda photo: (photo.split, int(photo.patient), photo.eye))
    return photographs, foreign


def _look(source: Path, split: str) -> tuple[list[tuple[Files, str]], list[tuple[str, bytes]]]:
    """The folders and archives with images, each with the split that its name tells; the tables of grades."""
    containers: list[tuple[Files, str]] = []
    tables: list[tuple[str, bytes]] = []
    archives: list[Path] = []
    if source.is_dir():
        folder = FolderFiles(source, needed=False)
        if folder.names:
            containers.append((folder, ""))
        others = [source / name for name in folder.others]
        tables += _tables(others)
        archives = _archives(others)
        around = [source.absolute().parent, source.absolute().parent.parent]
    else:
        first = source.with_name(source.name + ".001")
        archives = [first if not source.exists() and first.exists() else source]
        if not archives[0].exists():
            raise DataError(f"{source}: no such folder or archive")
        around = [source.absolute().parent]
    for path in archives:
        name = whole_name(path).name if is_piece(path) else path.name
        hint = _hint(name) if source.is_dir() else ""
        if split in SPLITS and hint not in ("", split):
            continue  # the other split's archive need not even be whole
        files = ZipFiles(path, needed=not source.is_dir())
        tables += [(f"{path.name}/{other}", files.beside(other) or b"") for other in files.others
                   if _TABLE.fullmatch(PurePosixPath(other).name.lower())]  # fmt: skip
        if files.names:
            containers.append((files, hint or _hint(name)))
    for place in around:  # grades often lie beside the folder of images
        if not tables:
            tables += _tables([path for path in sorted(place.iterdir()) if path.is_file()])
    return containers, tables


def _archives(paths: list[Path]) -> list[Path]:
    """The archives of images among `paths`: whole zips, and of those in pieces the first piece there is."""
    found: dict[Path, Path] = {}
    for path in sorted(paths, key=lambda path: (is_piece(path), path)):
        whole = whole_name(path) if is_piece(path) else path
        if whole.suffix.lower() == ".zip" and not _NOT_IMAGES.fullmatch(path.name.lower()):
            found.setdefault(whole, path)
    return [found[whole] for whole in sorted(found)]


def _tables(paths: list[Path]) -> list[tuple[str, bytes]]:
    return [(str(path), _read_table(path)) for path in paths if _TABLE.fullmatch(path.name.lower())]


def _read_table(path: Path) -> bytes:
    """A CSV file, or the first one in a zip of it."""
    try:
        if path.suffix.lower() != ".zip":
            return path.read_bytes()
        files = ZipFiles(path, needed=False)
        member = next((name for name in files.others if name.lower().endswith(".csv")), None)
        if member is None:
            raise DataError(f"{path}: no CSV file in it; download it again")
        return files.beside(member) or b""
    except OSError as error:
        raise DataError(f"{path}: the table cannot be read ({error.strerror})") from error


def _hint(name: str) -> str:
    """The split that the names of folders and archives tell, "" where they tell none."""
    words = [re.split(r"[^a-z]", part.lower()) for part in PurePosixPath(name).parts]
    told = {split for split in SPLITS for part in words if split in part}
    return told.pop() if len(told) == 1 else ""


def _of_split(source: Path, found: list[Photograph], split: str, foreign: int) -> list[Photograph]:
    if not found:
        what = f"only {foreign} other images" if foreign else "no images and no archives of images"
        raise DataError(
            f"{source}: {what}; EyePACS's are called like 10_left.jpeg, in test.zip.001, ... or folders"
        )
    if split == "all":
        return found
    kept = [photo for photo in found if photo.split == split]
    if kept:
        return kept
    other = next(name for name in SPLITS if name != split)
    count = sum(photo.split == other for photo in found)
    if count:
        raise DataError(
            f"{source}: none of its {len(found)} photographs is of the split {split}, and {count} are of "
            f"{other}; say --split {other}, or give the {split} images"
        )
    table = "retinopathy_solution.csv" if split == "test" else "trainLabels.csv"
    raise DataError(
        f"{source}: nothing tells which of its {len(found)} photographs are of the split {split}; put "
        f"{table} beside them, or say --split all"
    )


class _Grades:
    """The grade, usage and split of photographs, from any number of tables."""

    def __init__(self) -> None:
        self.grade: dict[str, int] = {}
        self.usage: dict[str, str] = {}
        self.split: dict[str, str] = {}
        self.origin: dict[str, str] = {}

    def add(self, where: str, content: bytes, *, asked: bool) -> None:
        """Take in a table. One without EyePACS's names is passed over unless it was asked for."""
        columns, rows = read_csv(content, where)
        file_column = find_column(columns, FILE_COLUMNS, "file", where)
        grade_column = find_column(columns, LABEL_COLUMNS, "grade", where)
        usage_column = columns.index("usage") if "usage" in columns else None
        file_name = re.split(r"[/\\]", where.lower())[-1]
        split = "test" if usage_column is not None else _hint(file_name.replace("labels", " "))
        any_found = False
        for number, row in enumerate(rows, start=2):
            stem = PurePosixPath(row[file_column]).stem if len(row) > file_column else ""
            if not _NAME.fullmatch(stem):
                continue
            any_found = True
            text = row[grade_column] if len(row) > grade_column else ""
            if text not in ("0", "1", "2", "3", "4", "0.0", "1.0", "2.0", "3.0", "4.0"):
                raise DataError(f"{where}: row {number} gives {stem} the grade {text!r}; grades are 0 to 4")
            grade = int(float(text))
            if self.grade.setdefault(stem, grade) != grade:
                raise DataError(
                    f"{stem} has grade {self.grade[stem]} in {self.origin[stem]} and {grade} in {where}; "
                    "take one of the two away"
                )
            self.origin.setdefault(stem, where)
            if split:
                self.split[stem] = split
            if usage_column is not None and len(row) > usage_column:
                self.usage[stem] = row[usage_column]
        if asked and not any_found:
            raise DataError(f"{where}: no row names a photograph such as 10_left; give EyePACS's table")


def _grade(source: Path, photographs: list[Photograph], grades: _Grades, choice: Choice) -> None:
    missing = []
    for photo in photographs:
        photo.grade = grades.grade.get(photo.stem)
        photo.usage = grades.usage.get(photo.stem, "")
        if photo.grade is None:
            missing.append(photo.stem)
    if missing and choice.labels:
        needed = {"test": "retinopathy_solution.csv", "train": "trainLabels.csv"}.get(
            choice.split, "trainLabels.csv and retinopathy_solution.csv"
        )
        raise DataError(
            f"{source}: no grade for {len(missing)} of its {len(photographs)} photographs, e.g. "
            f"{', '.join(missing[:3])}; put {needed} there, name it with --labels, or say --no-labels"
        )


def _rate(photographs: list[Photograph], choice: Choice) -> None:
    if not choice.quality:
        return
    ratings: dict[str, str] = {}
    for path in choice.quality:
        columns, rows = read_csv(_read_table(path), str(path))
        if "quality" not in columns:
            raise DataError(
                f"{path} has the columns {', '.join(columns)}; EyeQ's files have image and quality"
            )
        file_column, column = find_column(columns, FILE_COLUMNS, "file", str(path)), columns.index("quality")
        for row in rows:
            if len(row) > max(file_column, column):
                text = row[column].lower()
                rating = QUALITIES[int(text)] if text in ("0", "1", "2") else text
                if rating not in QUALITIES:
                    raise DataError(f"{path}: the quality {row[column]!r} is unknown; EyeQ has 0, 1 and 2")
                ratings[PurePosixPath(row[file_column]).stem] = rating
    worst = QUALITIES.index(choice.accept)
    for photo in photographs:
        photo.quality = ratings.get(photo.stem, "")
        if not photo.quality:
            photo.skipped = "not rated in the file of qualities"
        elif QUALITIES.index(photo.quality) > worst:
            photo.skipped = f"quality: {photo.quality}"
    if all(not photo.quality for photo in photographs):
        raise DataError(f"{choice.quality[0]}: rates none of the photographs; give the file of this split")


def _keep(photographs: list[Photograph], choice: Choice) -> None:
    if choice.keep_patients is None:
        return
    wanted = set(_patients(choice.keep_patients))
    if not wanted & {photo.patient for photo in photographs}:
        raise DataError(
            f"{choice.keep_patients}: names {len(wanted)} patients, none of them among the photographs; "
            "write one patient a line, such as 10"
        )
    for photo in photographs:
        if photo.patient not in wanted:
            photo.skipped = "patient not asked for"


def _patients(path: Path) -> Iterator[str]:
    """The patients in a file: the first cell of each line, which may also be the name of a photograph."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the patients cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        cell = re.split(r"[,;\t]", line.partition("#")[0])[0].strip().strip('"')
        match = _NAME.fullmatch(PurePosixPath(cell).stem)
        if match or cell.isdigit():
            yield match[1] if match else cell
        elif cell and number > 1:  # the first line may be a header
            raise DataError(f"{path}: line {number} is {cell!r}, no patient such as 10; mend the line")
