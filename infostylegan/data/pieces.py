"""An archive that was cut into pieces, read as the one file it was: nothing is joined on disk.

Kaggle and others cut a large `test.zip` into `test.zip.001`, `test.zip.002`, ...: plain runs of its bytes,
all of one length but the last. (The discs of a spanned zip, `.z01`, `.z02`, ..., are another format.)
"""

from __future__ import annotations

import bisect
import io
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from infostylegan.data.errors import DataError

_PIECE = re.compile(r"(?P<whole>.+)\.(?P<number>\d{3})", re.S)


def is_piece(path: Path) -> bool:
    """Whether the name is that of one piece: test.zip.001."""
    match = _PIECE.fullmatch(path.name)
    return match is not None and int(match["number"]) > 0


def whole_name(piece: Path) -> Path:
    """The path that the archive would have if its pieces were joined: test.zip.001 -> test.zip."""
    return piece.with_suffix("")


def find_pieces(piece: Path) -> list[Path]:
    """All pieces of the archive that `piece` is one of, in order.

    Raises DataError where one is missing, or is shorter or longer than the others.
    """
    whole = whole_name(piece)
    found: dict[int, Path] = {}
    for path in whole.parent.iterdir():
        match = _PIECE.fullmatch(path.name)
        if match is not None and match["whole"] == whole.name and int(match["number"]) > 0:
            found[int(match["number"])] = path
    missing = sorted(set(range(1, max(found, default=1) + 1)) - set(found))
    if missing:
        raise DataError(
            f"{whole}: piece {whole.name}.{missing[0]:03d} is missing (of {max(found, default=1)} or more); "
            "download it into the same folder"
        )
    pieces = [found[number] for number in sorted(found)]
    sizes = [path.stat().st_size for path in pieces]
    for path, size in zip(pieces[:-1], sizes):
        if size != max(sizes):
            raise DataError(f"{path}: {size:,} bytes where other pieces have {max(sizes):,}; "
                            "its download was cut short: download it again")  # fmt: skip
    return pieces


class Pieces(io.RawIOBase):
    """The files `paths`, one after the other, as one seekable file that can only be read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._ends = list(itertools.accumulate(path.stat().st_size for path in self._paths))
        self._open: dict[int, IO[bytes]] = {}
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size()}[whence]
        if base + offset < 0:
            raise OSError(f"seek to {base + offset}, before the start of {self._paths[0]}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from here on, across the seams; how many bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._size():
            number = bisect.bisect_right(self._ends, self._position)
            start = self._ends[number - 1] if number else 0
            file = self._open.get(number)
            if file is None:
                file = self._open[number] = open(self._paths[number], "rb")  # noqa: SIM115
            file.seek(self._position - start)
            wanted = min(len(view) - done, self._ends[number] - self._position)
            count = file.readinto(view[done : done + wanted])  # type: ignore[attr-defined]
            if not count:
                raise OSError(f"{self._paths[number]} has become shorter while it was read")
            done += count
            self._position += count
        return done

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
        super().close()

    def _size(self) -> int:
        return self._ends[-1] if self._ends else 0
