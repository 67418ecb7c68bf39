"""`data dsprites`, `data shapes3d`, `data color-mnist`: sets whose images are made from known factors."""

from __future__ import annotations

from pathlib import Path

import click

from infostylegan.commands.data.shared import Bar, overwrite_option, report
from infostylegan.data.errors import DataError


@click.command("dsprites")
@click.argument("paths", metavar="[SOURCE] DEST", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--regenerate", is_flag=True, help="Draw the frames from their parametrisation; no SOURCE.")
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    metavar="NPZ",
    help="Hold frames drawn anew against originals: an npz with imgs and latents_classes.",
)
@overwrite_option
def pack_dsprites(paths: tuple[Path, ...], regenerate: bool, check: Path | None, overwrite: bool) -> None:
    """Pack SOURCE, dSprites' official .npz (or the folder it lies in), into DEST, a zip.

    With --regenerate, the 737,280 frames are drawn, and there is no SOURCE.
    """
    from infostylegan.data import dsprites
    from infostylegan.data.loading import Dataset
    from infostylegan.data.packing import pack_dataset

    if len(paths) != (1 if regenerate else 2):
        wanted = "--regenerate DEST.zip" if regenerate else "SOURCE.npz DEST.zip, or --regenerate DEST.zip"
        raise click.UsageError(f"give {wanted}")
    if check is not None:
        for shape, wrong in dsprites.compare(*dsprites.read_originals(check)).items():
            click.echo(f"  {shape}: {wrong:.2f} wrong pixels a frame")
    if regenerate:
        dataset: Dataset = dsprites.Regenerated()
    else:
        source = paths[0] / dsprites.NPZ if paths[0].is_dir() else paths[0]
        if not source.is_file():
            raise DataError(f"{source}: no such file; download it, or use --regenerate")
        dataset = dsprites.read_npz(source)
    report(pack_dataset(dataset, paths[-1], overwrite=overwrite, progress=Bar("packing")))


@click.command("shapes3d")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@overwrite_option
def pack_shapes3d(source: Path, dest: Path, overwrite: bool) -> None:
    """Pack SOURCE, 3D Shapes' official 3dshapes.h5 (or the folder it lies in), into DEST, a zip."""
    from infostylegan.data.packing import pack_dataset
    from infostylegan.data.shapes3d import FILE, Shapes3d

    source = source / FILE if source.is_dir() else source
    if not source.is_file():
        raise DataError(f"{source}: no such file")
    dataset = Shapes3d(source, progress=Bar("reading"))
    report(pack_dataset(dataset, dest, overwrite=overwrite, progress=Bar("packing")))


@click.command("color-mnist")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--split", default="train", show_default=True, help="train or test.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which colours.")
@overwrite_option
def pack_color_mnist(source: Path, dest: Path, split: str, seed: int, overwrite: bool) -> None:
    """Colour MNIST's digits, from SOURCE, the folder with its files, into DEST, a zip.

    Digit, foreground and background are the factors, independent of each other.
    """
    from infostylegan.data.catalogue import open_color_mnist
    from infostylegan.data.packing import pack_dataset

    dataset = open_color_mnist(source, split=split, seed=seed)
    report(pack_dataset(dataset, dest, overwrite=overwrite, progress=Bar("packing")))
