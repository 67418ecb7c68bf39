"""Making a packed zip out of many photographs, such that a kill costs seconds of work and not hours.

Beside DEST.zip lies the folder DEST.zip.unfinished while the work goes on:

    plan.json      what is made of which files: the same plan goes on where it stopped, another is refused
    journal.jsonl  a line for each image done, in order: what became of it, and the lengths of its parts
    images.bin     the parts of the images, one after the other, as they go into the zip

Parts reach the disk before the line that names them, so what the journal says is there is there. The zip is
put together at the end, to the byte as if nothing had been interrupted; then the folder goes. It needs as
much room as the zip itself.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dnnlib.files import DamagedFile, DiskFull, atomic_write, explain_disk_full, read_jsonl
from dnnlib.lock import Taken, exclusive
from infostylegan.data.annotations import Annotations
from infostylegan.data.errors import DataError
from infostylegan.data.loading import Progress, check_bad, parallel
from infostylegan.data.packing import Entry, check_dest, write_zip

_SAVE_SECONDS = 3.0  # of work that a kill may cost

Record = dict[str, Any]  # what a manifest says of an image: plain JSON


@dataclass(frozen=True)
class Made:
    """What became of one image. `entry` None: it cannot be used, for the reason record["skipped"]."""

    entry: Entry | None
    record: Record


def unfinished(dest: Path) -> Path:
    """The folder that holds the work on `dest` until it is finished."""
    return dest.with_name(dest.name + ".unfinished")


def prepare_zip(
    dest: Path,
    names: Sequence[str],
    make: Callable[[int], Made],
    annotate: Callable[[list[Record]], Annotations],
    *,
    plan: Mapping[str, object],
    where: Path,
    max_bad: float = 0.05,
    overwrite: bool = False,
    progress: Progress | None = None,
    writing: Progress | None = None,
) -> list[Record]:
    """Make the image of each of `names` with all cores, and pack them; go on where an earlier call stopped.

    make      the image at an index, called from many threads
    annotate  what is known of the images packed, from the records of all `names`, called at the end
    plan      everything that decides what comes out, plain JSON
    where     what messages call the source

    Returns the record of each name. Raises DataError where too many cannot be used, or where the unfinished
    folder is of another plan, in use, or damaged.
    """
    check_dest(dest, overwrite)
    folder = unfinished(dest)
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with _Spool(folder, dict(plan)) as spool:
            bad = [(names[i], str(r["skipped"])) for i, r in enumerate(spool.records) if r.get("skipped")]
            check_bad(where, bad, len(names), max_bad, all_seen=False)
            if progress is not None:
                progress(len(spool.records), len(names))
            for made in parallel(make, range(len(spool.records), len(names))):
                index = spool.add(made)
                if made.entry is None:
                    bad.append((names[index], str(made.record["skipped"])))
                    check_bad(where, bad, len(names), max_bad, all_seen=False)
                if progress is not None:
                    progress(index + 1, len(names))
            spool.save()
            records = spool.records
            # What a kill has left of an earlier try to write the zip; nobody else is at it, by the lock.
            for part in dest.parent.glob(f".{glob.escape(dest.name)}.*.part"):
                part.unlink(missing_ok=True)
            write_zip(dest, spool.entries(writing), lambda: annotate(records), overwrite=overwrite)
    except DiskFull as error:
        raise DataError(f"{error}; what is done is kept") from error
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another place"
        ) from error
    shutil.rmtree(folder, ignore_errors=True)
    return records


def about(name: str, options: Mapping[str, object]) -> bytes:
    """about.json, for the zip: which set it holds and how it was prepared."""
    return json.dumps({"dataset": name, "prepared": options}, indent=1).encode()


def write_manifest(path: Path, content: bytes) -> None:
    """The manifest beside the zip, the same as in it."""
    with atomic_write(path) as file:
        file.write(content)


class _Spool:
    """The unfinished folder: opened, locked, and closed with all that was added saved."""

    def __init__(self, folder: Path, plan: dict[str, object]) -> None:
        self._folder = folder
        self._plan = plan
        self.records: list[Record] = []
        self._waiting: list[tuple[bytes, Record]] = []
        self._saved = time.monotonic()

    def __enter__(self) -> _Spool:
        self._folder.mkdir(exist_ok=True)
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(exclusive(self._folder / "lock", wait=False))
            except Taken as error:
                raise DataError(f"{self._folder}: another process is at work on it; wait for it") from error
            self._check_plan()
            self._images: IO[bytes] = stack.enter_context(open(self._folder / "images.bin", "ab+"))
            self._recover()
            self._journal: IO[bytes] = stack.enter_context(open(self._folder / "journal.jsonl", "ab"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        with self._stack:
            if not isinstance(error, OSError):
                self.save()

    def _check_plan(self) -> None:
        path = self._folder / "plan.json"
        plan = json.loads(json.dumps(self._plan))
        try:
            before = json.loads(path.read_text())
        except (OSError, ValueError):
            before = None
        if before is None:
            for name in ("journal.jsonl", "images.bin"):  # of no plan that could be known
                (self._folder / name).unlink(missing_ok=True)
            with atomic_write(path, "w") as file:
                json.dump(plan, file)
        elif before != plan:
            keys = before.keys() | plan.keys() if isinstance(before, dict) else set(plan)
            differ = sorted(
                key for key in keys if not isinstance(before, dict) or before.get(key) != plan.get(key)
            )
            raise DataError(
                f"{self._folder}: holds unfinished work of another kind (other {', '.join(differ)}); go on "
                "as it was begun, or remove that folder"
            )

    def _recover(self) -> None:
        """Take up the records whose parts are all there; cut off what a kill left beyond them."""
        path = self._folder / "journal.jsonl"
        try:
            found = read_jsonl(path) if path.exists() else []
        except DamagedFile as error:
            raise DataError(f"{error}; remove {self._folder} and start again") from error
        size, end = self._images.seek(0, os.SEEK_END), 0
        for record in found:
            end += sum(record.get("parts", ()))
            if end > size:
                break
            self.records.append(record)
        self._images.truncate(sum(sum(record.get("parts", ())) for record in self.records))
        with atomic_write(path) as file:
            for record in self.records:
                file.write(_line(record))

    def add(self, made: Made) -> int:
        """Take in the next image; its index."""
        record, content = dict(made.record), b""
        if made.entry is not None:
            parts = [made.entry.png, *made.entry.lower]
            content = b"".join(parts)
            record.update(
                parts=[len(part) for part in parts], crc=zlib.crc32(content), digest=made.entry.digest.hex(),
                shape=[made.entry.channels, made.entry.resolution],
            )  # fmt: skip
        self.records.append(record)
        self._waiting.append((content, record))
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()
        return len(self.records) - 1

    def save(self) -> None:
        """Bring everything added to the disk: the parts, then the lines."""
        for file, lines in (
            (self._images, [content for content, _ in self._waiting]),
            (self._journal, [_line(record) for _, record in self._waiting]),
        ):
            with explain_disk_full(self._folder / "images.bin", sum(map(len, lines))):
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
        self._waiting = []
        self._saved = time.monotonic()

    def entries(self, progress: Progress | None) -> Iterator[Entry]:
        """What was added, read back and checked."""
        self._images.seek(0)
        for done, record in enumerate(self.records, start=1):
            if "parts" in record:
                content = self._images.read(sum(record["parts"]))
                if zlib.crc32(content) != record["crc"]:
                    raise DataError(
                        f"{self._folder / 'images.bin'}: damaged; remove {self._folder} and start again"
                    )
                parts, start = [], 0
                for length in record["parts"]:
                    parts.append(content[start : start + length])
                    start += length
                channels, resolution = record["shape"]
                yield Entry(parts[0], tuple(parts[1:]), bytes.fromhex(record["digest"]), channels, resolution)
            if progress is not None:
                progress(done, len(self.records))


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"
