"""`data info`: what a data set holds."""

from __future__ import annotations

import click

from dnnlib.cli import printable
from infostylegan.commands.data.shared import Bar, max_bad_option, report_skipped


@click.command("info")
@click.argument("source", metavar="DATA")
@click.option("--resolution", type=int, help="Pixels a side, a power of two.")
@click.option("--fit", default="crop", show_default=True, help="crop or pad.")
@max_bad_option
def show_info(source: str, resolution: int | None, fit: str, max_bad: float) -> None:
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
        shown = (f"{printable(name)} {count}" for name, count in zip(names, counts))
        click.echo("  labels: " + ", ".join(shown))
    if dataset.factors:
        click.echo("  factors: " + ", ".join(map(printable, dataset.factors)))
    report_skipped(dataset.skipped)
    click.echo(f"  digest: {dataset.digest}")
