"""`data celeba`: the aligned faces, as they are distributed."""

from __future__ import annotations

from pathlib import Path

import click

from infostylegan.commands.data.shared import Bar, max_bad_option, overwrite_option, report


@click.command("celeba")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--resolution", type=int, default=128, show_default=True, help="Pixels a side, at most 128.")
@click.option(
    "--split", type=click.Choice(["all", "train", "valid", "test"]), default="all", show_default=True,
    help="Which of the official partitions.",
)  # fmt: skip
@click.option("--no-attributes", is_flag=True, help="Do without the attributes and the partition.")
@max_bad_option
@overwrite_option
def pack_celeba(
    source: Path,
    dest: Path,
    resolution: int,
    split: str,
    no_attributes: bool,
    max_bad: float,
    overwrite: bool,
) -> None:
    """Crop CelebA from SOURCE into DEST, a zip.

    SOURCE is img_align_celeba.zip, the folder unpacked from it, or torchvision's folder celeba. The 40
    attributes come along, and are never trained on. Stopped half-way, the same command goes on.
    """
    from infostylegan.data import celeba

    result = celeba.pack_celeba(
        source,
        dest,
        resolution,
        split=split,
        attributes=not no_attributes,
        max_bad=max_bad,
        overwrite=overwrite,
        progress=Bar("cropping"),
        writing=Bar("writing"),
    )
    report(result.packed)
    if split == "all":
        found = result.packed.count + len(result.packed.skipped)
        click.echo(f"  {found} of CelebA's {celeba.COUNT} images are here")
    if result.attributes:
        persons = ", and who it is" if result.persons else ""
        click.echo(f"  {result.attributes} attributes of each{persons}")
    if result.partitions:
        click.echo(
            "  partition: " + ", ".join(f"{name} {count}" for name, count in result.partitions.items())
        )
    if result.foreign:
        click.echo(f"  {result.foreign} images passed over, whose names are not CelebA's")
    click.echo(f"  every image: {result.manifest}")
