"""`python -m infostylegan atlas`: what each code does, measured and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from infostylegan.commands.common import open_networks, snapshot_argument


@click.command()
@snapshot_argument
@click.option("--data", help="A data set, whose labels and attributes are looked for too.")
@click.option(
    "--samples", type=click.IntRange(32), help="Images to measure on.  [default: 512; 128 above 128 pixels]"
)
@click.option("--rows", type=click.IntRange(1, 16), default=6, show_default=True, help="Samples in a sweep.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which samples.")
@click.option("--outdir", type=click.Path(path_type=Path), default=Path("atlas"), show_default=True)
def atlas(snapshot: Path, data: str | None, samples: int | None, rows: int, seed: int, outdir: Path) -> None:
    """Draw a page for each code of SNAPSHOT, and an overview of all: information, where and how much it acts,
    and what it goes with."""
    from dnnlib.cli import Failure
    from dnnlib.files import atomic_write
    from infostylegan.render.atlas import atlas_record, survey
    from infostylegan.render.atlas_pages import overview, page
    from infostylegan.render.grids import save_png

    G, D, names, content = open_networks(snapshot)
    if not len(G.codes):
        raise Failure(f"{snapshot}: its generator has no codes to draw an atlas of")
    probes = {}
    if data is not None:
        if D is None:
            raise Failure(f"{snapshot}: holds no discriminator to read the attributes of --data with")
        probes = _probes(D, data, content, G)
    outdir.mkdir(parents=True, exist_ok=True)  # before the work that would be lost
    resolution = int(G.grown_resolution)
    bar = _Bar("measuring")
    found = survey(
        G, D, samples=samples or (512 if resolution <= 128 else 128), rows=rows, probes=probes, seed=seed,
        batch=16 if resolution <= 128 else 4, progress=bar,
    )  # fmt: skip
    for entry in found.entries:
        save_png(page(entry, found, names), outdir / f"{entry.code.name}.png")
    title = f"What the codes of {snapshot.name} do"
    save_png(overview(found, names, title), outdir / "overview.png")
    record = {"snapshot": snapshot.name, "data": data, "seed": seed, **atlas_record(found, names)}
    with atomic_write(outdir / "atlas.json", "w") as file:
        file.write(json.dumps(record, indent=2) + "\n")
    _tell(found, names, snapshot, outdir)


def _probes(D: Any, data: str, content: dict[str, Any], G: Any) -> dict[str, Any]:
    from infostylegan.data import DataError, open_dataset
    from infostylegan.render.attributes import fit_probes

    options = content.get("training_options")
    run = options.get("run", {}) if isinstance(options, dict) else {}
    fit = run.get("fit", "crop") if isinstance(run, dict) else "crop"
    dataset = open_dataset(data, resolution=int(G.grown_resolution), channels=G.channels, fit=fit)
    probes = fit_probes(D, dataset, fade=float(G.grown_fade), progress=_Bar("learning attributes"))
    if not probes:
        raise DataError(f"{data}: knows no labels, factors or attributes of its images; leave --data out")
    return probes


class _Bar:
    """Progress on the terminal; silent where there is none."""

    def __init__(self, what: str) -> None:
        self.what, self.bar = what, None

    def __call__(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(total=total, desc=self.what, disable=None, leave=False)
        assert self.bar is not None
        self.bar.update(done - self.bar.n if not self.bar.disable else 0)
        if done >= total:
            self.bar.close()


def _tell(found: Any, names: dict[str, str], snapshot: Path, outdir: Path) -> None:
    from infostylegan.codes import shown_name
    from infostylegan.render.atlas_pages import information_text, suggestion_text

    width = max(len(shown_name(entry.code.name, names)) for entry in found.entries) + 2
    for entry in found.entries:
        shown = shown_name(entry.code.name, names)
        click.echo(f"{shown:<{width}}{information_text(entry)}; {suggestion_text(entry)}")
    if found.read:
        listed = ", ".join(f"{name} {quality:.2f}" for name, quality in found.read)
        click.echo(f"attributes read through D, with their rank correlation on held-out images: {listed}")
    if found.unread:
        listed = ", ".join(f"{name} {quality:.2f}" for name, quality in found.unread)
        click.echo(f"attributes that D's features do not tell: {listed}")
    unnamed = [e for e in found.entries if e.suggestion is not None and e.code.name not in names]
    for entry in unnamed[:1]:
        command = f'name {snapshot} {entry.code.name} "{entry.suggestion.name}"'
        click.echo(f"to name a code: python -m infostylegan {command}")
    click.echo(f"{outdir / 'overview.png'}, a page for each code beside it, and the numbers in atlas.json")
