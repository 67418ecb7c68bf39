"""`python -m infostylegan project`: a photograph in the terms of a generator, and its codes changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infostylegan.commands.common import SnapshotPath, open_networks, refusals
from infostylegan.commands.data.pack import CropBox

if TYPE_CHECKING:
    from torch import Tensor

    from infostylegan.networks import Generator
    from infostylegan.projection import Projection

FILM_FRAMES = 75
FILM_SIDE = 384  # pixels of a tile of the film, at most


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("snapshot", type=SnapshotPath())
@click.option(
    "--set", "edits", multiple=True, metavar="SETTINGS",
    help="Codes to change afterwards, as in unif3=0.8,cat0=1; each --set is a picture of the strip.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(2), default=400, show_default=True, help="Steps of Adam.")
@click.option("--label", type=int, help="Class, for a generator trained with labels.  [default: found]")
@click.option(
    "--features", type=click.Choice(["trunk", "pixels"]), default="trunk", show_default=True,
    help="What must be alike beside the pixels: features of the discriminator's trunk, or nothing.",
)  # fmt: skip
@click.option("--fit", type=click.Choice(["crop", "pad"]), default="crop", show_default=True)
@click.option("--crop", type=CropBox(), help="Take this box of the photograph first, in pixels.")
@click.option("--sweep/--no-sweep", default=True, show_default=True, help="A sheet of every code's values.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the starts that are tried.")
@click.option("--outdir", type=click.Path(path_type=Path), help="[default: projection-NAME]")
def project(
    image: Path, snapshot: Path, edits: tuple[str, ...], steps: int, label: int | None, features: str,
    fit: str, crop: tuple[int, int, int, int] | None, sweep: bool, seed: int, outdir: Path | None,
) -> None:  # fmt: skip
    """Find the latents with which the generator of SNAPSHOT reproduces IMAGE, and change its codes.

    IMAGE may be latents.npz of an earlier projection: then nothing is optimised, and codes alone are changed.
    """
    import torch

    from infostylegan import projection as method
    from infostylegan.render.grids import labelled_grid, save_png
    from infostylegan.render.latents import check_label, parse_settings

    G, D, names, _ = open_networks(snapshot)
    with refusals():
        changes = [parse_settings(text, G.codes, names) for text in edits]
    folder = outdir or Path(f"projection-{image.stem}")
    if image.suffix.lower() == ".npz":
        with refusals():
            found = method.load_projection(image, G)
        folder.mkdir(parents=True, exist_ok=True)
        photograph, labels = found.image, ["as projected"]
        shown = [found.image]
    else:
        photograph = read_photograph(image, G, fit, crop)
        with refusals():
            check_label(G, label)
        folder.mkdir(parents=True, exist_ok=True)  # before the work that would be lost
        film = _Film(photograph, steps)
        with refusals():
            found = method.project(
                G, D, photograph, label=label, steps=steps, perceptual=features == "trunk", seed=seed,
                progress=film,
            )  # fmt: skip
        film.bar.close()
        note = {"photograph": image.name, "snapshot": snapshot.name, "steps": steps, "features": features,
                "seed": seed, "fit": fit, "code_names": names}  # fmt: skip
        method.save_projection(folder / "latents.npz", G, found, **note)
        film.save(folder / "optimisation.webp")
        shown, labels = [photograph, found.image], ["photograph", f"projected, {found.psnr:.1f} dB"]
    for number, change in enumerate(changes):
        values = {code: float(value) for code, value in change.items()}
        edited = method.change_codes(G, found, values)
        shown.append(edited.image)
        told = ", ".join(_setting(code, value, names) for code, value in values.items())
        plain = ", ".join(_setting(code, value, {}) for code, value in values.items())
        labels.append(told if len(told) <= 20 else plain)  # a long one would be cut short, its value lost
        save_png(_enlarged(edited.image), folder / f"edit{number}.png")
    save_png(_enlarged(found.image), folder / "projection.png")
    strip = labelled_grid(torch.cat(shown), len(shown), column_labels=labels, min_cell=288)
    save_png(strip, folder / "strip.png")
    if sweep and len(G.codes):
        save_png(sweep_sheet(G, found, names), folder / "codes.png")
    _tell(folder, G, found, names, image.suffix.lower() != ".npz")


def read_photograph(path: Path, G: Generator, fit: str, crop: tuple[int, int, int, int] | None) -> Tensor:
    """The photograph as the generator would make it: [1, C, R, R] in [-1, 1]. Raises Failure."""
    import torch

    from dnnlib.cli import Failure
    from infostylegan.data.images import BadImage, Framing, decode

    framing = Framing(int(G.grown_resolution), G.channels, fit, crop)
    try:
        pixels = decode(path.read_bytes(), framing)
    except FileNotFoundError:
        raise Failure(f"{path}: no such file") from None
    except BadImage as error:
        raise Failure(f"{path}: {error}") from error
    return torch.from_numpy(pixels.copy())[None].float() / 127.5 - 1.0


class _Film:
    """The progress bar, and pictures of the way: the photograph beside what is made of it so far."""

    def __init__(self, photograph: Tensor, steps: int) -> None:
        from tqdm import tqdm

        self.photograph, self.every = photograph, max(1, steps // FILM_FRAMES)
        self.frames: list[Any] = []
        self.bar = tqdm(total=steps, desc="projecting", unit="step", disable=None, leave=False)

    def __call__(self, step: int, steps: int, loss: float, image: Tensor) -> None:
        import torch

        from infostylegan.networks.layers import box_downsample
        from infostylegan.render.grids import image_grid

        self.bar.update(1)
        self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        if step == 1 or step == steps or step % self.every == 0:
            pair = torch.cat([self.photograph, image])
            pair = box_downsample(pair, max(1, pair.shape[-1] // FILM_SIDE))
            self.frames.append(image_grid(pair, 2, min_cell=192).convert("RGB"))

    def save(self, path: Path) -> None:
        import numpy as np

        from infostylegan.render.animation import save_animation

        frames = [np.asarray(frame) for frame in self.frames]
        save_animation(frames + frames[-1:] * 25, path, fps=20)  # the end stands still for a while


def _enlarged(image: Tensor) -> Any:
    """One image; a small one enlarged by a whole factor, without smoothing."""
    from infostylegan.render.grids import image_grid

    return image_grid(image, 1, padding=0, min_cell=256)


def _setting(code: str, value: float, names: dict[str, str]) -> str:
    from infostylegan.codes import shown_name

    number = f"{value:+.2f}" if code.startswith("unif") else f"{value:.0f}"
    return f"{shown_name(code, names)} = {number}"


def sweep_sheet(G: Generator, found: Projection, names: dict[str, str]) -> Any:
    """Every code of the projection through its values, a row each."""
    import torch

    from infostylegan.codes import shown_name
    from infostylegan.networks.layers import box_downsample
    from infostylegan.projection import with_codes
    from infostylegan.render.grids import labelled_grid

    sweeps: Sequence[Tensor] = [code.traversal(5) for code in G.codes]
    columns = max(len(values) for values in sweeps)
    rows, labels = [], []
    for index, (code, values) in enumerate(zip(G.codes, sweeps)):
        c = found.c.repeat(len(values), 1)
        c[:, index] = values
        images = box_downsample(with_codes(G, found, c), max(1, int(G.grown_resolution) // 128))
        blank = torch.ones(columns - len(values), *images.shape[1:])
        rows.append(torch.cat([images, blank]))
        now, whole = float(found.c[0, index]), code.kind != "unif"
        span = f"0 … {len(values) - 1}, found {now:.0f}" if whole else f"-1 … +1, found {now:+.2f}"
        labels.append(f"{shown_name(code.name, names)}: {span}")
    return labelled_grid(torch.cat(rows), columns, row_labels=labels, min_cell=96)


def _tell(folder: Path, G: Generator, found: Projection, names: dict[str, str], fresh: bool) -> None:
    codes = ", ".join(_setting(code, float(v), names) for code, v in zip(G.codes.names, found.c[0]))
    if fresh:
        click.echo(f"{folder / 'latents.npz'}: {found.psnr:.1f} dB" + (f", {codes}" if codes else ""))
        click.echo(f"{folder / 'optimisation.webp'}: how it was found")
    click.echo(f"{folder / 'strip.png'}: before and after")
    if (folder / "codes.png").exists():
        click.echo(f"{folder / 'codes.png'}: what each code does to it")
