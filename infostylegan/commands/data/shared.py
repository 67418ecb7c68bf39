"""What the commands of `python -m infostylegan data` share."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import printable

if TYPE_CHECKING:
    from infostylegan.data.packing import Packed

_LINE_SECONDS = 30.0


class Bar:
    """Progress with the time left: a bar on a terminal; in a log, a line every 30 seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Any = None
        self._start: tuple[int, float] | None = None  # images done, and when
        self._told = 0.0

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            self._draw(done, total)
        else:
            self._tell(done, total)

    def _draw(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            # What an earlier run has done says nothing of the speed of this one.
            self._bar = tqdm(total=total, initial=max(0, done - 1), desc=self._what, unit="img", leave=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()

    def _tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._start is None:
            self._start, self._told = (done, now), now
        elif now - self._told >= _LINE_SECONDS and done > self._start[0]:
            rate = (done - self._start[0]) / (now - self._start[1])
            minutes = (total - done) / rate / 60
            left = f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.0f} minutes"
            click.echo(f"{self._what}: {done} of {total}, {rate:.1f} a second, {left} left", err=True)
            self._told = now


def report(packed: Packed) -> None:
    size = packed.path.stat().st_size / 2**20
    shape = f"{packed.resolution}x{packed.resolution}, {'gray' if packed.channels == 1 else 'RGB'}"
    click.echo(f"{packed.path}: {packed.count} images, {shape}, {size:.1f} MiB")
    report_skipped(packed.skipped)


def report_skipped(skipped: list[tuple[str, str]]) -> None:
    for name, reason in skipped[:10]:
        click.echo(f"  left out: {printable(name)}: {printable(reason)}")
    if len(skipped) > 10:
        click.echo(f"  and {len(skipped) - 10} more")


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace DEST where it exists.")
max_bad_option = click.option(
    "--max-bad", type=click.FloatRange(0, 1), default=0.05, show_default=True,
    help="Share of images that may be left out.",
)  # fmt: skip
