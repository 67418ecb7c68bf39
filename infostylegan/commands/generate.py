"""`python -m infostylegan generate`: images of chosen seeds and codes."""

from __future__ import annotations

from pathlib import Path

import click

from infostylegan.commands.common import image_options, open_generator, refusals, snapshot_argument

ON_SHEET = 400  # more would be too small to see
CELL = 256


@click.command()
@snapshot_argument
@click.option("--seeds", default="0-15", show_default=True, help="Which images, such as 0-99,105.")
@click.option("--codes", default="", metavar="SETTINGS", help="Codes to set, such as cat0=2,unif3=0.5.")
@image_options
@click.option(
    "--noise", type=click.Choice(["const", "random"]), default="const", show_default=True,
    help="const: a seed always gives the same image; random: fine texture differs each time.",
)  # fmt: skip
@click.option("--outdir", type=click.Path(path_type=Path), default=Path("generated"), show_default=True)
@click.option("--sheet/--no-sheet", default=True, help="Also write sheet.png, the images on one page.")
def generate(
    snapshot: Path, seeds: str, codes: str, psi: float, truncation: str, label: int | None, batch: int,
    noise: str, outdir: Path, sheet: bool,
) -> None:  # fmt: skip
    """Write a PNG for each seed, and a sheet of all, from SNAPSHOT.

    A seed is one z' with codes (and a label) of its own; --codes overrules the codes. The same seed gives the
    same image in any company.
    """
    import math

    import numpy as np
    from PIL import Image
    from tqdm import tqdm

    from infostylegan.render.grids import labelled_grid, save_png, to_uint8
    from infostylegan.render.latents import parse_seeds, parse_settings, render, seeded_latents

    G, names = open_generator(snapshot, psi)
    with refusals():
        numbers = parse_seeds(seeds)
        settings = parse_settings(codes, G.codes, names)
        z, c, y = seeded_latents(G, numbers, label)
    for name, value in settings.items():
        c[:, G.codes.names.index(name)] = float(value)
    outdir.mkdir(parents=True, exist_ok=True)
    digits = max(4, len(str(max(numbers))))
    batches = render(G, z, c, y, psi=psi, truncation=truncation, noise=noise, batch=batch)
    images = (image for images in batches for image in to_uint8(images))
    cells = []
    for i, image in enumerate(tqdm(images, total=len(numbers), unit="img", disable=None, leave=False)):
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        about = {"snapshot": snapshot.name, "seed": numbers[i], "psi": psi, "truncation": truncation}
        about |= {"codes": dict(zip(G.codes.names, c[i].tolist())), "label": None if y is None else int(y[i])}
        save_png(picture, outdir / f"seed{numbers[i]:0{digits}d}.png", about)
        if sheet and i < ON_SHEET:
            if picture.width > CELL:
                picture = picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
            cells.append(np.asarray(picture).reshape(*picture.size, -1))
    click.echo(f"{outdir}: {len(numbers)} images, {image.shape[1]}x{image.shape[0]}")
    if sheet:
        columns = min(len(cells), max(4, math.ceil(math.sqrt(1.6 * len(cells)))))
        rows = [f"seed {numbers[i]}" for i in range(0, len(cells), columns)]
        save_png(labelled_grid(np.stack(cells), columns, row_labels=rows), outdir / "sheet.png")
        some = f", the first {ON_SHEET}" if len(numbers) > ON_SHEET else ""
        click.echo(f"{outdir / 'sheet.png'}: all on one page{some}")
