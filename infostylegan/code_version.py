"""Which code made a record: for result files, run folders and snapshots."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

from infostylegan import __version__


def code_version() -> dict[str, str | None]:
    """`version`, and the `commit` where the code is a git checkout (as in `commit_of`).

    Looked up once a process: ask early, before somebody checks out another.
    """
    return {"version": __version__, "commit": commit_of(Path(__file__).parent.parent)}


@functools.cache
def commit_of(folder: Path) -> str | None:
    """The commit checked out in `folder`, with `-dirty` behind it if tracked files were changed since.

    None where `folder` isn't the top of a checkout, or git cannot tell.
    """
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *args: str) -> str:
    # Without locks, which would be in the way of whoever commits at this moment; and without what the
    # environment of a hook says of another repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *args]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10, env=environment)
    return done.stdout.strip()
