"""`python -m metrics table RUN…`: the paper's tables, with these runs in them."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(context_settings={"show_default": True})
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "style", type=click.Choice(["markdown", "csv"]), default="markdown")
def table(runs: tuple[Path, ...], style: str) -> None:
    """Print the paper's Tables 1, 2 and 3 for the RUN folders given, beside the paper's own figures.

    The numbers are those kept in metric-<name>.jsonl: measure the runs first (python -m metrics
    fid,mig,acm …). Rating studies kept in a run's folder count as well.
    """
    import csv
    import sys

    from metrics.paper import csv_rows, markdown, tables

    found = tables(runs)
    if style == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows(csv_rows(found))
        return
    click.echo("\n\n".join(markdown(part) for part in found))
    click.echo(
        "\nA column with @ after its name holds distances of another network's features, which no published "
        "FID can stand beside."
    )
