"""Files that are either whole or absent: atomic writes, digests, JSON lines.

A training run can be killed at any instant. Nothing here ever leaves a half-written file under its final
name, and nothing here reads a damaged file as if it were whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from dnnlib.errors import UserError

PathLike = str | os.PathLike[str]

_MAGIC = b"dnndig01"
_TRAILER = struct.Struct("<8sQ32s")  # magic, payload length, sha256 of the payload
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class DamagedFile(UserError):  # noqa: N818  named for what it is
    """A file whose content is not what was written. The message names the file and what is wrong with it."""

    def __init__(self, path: PathLike, problem: str) -> None:
        super().__init__(path, problem)
        self.path = Path(path)
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.problem}"


class DiskFull(OSError):  # noqa: N818
    """No space left (or quota used up) while writing `path`."""

    def __init__(
        self, path: PathLike, needed: int | None, free: int | None, code: int = errno.ENOSPC
    ) -> None:
        super().__init__(code, os.strerror(code), os.fspath(path))
        self.path = Path(path)
        self.needed = needed
        self.free = free

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.needed, self.free, self.errno)

    def __str__(self) -> str:
        cause = "disk full" if self.errno == errno.ENOSPC else "disk quota used up"
        needed = "unknown" if self.needed is None else f"{self.needed:,} bytes"
        free = "unknown" if self.free is None else f"{self.free:,} bytes"
        return f"{cause} while writing {self.path}: needed {needed}, free {free}; make room and run again"


@contextlib.contextmanager
def explain_disk_full(path: PathLike, needed: int | None = None) -> Iterator[None]:
    """Turn the system's bare "no space left" into a `DiskFull` that says which file and how much."""
    try:
        yield
    except DiskFull:
        raise
    except OSError as error:
        if error.errno not in _FULL:
            raise
        try:
            free: int | None = shutil.disk_usage(Path(path).absolute().parent).free
        except OSError:
            free = None
        raise DiskFull(path, needed, free, error.errno or errno.ENOSPC) from error


@contextlib.contextmanager
def atomic_write(path: PathLike, mode: str = "wb", *, needed: int | None = None) -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path` for writing; it takes that name only once it is whole and on disk.

    On an error, or a kill, whatever stood under `path` before still stands. `needed` (bytes) only makes the
    message better when the disk is full.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"atomic_write only replaces whole files: mode must be 'w' or 'wb', not {mode!r}")
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with explain_disk_full(path, needed):
        try:
            with open(part, mode, **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                part.unlink()
            if isinstance(error, OSError) and error.filename is None:
                error.filename = os.fspath(path)
            raise
        _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can sync a folder (Windows cannot)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_parts(folder: PathLike) -> list[Path]:
    """Delete what killed writers left in `folder`. Only for a folder that nobody is writing to."""
    parts = sorted(Path(folder).glob(".*.part"))
    for part in parts:
        part.unlink(missing_ok=True)
    return parts


def sha256_file(path: PathLike) -> str:
    """The hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_digested(path: PathLike, payload: bytes) -> None:
    """Atomically write `payload` followed by a trailer that lets `read_digested` recognise any damage."""
    trailer = _TRAILER.pack(_MAGIC, len(payload), hashlib.sha256(payload).digest())
    with atomic_write(path, needed=len(payload) + len(trailer)) as file:
        file.write(payload)
        file.write(trailer)


def read_digested(path: PathLike) -> bytes:
    """The payload that `write_digested` wrote, or `DamagedFile`."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < _TRAILER.size:
            raise DamagedFile(path, f"only {size} bytes, shorter than its own trailer; it was cut short")
        payload = file.read(size - _TRAILER.size)
        magic, length, digest = _TRAILER.unpack(file.read(_TRAILER.size))
    if magic != _MAGIC:
        raise DamagedFile(path, "no digest at its end; it was cut short, or is not a file of this kind")
    if length != len(payload):
        raise DamagedFile(path, f"holds {len(payload)} bytes where {length} were written")
    if hashlib.sha256(payload).digest() != digest:
        raise DamagedFile(path, "its SHA-256 does not match its content")
    return payload


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities become null, numpy and torch values plain ones."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars, torch tensors
        return _plain(value.tolist())
    raise TypeError(f"cannot write a {type(value).__name__} as JSON: {value!r}")


def append_jsonl(path: PathLike, record: dict[str, Any]) -> None:
    """Append one record as one line, in one write. A torn line left by a killed writer is removed first."""
    line = (json.dumps(_plain(record), allow_nan=False) + "\n").encode()
    # Unbuffered: a buffer that could not be written would be tried again on closing, and tear the file.
    with explain_disk_full(path, len(line)), open(path, "ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        whole = _whole_lines(file, size)
        if whole < size:
            file.truncate(whole)
        try:
            rest = memoryview(line)
            while rest:  # one write, unless the disk fills up half-way
                rest = rest[file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(whole)
            raise


def _whole_lines(file: io.FileIO, size: int) -> int:
    """How many leading bytes of a file of `size` bytes are whole lines."""
    end = size
    while end > 0:
        start = max(0, end - 4096)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def read_jsonl(path: PathLike) -> list[dict[str, Any]]:
    """Its records. A last line cut short by a kill is skipped; damage elsewhere is `DamagedFile`."""
    records: list[dict[str, Any]] = []
    lines = Path(path).read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if number == len(lines):  # what follows the last newline: nothing, or a line cut short
            break
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DamagedFile(path, f"line {number} is not JSON ({error})") from None
        if not isinstance(record, dict):
            raise DamagedFile(path, f"line {number} is not a JSON object")
        records.append(record)
    return records


def truncate_jsonl(path: PathLike, keep: Callable[[dict[str, Any]], bool]) -> int:
    """Atomically rewrite the file with the records that `keep` accepts; how many were dropped.

    On resume a run drops what it recorded after the checkpoint it starts from. A missing file stays missing.
    """
    if not Path(path).exists():
        return 0
    records = read_jsonl(path)
    kept = [record for record in records if keep(record)]
    with atomic_write(path, "w") as file:
        for record in kept:
            file.write(json.dumps(record) + "\n")
    return len(records) - len(kept)
