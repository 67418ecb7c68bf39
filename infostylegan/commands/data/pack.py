"""`data folder`, `hf-imagefolder`, `mnist`, `fashion-mnist`, `fundus`: a zip from files or from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from infostylegan.commands.data.shared import Bar, max_bad_option, overwrite_option, report


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


@click.command("folder")
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
@max_bad_option
@overwrite_option
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
    from infostylegan.data.annotations import Annotations
    from infostylegan.data.catalogue import choose_framing, open_files
    from infostylegan.data.packing import pack_files
    from infostylegan.data.sources import find_labels

    files = open_files(source)
    framing = choose_framing(files, resolution, channels, fit, crop)
    found = None if no_labels else find_labels(files, labels)
    report(
        pack_files(
            files,
            dest,
            framing,
            Annotations.labelled(found),
            max_bad=max_bad,
            overwrite=overwrite,
            progress=Bar("packing"),
        )
    )


@click.command("mnist")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--split", default="train", show_default=True, help="train or test.")
@overwrite_option
def pack_mnist(source: Path, dest: Path, split: str, overwrite: bool) -> None:
    """Pack SOURCE, a folder with MNIST's files, into DEST, a zip, padded to 32x32."""
    from infostylegan.data.catalogue import open_mnist
    from infostylegan.data.packing import pack_dataset

    dataset = open_mnist(source, None, None, split=split)
    report(pack_dataset(dataset, dest, overwrite=overwrite, progress=Bar("packing")))


@click.command("fashion-mnist")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--split", default="train", show_default=True, help="train or test.")
@overwrite_option
def pack_fashion_mnist(source: Path, dest: Path, split: str, overwrite: bool) -> None:
    """Pack SOURCE, a folder with Fashion-MNIST's files, into DEST, a zip, padded to 32x32."""
    from infostylegan.data.catalogue import open_mnist
    from infostylegan.data.packing import pack_dataset
    from infostylegan.data.sources import FASHION

    dataset = open_mnist(source, None, None, split=split)
    if dataset.labels is not None:  # the files are named as MNIST's are, and their folder may be, too
        dataset.label_names = FASHION
    report(pack_dataset(dataset, dest, overwrite=overwrite, progress=Bar("packing")))


@click.command("hf-imagefolder")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option(
    "--resolution", type=int, help="Pixels a side, a power of two.  [default: the images' own, to 512]"
)
@click.option(
    "--split", help="train, validation or test: the images in a folder of that name.  [default: all]"
)
@click.option("--label-column", help="The column of the class.  [default: label, level, grade, class, ...]")
@click.option(
    "--fit", default="crop", show_default=True, help="crop: the centred square; pad: all of it, on black."
)
@click.option("--channels", type=int, help="1 (gray) or 3 (RGB).  [default: as the images are]")
@max_bad_option
@overwrite_option
def pack_hf_imagefolder(
    source: Path,
    dest: Path,
    resolution: int | None,
    split: str | None,
    label_column: str | None,
    fit: str,
    channels: int | None,
    max_bad: float,
    overwrite: bool,
) -> None:
    """Pack SOURCE, a folder or zip in the layout of Hugging Face datasets, into DEST, a zip.

    metadata.csv or metadata.jsonl gives the class (one column) and the attributes (all others); without
    either, the folders are the classes.
    """
    from infostylegan.data.catalogue import choose_framing, open_files
    from infostylegan.data.imagefolder import read_imagefolder
    from infostylegan.data.packing import pack_files

    files = open_files(source)
    known = read_imagefolder(files, split=split, label=label_column)
    framing = choose_framing(files, resolution, channels, fit)
    packed = pack_files(
        files, dest, framing, known, max_bad=max_bad, overwrite=overwrite, progress=Bar("packing")
    )
    report(packed)


@click.command("fundus")
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--resolution", type=int, default=64, show_default=True, help="Pixels a side.")
@click.option("--count", type=int, default=8192, show_default=True, help="How many images to draw.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which images to draw.")
@overwrite_option
def pack_drawn_fundus(dest: Path, resolution: int, count: int, seed: int, overwrite: bool) -> None:
    """Draw retinal photographs, with their factors, into DEST, a zip."""
    from infostylegan.data.drawing import pack_fundus
    from infostylegan.data.packing import Packed

    pack_fundus(dest, resolution, count, seed, overwrite=overwrite, progress=Bar("drawing"))
    report(Packed(dest, count, resolution, 3))
