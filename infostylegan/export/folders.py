"""Folders that are either whole or absent."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dnnlib.files import PathLike, explain_disk_full
from infostylegan.export.errors import ExportError


@contextlib.contextmanager
def new_folder(folder: PathLike, marks: Sequence[str] = ()) -> Iterator[Path]:
    """A temporary neighbour of `folder`, which takes that name once it is whole.

    A folder that stands there is replaced if it is empty or holds one of `marks`, the files by which it is
    known for an earlier one; otherwise ExportError.
    """
    folder = Path(folder)
    if folder.exists():
        known = folder.is_dir() and (
            not any(folder.iterdir()) or any((folder / mark).is_file() for mark in marks)
        )
        if not known:
            raise ExportError(f"{folder} is there and no earlier export: give another place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        with explain_disk_full(folder):
            yield made
        made.chmod(0o755)
        if folder.exists():
            old = made.with_suffix(".old")
            folder.rename(old)
            made.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
