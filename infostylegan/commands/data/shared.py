"""What the commands of `python -m infostylegan data` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from infostylegan.data.packing import Packed


class Bar:
    """Progress on the terminal; silent where there is none."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, desc=self._what, unit="img", disable=None, leave=False)
        self._bar.update(done - self._bar.n if not self._bar.disable else 0)
        if done >= total:
            self._bar.close()


def report(packed: Packed) -> None:
    size = packed.path.stat().st_size / 2**20
    shape = f"{packed.resolution}x{packed.resolution}, {'gray' if packed.channels == 1 else 'RGB'}"
    click.echo(f"{packed.path}: {packed.count} images, {shape}, {size:.1f} MiB")
    for name, reason in packed.skipped[:10]:
        click.echo(f"  left out: {name}: {reason}")
    if len(packed.skipped) > 10:
        click.echo(f"  and {len(packed.skipped) - 10} more")


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace DEST where it exists.")
