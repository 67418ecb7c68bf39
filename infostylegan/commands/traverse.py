"""`python -m infostylegan traverse`: what a code does, as a sheet; or two codes as a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from infostylegan.commands.common import image_options, open_generator, refusals, snapshot_argument


@click.command()
@snapshot_argument
@click.argument("codes", nargs=-1, metavar="[CODE] [CODE]")
@click.option(
    "--seeds", default="0-7", show_default=True, help="Samples: the rows; of two codes, a grid each."
)
@click.option("--set", "held", default="", metavar="SETTINGS", help="Values of other codes, such as cat0=2.")
@click.option(
    "--steps", type=click.IntRange(2, 64), default=8, show_default=True, help="Values of a uniform code."
)
@image_options
@click.option("--outdir", type=click.Path(path_type=Path), default=Path("traversals"), show_default=True)
def traverse(
    snapshot: Path, codes: tuple[str, ...], seeds: str, held: str, steps: int, psi: float, truncation: str,
    label: int | None, batch: int, outdir: Path,
) -> None:  # fmt: skip
    """Sweep one CODE of SNAPSHOT, or all without one, or two as a grid: the first down, the second across."""
    from dnnlib.cli import Failure
    from infostylegan.codes import shown_name
    from infostylegan.render import traversal
    from infostylegan.render.grids import labelled_grid, save_png
    from infostylegan.render.latents import find_code, parse_seeds, parse_settings, seeded_latents

    G, names = open_generator(snapshot, psi)
    if not len(G.codes):
        raise Failure(f"{snapshot}: its generator has no codes to traverse")
    if len(codes) > 2:
        raise Failure(f"{len(codes)} codes: give one to sweep it, two for a grid, or none for all")
    with refusals():
        numbers = parse_seeds(seeds)
        chosen = [find_code(G.codes, code, names) for code in codes]
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"{codes[0]} against itself is no grid: name two codes")
        settings = parse_settings(held, G.codes, names)
        z, c, y = seeded_latents(G, numbers, label)
    for name, value in settings.items():
        c[:, G.codes.names.index(name)] = float(value)
    options: dict[str, Any] = {"steps": steps, "psi": psi, "truncation": truncation, "batch": batch}
    shown = [shown_name(code, names) for code in G.codes.names]
    outdir.mkdir(parents=True, exist_ok=True)
    if len(chosen) < 2:
        for index in chosen or range(len(G.codes)):
            images, values = traversal.traverse(G, index, latents=(z, c, y), **options)
            sheet = labelled_grid(
                images, len(values), title=shown[index], column_labels=traversal.value_labels(values),
                row_labels=[f"seed {number}" for number in numbers],
            )  # fmt: skip
            path = outdir / f"traverse-{G.codes.names[index]}.png"
            save_png(sheet, path)
            click.echo(f"{path}: {shown[index]}")
        return
    rows, columns = chosen
    for i, number in enumerate(numbers):
        one = z[i : i + 1], c[i : i + 1], None if y is None else y[i : i + 1]
        images, down, across = traversal.traverse_pair(G, rows, columns, one, **options)
        sheet = labelled_grid(
            images, len(across), title=f"rows: {shown[rows]}, columns: {shown[columns]}",
            row_labels=traversal.value_labels(down), column_labels=traversal.value_labels(across),
        )  # fmt: skip
        path = outdir / f"traverse-{G.codes.names[rows]}-{G.codes.names[columns]}-seed{number:04d}.png"
        save_png(sheet, path)
        click.echo(f"{path}: {shown[rows]} down, {shown[columns]} across")
