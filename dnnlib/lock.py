"""Locks between processes, dropped by the system with their owner, so that none is ever left behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


class Taken(Exception):  # noqa: N818  named for what it is
    """Another process holds the lock."""


@contextlib.contextmanager
def exclusive(path: str | os.PathLike[str], *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`; with wait=False raise Taken where another process holds it.

    On Windows there is no such lock, and none is taken.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Taken(f"{os.fspath(path)}: held by another process") from None
        yield
