"""`python -m infostylegan report`: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", help="The data of the run, for its sheet: name, zip or folder.")
@click.option(
    "--study",
    "studies",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An ACM study to add.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The file to write.  [default: RUN/report.html]")
def report(run: Path, data: str | None, studies: tuple[Path, ...], out: Path | None) -> None:
    """Tell of the run folder RUN in one HTML file: settings, data, curves, images, codes, metrics.

    It opens offline, prints, and asks for nothing. A run that is not finished is told of as far as it came.
    """
    from dnnlib.log import format_bytes
    from infostylegan.data import open_dataset
    from infostylegan.report import write_report
    from infostylegan.report.gather import gather

    path = out or run / "report.html"
    options = gather(run).options if data is not None else {}
    dataset = None
    if data is not None:
        size, channels = options.get("resolution"), options.get("channels")
        dataset = open_dataset(
            data, resolution=size if isinstance(size, int) else None,
            channels=channels if isinstance(channels, int) else None,
        )  # fmt: skip
    found = write_report(run, path, dataset=dataset, studies=studies)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{path}: {format_bytes(path.stat().st_size)}")
