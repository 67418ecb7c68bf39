"""A run's log: every line goes to the terminal and to log.txt, and does not tear a progress bar apart."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from types import TracebackType
from typing import IO, Any

from tqdm import tqdm

from dnnlib.files import explain_disk_full


class RunLog:
    """`with RunLog(run_dir / "log.txt") as log: log.line("…")`.

    path    where lines are appended; None keeps no file (a dry run)
    quiet   print nothing (every process but the first)
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, quiet: bool = False) -> None:
        self.path = path
        self.quiet = quiet
        self._file: IO[str] | None = open(path, "a", encoding="utf-8") if path is not None else None  # noqa: SIM115

    def line(self, text: str = "") -> None:
        """Print `text` and append it to the log."""
        self._print(text, sys.stdout)
        self._record(text)

    def warn(self, text: str) -> None:
        """As `line`, on the error stream and marked as a warning."""
        self._print(f"warning: {text}", sys.stderr)
        self._record(f"warning: {text}")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The log must tell by itself how a run ended; the terminal shows the error on its own.
        if isinstance(error, KeyboardInterrupt):
            self._record("interrupted")
        elif error is not None and not isinstance(error, (SystemExit, GeneratorExit)):
            with contextlib.suppress(OSError):
                self._record("".join(traceback.format_exception(kind, error, trace)).rstrip())
        with contextlib.suppress(OSError):
            self.close()

    def _record(self, text: str) -> None:
        if self._file is not None:
            with explain_disk_full(self.path or "", len(text) + 1):
                self._file.write(text + "\n")
                self._file.flush()

    def _print(self, text: str, stream: Any) -> None:
        if self.quiet:
            return
        try:
            try:
                tqdm.write(text, file=stream)  # lifts the active bars, if any, and puts them back below
            except UnicodeEncodeError:  # a terminal that cannot show Greek letters still gets the line
                encoding = getattr(stream, "encoding", None) or "ascii"
                tqdm.write(text.encode(encoding, "replace").decode(encoding), file=stream)
            stream.flush()
        except BrokenPipeError:  # `train.py | head`: the reader left, the run goes on
            self.quiet = True


def format_time(seconds: float) -> str:
    """`7.2s`, `45s`, `3m 05s`, `1h 02m 03s`, `2d 03h 04m`."""
    if seconds < 0:
        return "-" + format_time(-seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    s = round(seconds)
    if s < 60:
        return f"{s}s"
    if s < 3600:
        return f"{s // 60}m {s % 60:02d}s"
    if s < 86400:
        return f"{s // 3600}h {s // 60 % 60:02d}m {s % 60:02d}s"
    return f"{s // 86400}d {s // 3600 % 24:02d}h {s // 60 % 60:02d}m"


def format_bytes(n: float) -> str:
    """`512 B`, `1.5 KiB`, `23.4 GiB`."""
    if abs(n) < 1024:
        return f"{n:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        n /= 1024
        if abs(n) < 1023.95:
            return f"{n:.1f} {unit}"
    return f"{n / 1024:.1f} TiB"
