"""The image folders of the Hugging Face `datasets` library: images, and a table of what is known of them.

    train/0001.png
    train/metadata.csv      file_name,label,age       or metadata.jsonl, one JSON object a line

There may be one table in the root or one in each folder; `file_name` (or `*_file_name`) is relative to the
table. Without a table, the folder that an image lies in is its class. Folders called train, validation, test
and the like are splits.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from infostylegan.data.annotations import Annotations
from infostylegan.data.errors import DataError
from infostylegan.data.sources import LABEL_COLUMNS, FolderFiles, ZipFiles

TABLES = ("metadata.csv", "metadata.jsonl")
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def has_table(files: FolderFiles | ZipFiles) -> bool:
    return any(posixpath.basename(name) in TABLES for name in files.others)


def read_imagefolder(
    files: FolderFiles | ZipFiles, *, split: str | None = None, label: str | None = None
) -> Annotations:
    """Reduce `files` to the images of a split, and say what is known of them.

    split   "train", "validation" or "test": only images below a folder of that name; None: all
    label   the column that holds the class; None: label, level, grade, class or diagnosis, where there is one

    Numbers are kept as numbers, other columns as text; all but the label become attributes, and a column
    `patient` or `patient_id` the patients. Raises DataError.
    """
    tables = [name for name in files.others if posixpath.basename(name) in TABLES]
    if split is not None:
        wanted = SPLITS.get(split, (split,))
        files.names = [name for name in files.names if set(name.lower().split("/")[:-1]) & set(wanted)]
        if not files.names:
            raise DataError(f"{files.path}: no image lies in a folder called {' or '.join(wanted)}; "
                            "leave --split out, or name another")  # fmt: skip
    if not tables:
        return _folders_as_classes(files, label)
    known: dict[str, Mapping[str, Any]] = {}
    for table in tables:
        folder = posixpath.dirname(table)
        for row in _read_table(files, table):
            name = posixpath.normpath(posixpath.join(folder, str(row["file_name"]).replace("\\", "/")))
            if known.setdefault(name, row) != row:
                raise DataError(f"{files.path}: {table} tells of {name} twice, and differently; keep one row")
    missing = [name for name in files.names if name not in known]
    if missing:
        raise DataError(
            f"{files.path}: {tables[0]} has no row for {len(missing)} of the {len(files.names)} images, e.g. "
            f"{', '.join(missing[:3])}; add them, or move the images away"
        )
    rows = [known[name] for name in files.names]
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "file_name"))
    values = {column: _column([row.get(column) for row in rows]) for column in columns}
    if label is not None and label not in values:
        raise DataError(f"{files.path}: {tables[0]} has no column {label!r}, only {', '.join(columns)}")
    chosen = label or next((column for column in columns if column.lower() in LABEL_COLUMNS), None)
    labels = names = None
    if chosen is not None:
        labels, names = _classes(values.pop(chosen), f"{files.path}: column {chosen} of {tables[0]}")
    patients = next((values.pop(key) for key in columns if key.lower() in ("patient", "patient_id")), None)
    return Annotations(
        labels, names, attributes=values or None, patients=None if patients is None else patients.astype(str)
    )


def _folders_as_classes(files: FolderFiles | ZipFiles, label: str | None) -> Annotations:
    if label is not None:
        raise DataError(
            f"{files.path}: --label-column {label}, but there is no metadata.csv or metadata.jsonl"
        )
    splits = {name for names in SPLITS.values() for name in names}
    folders = [posixpath.basename(posixpath.dirname(name)) for name in files.names]
    if any(not folder or folder.lower() in splits for folder in folders) or len(set(folders)) < 2:
        return Annotations()
    names, labels = np.unique(folders, return_inverse=True)
    return Annotations(labels.astype(np.int64), tuple(names.tolist()))


def _read_table(files: FolderFiles | ZipFiles, table: str) -> list[dict[str, Any]]:
    where = f"{files.path}: {table}"
    content = files.beside(table) or b""
    try:
        text = content.decode("utf-8-sig")
        if table.endswith(".csv"):
            reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            rows: list[dict[str, Any]] = [dict(row) for row in reader]
            if any(None in row for row in rows):
                raise DataError(f"{where}: a row has more cells than the header; mend the row")
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{where} is damaged ({error}); save it again, in UTF-8") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{where}: row {number} is no JSON object; mend it")
        key = next((name for name in row if name == "file_name" or str(name).endswith("_file_name")), None)
        if key is None or not isinstance(row[key], str):
            raise DataError(f"{where}: row {number} has no file_name; the column is called so by the format")
        row["file_name"] = row.pop(key)
    return rows


def _column(values: Sequence[Any]) -> np.ndarray:
    """Whole numbers as int64, numbers as float64 (NaN where there is none), anything else as text."""
    given = [value for value in values if value not in (None, "")]
    if given and all(isinstance(value, bool) for value in given) and len(given) == len(values):
        return np.array(values, dtype=np.int64)
    try:
        numbers = np.array([np.nan if value in (None, "") else float(value) for value in values])
    except (TypeError, ValueError):
        return np.array([value if isinstance(value, str) else json.dumps(value) for value in values])
    whole = np.isfinite(numbers) & (numbers == np.rint(numbers)) & (np.abs(numbers) < 2**53)
    return numbers.astype(np.int64) if len(numbers) and whole.all() else numbers


def _classes(values: np.ndarray, where: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if values.dtype.kind == "U":
        names, labels = np.unique(values, return_inverse=True)
        return labels.astype(np.int64), tuple(names.tolist())
    if values.dtype.kind != "i" or values.min() < 0:
        raise DataError(f"{where} holds {values[0]} and the like; classes are whole numbers from 0, or names")
    return values, None
