"""Numbered run folders: `00000-description`, `00001-description`, …"""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

_RUN = re.compile(r"(\d{5,})-")


def _number(path: Path) -> int | None:
    match = _RUN.match(path.name)
    return int(match[1]) if match and path.is_dir() else None


def list_runs(outdir: str | os.PathLike[str]) -> list[Path]:
    """The run folders in `outdir`, oldest number first; none if there is no such folder."""
    outdir = Path(outdir)
    if not outdir.is_dir():
        return []
    numbered = [(number, path) for path in outdir.iterdir() if (number := _number(path)) is not None]
    return [path for _, path in sorted(numbered)]


def next_run_dir(outdir: str | os.PathLike[str], description: str) -> Path:
    """Make and return the next run folder; its number is its own even if several runs start at once."""
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^\w.=+-]+", "-", description).strip("-.")[:100] or "run"
    while True:
        runs = list_runs(outdir)
        number = 1 + max((n for n in map(_number, runs) if n is not None), default=-1)
        path = outdir / f"{number:05d}-{slug}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        # A run with another description may have taken the same number in between. Whoever sees a rival gives
        # way; of two rivals at least the later one sees the other, so a number is never kept twice.
        if any(_number(other) == number for other in list_runs(outdir) if other != path):
            path.rmdir()
            time.sleep(random.uniform(0, 0.02))
            continue
        return path
