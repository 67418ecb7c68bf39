"""What people call the codes: names kept in a snapshot, beside the networks."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infostylegan.codes import CodeError, CodeSpec
from infostylegan.export import SnapshotError, load_snapshot, replace_snapshot, snapshots_of

LONGEST = 40  # characters of a name; more would not fit above a slider


def clean_name(text: str) -> str:
    """A name as it is kept: one line of printable characters, spaces joined. Raises CodeError."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        raise CodeError("a name needs at least one character; use --clear to take a name away")
    if len(name) > LONGEST:
        raise CodeError(f"the name {name[:LONGEST]!r}… has {len(name)} characters: at most {LONGEST} fit")
    if not name.isprintable():
        raise CodeError(f"the name {name!r} holds characters that cannot be printed: leave them out")
    return name


def code_names(content: Mapping[str, Any]) -> dict[str, str]:
    """The names in a snapshot's content, by code; whatever is no proper name of a code of its is left out."""
    stored = content.get("code_names")
    if not isinstance(stored, dict):
        return {}
    names: dict[str, str] = {}
    for code in content["G_ema"].codes.names:
        try:
            names[code] = clean_name(stored[code])
        except (KeyError, TypeError, CodeError):
            continue
    return names


def check_code(codes: CodeSpec, name: str) -> None:
    """Raise CodeError unless `name` is one of the codes."""
    if name not in codes.names:
        known = f"its codes are {', '.join(codes.names)}" if len(codes) else "it has no codes"
        raise CodeError(f"no code {name!r} in this snapshot: {known}")


def rename_codes(path: str | os.PathLike[str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Give codes of a snapshot their names (None takes one away); all names afterwards.

    The file is replaced whole or not at all. Raises CodeError for an unknown code or an unfit name and
    SnapshotError for a file that is no snapshot.
    """
    target = Path(path).resolve()  # a link stays a link
    content = load_snapshot(target)
    names = code_names(content)
    for code, name in changes.items():
        check_code(content["G_ema"].codes, code)
        names.pop(code, None)
        if name is not None:
            names[code] = clean_name(name)
    ordered = {code: names[code] for code in content["G_ema"].codes.names if code in names}
    mode = target.stat().st_mode & 0o777
    replace_snapshot(target, {**content, "code_names": ordered})
    os.chmod(target, mode)
    return ordered


def names_in_run(folder: str | os.PathLike[str]) -> dict[str, str]:
    """The names in the newest snapshot of a run folder; none where there is no readable one."""
    for path in reversed(snapshots_of(folder)):
        try:
            return code_names(load_snapshot(path))
        except SnapshotError:
            continue
    return {}
