"""Where things are kept that can be made anew: builds, drawn images, features, downloaded weights."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$INFOSTYLEGAN_CACHE``, or else `users_cache`."""
    own = os.environ.get("INFOSTYLEGAN_CACHE")
    return Path(own).expanduser() if own else users_cache()


def users_cache() -> Path:
    """``infostylegan`` in ``~/.cache`` where that exists or ``XDG_CACHE_HOME`` is unset, else in the latter.

    Earlier versions kept images in ``~/.cache`` whatever XDG_CACHE_HOME said; what lies there stays in use.
    """
    usual = Path("~/.cache/infostylegan").expanduser()
    moved = os.environ.get("XDG_CACHE_HOME")
    return Path(moved).expanduser() / "infostylegan" if moved and not usual.is_dir() else usual
