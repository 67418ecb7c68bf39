"""`python -m infostylegan data`: pack images for training, or look at what a data set holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from infostylegan.data.packing import Packed


class CropBox(click.ParamType):
    """Four pixel numbers, left,top,right,bottom."""

    name = "L,T,R,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        try:
            left, top, right, bottom = (int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not four pixel numbers such as 25,57,153,185", param, ctx)
        return left, top, right, bottom


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


def _report(packed: Packed) -> None:
    size = packed.path.stat().st_size / 2**20
    shape = f"{packed.resolution}x{packed.resolution}, {'gray' if packed.channels == 1 else 'RGB'}"
    click.echo(f"{packed.path}: {packed.count} images, {shape}, {size:.1f} MiB")
    for name, reason in packed.skipped[:10]:
        click.echo(f"  left out: {name}: {reason}")
    if len(packed.skipped) > 10:
        click.echo(f"  and {len(packed.skipped) - 10} more")


_overwrite = click.option("--overwrite", is_flag=True, help="Replace DEST where it exists.")


@click.group()
def data() -> None:
    """Pack images for training, or look at what a data set holds."""


@data.command("folder")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option(
    "--resolution", type=int, help="Pixels a side, a power of two.  [default: the images' own, to 512]"
)
@click.option(
    "--labels", type=click.Path(path_type=Path), help="CSV of classes, with columns such as image,level."
)
@click.option("--no-labels", is_flag=True, help="Pay no heed to dataset.json or labels.csv in SOURCE.")
@click.option(
    "--fit", default="crop", show_default=True, help="crop: the centred square; pad: all of it, on black."
)
@click.option("--crop", type=CropBox(), help="Take this box first, in pixels.")
@click.option("--channels", type=int, help="1 (gray) or 3 (RGB).  [default: as the images are]")
@click.option(
    "--max-bad", type=float, default=0.05, show_default=True, help="Share of images that may be left out."
)
@_overwrite
def pack_folder(
    source: Path,
    dest: Path,
    resolution: int | None,
    labels: Path | None,
    no_labels: bool,
    fit: str,
    crop: tuple[int, int, int, int] | None,
    channels: int | None,
    max_bad: float,
    overwrite: bool,
) -> None:
    """Pack the images in SOURCE, a folder or zip, into DEST, a zip."""
    from infostylegan.data.catalogue import choose_framing, open_files
    from infostylegan.data.packing import pack_files
    from infostylegan.data.sources import find_labels

    files = open_files(source)
    framing = choose_framing(files, resolution, channels, fit, crop)
    found = None if no_labels else find_labels(files, labels)
    _report(
        pack_files(
            files, dest, framing, labels=found, max_bad=max_bad, overwrite=overwrite, progress=Bar("packing")
        )
    )


@data.command("mnist")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--split", default="train", show_default=True, help="train or test.")
@_overwrite
def pack_mnist(source: Path, dest: Path, split: str, overwrite: bool) -> None:
    """Pack SOURCE, a folder with MNIST's files, into DEST, a zip, padded to 32x32."""
    from infostylegan.data.catalogue import open_mnist
    from infostylegan.data.packing import pack_dataset

    dataset = open_mnist(source, None, None, split=split)
    _report(pack_dataset(dataset, dest, overwrite=overwrite, progress=Bar("packing")))


@data.command("fundus")
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--resolution", type=int, default=64, show_default=True, help="Pixels a side.")
@click.option("--count", type=int, default=8192, show_default=True, help="How many images to draw.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which images to draw.")
@_overwrite
def pack_drawn_fundus(dest: Path, resolution: int, count: int, seed: int, overwrite: bool) -> None:
    """Draw retinal photographs, with their factors, into DEST, a zip."""
    from infostylegan.data.drawing import pack_fundus
    from infostylegan.data.packing import Packed

    pack_fundus(dest, resolution, count, seed, overwrite=overwrite, progress=Bar("drawing"))
    _report(Packed(dest, count, resolution, 3))


@data.command("info")
@click.argument("source", metavar="DATA")
@click.option("--resolution", type=int, help="Pixels a side, a power of two.")
@click.option("--fit", default="crop", show_default=True, help="crop or pad.")
@click.option(
    "--max-bad", type=float, default=0.05, show_default=True, help="Share of images that may be left out."
)
def info(source: str, resolution: int | None, fit: str, max_bad: float) -> None:
    """Say what training would see of DATA, a name, folder or zip."""
    import numpy as np

    from infostylegan.data import open_dataset

    dataset = open_dataset(source, resolution=resolution, fit=fit, max_bad=max_bad, progress=Bar("looking"))
    size = dataset.resolution
    click.echo(
        f"{dataset.name}: {len(dataset)} images, {size}x{size}, {'gray' if dataset.channels == 1 else 'RGB'}"
    )
    if dataset.labels is not None:
        counts = np.bincount(dataset.labels)
        names = dataset.label_names or tuple(str(label) for label in range(len(counts)))
        click.echo("  labels: " + ", ".join(f"{name} {count}" for name, count in zip(names, counts)))
    if dataset.factors:
        click.echo("  factors: " + ", ".join(dataset.factors))
    for name, reason in dataset.skipped[:10]:
        click.echo(f"  left out: {name}: {reason}")
    if len(dataset.skipped) > 10:
        click.echo(f"  and {len(dataset.skipped) - 10} more")
    click.echo(f"  digest: {dataset.digest}")
