"""Which code made a record: for result files, run folders and snapshots."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from infostylegan import __version__


def code_version() -> dict[str, str | None]:
    """`version`, and the `commit` where the code is a git checkout (as in `commit_of`)."""
    return {"version": __version__, "commit": commit_of(Path(__file__).parent.parent)}


@functools.cache
def commit_of(folder: Path) -> str | None:
    """The commit checked out in `folder`, with `-dirty` behind it if tracked files were changed since.

    None where `folder` isn't the top of a checkout, or git cannot tell.
    """
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
