"""Traversals: one code swept while everything else stands still; what changes is what the code controls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from infostylegan.codes import shown_name
from infostylegan.render.grids import labelled_grid, save_png
from infostylegan.render.latents import render

if TYPE_CHECKING:
    from infostylegan.networks.generator import Generator


Latents = tuple[Tensor, Tensor, Tensor | None]  # z', c and the labels, as `seeded_latents` gives them


def traverse(
    G: Generator,
    code_index: int,
    *,
    samples: int = 8,
    steps: int | None = None,
    seed: int = 0,
    latents: Latents | None = None,
    psi: float = 1.0,
    truncation: str = "codes",
    batch: int = 32,
) -> tuple[Tensor, Tensor]:
    """Sweep one code over `samples` images: ([samples * values, C, H, W] on the CPU, the values shown).

    Row by row: a row holds one sample, a column one value of the code. Along a row z, the other codes, the
    label and the noise of every layer are the same. The same seed gives the same samples for every code, so
    that sheets of different codes can be compared. `latents` are the samples, in the place of drawn ones.
    """
    if latents is None:
        draw = torch.Generator().manual_seed(seed)
        z = torch.randn(samples, G.noise_dim, generator=draw)
        c = G.codes.sample(samples, generator=draw)
        latents = z, c, _labels(G, samples, draw)
    values = G.codes[code_index].traversal(steps)
    images = swept(G, latents, {code_index: values}, psi=psi, truncation=truncation, batch=batch)
    return images, values


def traverse_pair(
    G: Generator,
    rows: int,
    columns: int,
    latents: Latents,
    *,
    steps: int | None = None,
    psi: float = 1.0,
    truncation: str = "codes",
    batch: int = 32,
) -> tuple[Tensor, Tensor, Tensor]:
    """Two codes as a grid, all else as in one sample: images [row values * column values, C, H, W] and both
    lists of values. Raises ValueError for twice the same code."""
    if rows == columns:
        raise ValueError(f"{G.codes[rows].name} against itself is no grid: name two codes")
    values = {index: G.codes[index].traversal(steps) for index in (rows, columns)}
    images = swept(G, latents, values, psi=psi, truncation=truncation, batch=batch)
    return images, values[rows], values[columns]


def swept(G: Generator, latents: Latents, values: Mapping[int, Tensor], **options: Any) -> Tensor:
    """Images of each sample with every combination of `values` of the codes at these indices, the last the
    fastest; `options` as for `render`."""
    z, c, label = latents
    grid = torch.cartesian_prod(*values.values()).view(-1, len(values))
    k = len(grid)
    z, c = z.repeat_interleave(k, 0), c.repeat_interleave(k, 0)
    label = label.repeat_interleave(k, 0) if label is not None else None
    for column, index in enumerate(values):
        c[:, index] = grid[:, column].repeat(len(c) // k)
    return torch.cat(list(render(G, z, c, label, **options)))


def save_traversals(
    G: Generator,
    out_dir: str | Path,
    names: Mapping[str, str] | Sequence[str] | None = None,
    **options: Any,
) -> list[Path]:
    """Write `traverse-<code>.png` for every code; the paths, in the order of the codes.

    names     what people call the codes: by code name, or in the order of the codes; empty means unnamed
    options   as for `traverse`
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    if names is not None and not isinstance(names, Mapping):
        names = dict(zip((code.name for code in G.codes), names))
    for index, code in enumerate(G.codes):
        images, values = traverse(G, index, **options)
        sheet = labelled_grid(
            images,
            len(values),
            column_labels=value_labels(values),
            title=shown_name(code.name, names),
        )
        path = out_dir / f"traverse-{re.sub(r'[^A-Za-z0-9_.-]+', '_', code.name)}.png"
        save_png(sheet, path)
        paths.append(path)
    return paths


def effect_map(images: Tensor, samples: int) -> Tensor:
    """Where a code acts: [H, W], the mean absolute change of each pixel along the sweep.

    Change is measured from the mean of each row and not from neighbour to neighbour, because the order of
    categories means nothing. `images` and `samples` as in `traverse`.
    """
    rows = images.float().unflatten(0, (samples, -1))
    return (rows - rows.mean(dim=1, keepdim=True)).abs().mean(dim=(0, 1, 2))


def _labels(G: Generator, samples: int, draw: torch.Generator) -> Tensor | None:
    if not G.labels:
        return None
    return torch.randint(G.labels, (samples,), generator=draw)


def value_labels(values: Tensor) -> list[str]:
    """`0 1 2` for categories, `-1.00 … +1.00` for continuous codes."""
    numbers = [float(v) for v in values]
    if all(v == int(v) and v >= 0 for v in numbers):
        return [str(int(v)) for v in numbers]
    return [f"{v:+.2f}" if round(v, 2) else "0.00" for v in numbers]
