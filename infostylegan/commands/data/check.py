"""`data inspect` and `data verify`: what a data set holds, and whether it is sound."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dnnlib.cli import printable
from infostylegan.commands.data.shared import Bar, max_bad_option, report_skipped

_SHOWN = 20


@click.command("inspect")
@click.argument("source", metavar="DATA")
@click.option("--sheet", type=click.Path(path_type=Path), help="Its place.  [default: NAME.inspect.png]")
@click.option("--resolution", type=int, help="Pixels a side, of a set that is not packed.")
@max_bad_option
def inspect(source: str, sheet: Path | None, resolution: int | None, max_bad: float) -> None:
    """Look through DATA, a name, folder or zip: tables, duplicates, and a sheet of pictures."""
    from infostylegan.data import open_dataset
    from infostylegan.data.inspection import inspect_dataset, read_about, sheet_cells
    from infostylegan.data.packed import PackedDataset
    from infostylegan.render.grids import labelled_grid, save_png

    dataset = open_dataset(source, resolution=resolution, max_bad=max_bad, progress=Bar("reading"))
    path = Path(source)
    about = read_about(dataset.beside("about.json"), path) if isinstance(dataset, PackedDataset) else {}
    seen = inspect_dataset(dataset, about, Bar("looking"))

    size = f"{seen.resolution}x{seen.resolution}, {'gray' if seen.channels == 1 else 'RGB'}"
    click.echo(f"{seen.name}: {seen.count} images, {size}")
    if seen.lower:
        click.echo("  also at " + ", ".join(f"{r}x{r}" for r in seen.lower))
    if "prepared" in seen.about:
        options = ", ".join(f"{key} {value}" for key, value in seen.about["prepared"].items())
        click.echo(f"  {printable(str(seen.about.get('dataset')))}, prepared with {printable(options)}")
    if dataset.labels is not None:
        click.echo("  labels:")
        for group in seen.groups:  # of the classes that occur
            number = int(dataset.labels[group.indices[0]])
            share = 100 * len(group.indices) / seen.count
            click.echo(f"    {number}  {printable(group.name):<20} {len(group.indices):>8}  {share:5.1f}%")
    for kind, table in seen.tables.items():
        click.echo(f"  {kind}:")
        for name, words in table.items():
            click.echo(f"    {printable(name):<24} {printable(words)}")
    if seen.patients:
        most = max(seen.patients.values())
        each = seen.count / len(seen.patients)
        click.echo(f"  patients: {len(seen.patients)}, with {each:.2f} images each, at most {most}")
    low, middle, high = seen.brightness
    click.echo(f"  brightness: median {middle:.0f}, and {low:.0f} to {high:.0f} for nine images in ten")
    doubled = sum(len(same) - 1 for same in seen.duplicates)
    across = f", {seen.across} of them across patients" if seen.across else ""
    click.echo(f"  duplicates: {doubled} images repeat another, in {len(seen.duplicates)} groups{across}"
               if doubled else "  duplicates: none")  # fmt: skip
    for same in seen.duplicates[:5]:
        click.echo(f"    images {', '.join(map(str, same[:8]))}{' ...' if len(same) > 8 else ''}")
    report_skipped(dataset.skipped)
    click.echo(f"  digest: {seen.digest}")
    click.echo(f"  licence: {seen.licence}")
    cells, columns, rows = sheet_cells(dataset, seen)
    sheet = sheet or Path(f"{path.with_suffix('') if path.exists() else path.name}.inspect.png")
    title = f"{seen.name}: {seen.count} images, {size}"
    save_png(labelled_grid(cells, len(columns), row_labels=rows, column_labels=columns, title=title), sheet)
    click.echo(f"  sheet: {sheet}")


@click.command("verify")
@click.argument("source", metavar="DATA", type=click.Path(path_type=Path))
def verify(source: Path) -> None:
    """Decode everything in DATA, a zip or folder; a zip packed here is held against its digests as well.

    The exit code is 1 where anything is wrong.
    """
    from infostylegan.data.catalogue import choose_framing, open_files
    from infostylegan.data.images import BadImage, decode
    from infostylegan.data.loading import parallel, read
    from infostylegan.data.packed import read_contents, verify_packed
    from infostylegan.data.sources import ZipFiles, find_labels

    files = open_files(source)
    bar = Bar("verifying")
    if isinstance(files, ZipFiles) and read_contents(files) is not None:
        wrong = verify_packed(files, bar)
        against = "decoded and held against their digests, as are labels and lower resolutions"
    else:
        find_labels(files)
        framing = choose_framing(files)

        def look(index: int) -> str | None:
            try:
                decode(read(files, index), framing)
            except BadImage as error:
                return str(error)
            return None

        wrong = []
        for index, problem in enumerate(parallel(look, range(len(files.names)))):
            if problem is not None:
                wrong.append((files.names[index], problem))
            bar(index + 1, len(files.names))
        against = (
            f"decoded at {framing.resolution}x{framing.resolution}; there are no digests to hold them against"
        )
    for name, problem in wrong[:_SHOWN]:
        click.echo(f"  {printable(name)}: {printable(problem)}", err=True)
    if len(wrong) > _SHOWN:
        click.echo(f"  and {len(wrong) - _SHOWN} more", err=True)
    if wrong:
        click.echo(
            f"{source}: {len(wrong)} of its parts are not sound; copy, download or pack it again", err=True
        )
        sys.exit(1)
    click.echo(f"{source}: sound; {len(files.names)} images {against}")
