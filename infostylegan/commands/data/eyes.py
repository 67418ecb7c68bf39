"""`data eyepacs`: the photographs of the Kaggle competition, as they are distributed."""

from __future__ import annotations

from pathlib import Path

import click

from dnnlib.cli import printable
from infostylegan.commands.data.shared import Bar, max_bad_option, overwrite_option, report


@click.command("eyepacs")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--resolution", type=int, default=512, show_default=True, help="Pixels a side, a power of two.")
@click.option(
    "--split", type=click.Choice(["train", "test", "all"]), default="test", show_default=True,
    help="Which of the competition's images; the paper trained on test.",
)  # fmt: skip
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A further CSV of grades (may be repeated).",
)
@click.option("--no-labels", is_flag=True, help="Do without grades.")
@click.option(
    "--quality",
    type=click.Path(path_type=Path),
    multiple=True,
    help="EyeQ's CSV of qualities (may be repeated).",
)
@click.option(
    "--accept", type=click.Choice(["good", "usable", "reject"]), default="usable", show_default=True,
    help="The worst quality that is taken, with --quality.",
)  # fmt: skip
@click.option(
    "--graham", is_flag=True, help="Take local colour away and raise the contrast, as B. Graham did."
)
@click.option("--canonical-side", is_flag=True, help="Mirror so that the optic disc lies on the right.")
@click.option(
    "--keep-patients",
    type=click.Path(path_type=Path),
    help="Take only the patients in this file, one a line.",
)
@max_bad_option
@overwrite_option
def pack_eyepacs(
    source: Path,
    dest: Path,
    resolution: int,
    split: str,
    labels: tuple[Path, ...],
    no_labels: bool,
    quality: tuple[Path, ...],
    accept: str,
    graham: bool,
    canonical_side: bool,
    keep_patients: Path | None,
    max_bad: float,
    overwrite: bool,
) -> None:
    """Prepare EyePACS from SOURCE into DEST, a zip.

    SOURCE is the folder with Kaggle's archives (test.zip.001, ... are read as they are), one of the archives,
    or a folder of photographs. Stopped half-way, the same command goes on.
    """
    from infostylegan.data import eyepacs
    from infostylegan.data.retina import Recipe

    result = eyepacs.pack_eyepacs(
        source,
        dest,
        Recipe(resolution, graham, canonical_side),
        eyepacs.Choice(split, labels, quality, accept, keep_patients, not no_labels),
        max_bad=max_bad,
        overwrite=overwrite,
        progress=Bar("preparing"),
        writing=Bar("writing"),
    )
    report(result.packed)
    if split in eyepacs.SPLITS:
        click.echo(
            f"  {result.found} of the {eyepacs.SPLITS[split]} photographs of the split {split} are here"
        )
    for reason, count in sorted(result.left_out.items()):
        click.echo(f"  {count} left out: {printable(reason)}")
    if result.foreign:
        click.echo(f"  {result.foreign} images passed over, whose names are not EyePACS's")
    click.echo(f"  every photograph: {result.manifest}")
