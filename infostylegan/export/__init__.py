"""Generators in and out of files (docs/export.md). Reading a file never executes anything in it."""

from infostylegan.export.errors import ExportError, SnapshotError
from infostylegan.export.snapshot import (
    find_snapshot,
    load_generator,
    load_snapshot,
    rebuild_network,
    replace_snapshot,
    save_generator,
    save_snapshot,
    snapshots_of,
)
from infostylegan.export.tensors import save_folder

__all__ = [
    "ExportError",
    "SnapshotError",
    "find_snapshot",
    "load_generator",
    "load_snapshot",
    "rebuild_network",
    "replace_snapshot",
    "save_folder",
    "save_generator",
    "save_snapshot",
    "snapshots_of",
]
