"""Traversals: one code swept while everything else stands still; what changes is what the code controls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dnnlib.files import atomic_write
from infostylegan.codes import shown_name
from infostylegan.render.grids import labelled_grid

if TYPE_CHECKING:
    from infostylegan.networks.generator import Generator


@torch.no_grad()
def traverse(
    G: Generator,
    code_index: int,
    *,
    samples: int = 8,
    steps: int | None = None,
    seed: int = 0,
    psi: float = 1.0,
    batch: int = 32,
) -> tuple[Tensor, Tensor]:
    """Sweep one code over `samples` images: ([samples * values, C, H, W] on the CPU, the values shown).

    Row by row: a row holds one sample, a column one value of the code. Along a row z, the other codes, the
    label and the noise of every layer are the same. The same seed gives the same samples for every code, so
    that sheets of different codes can be compared.
    """
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(samples, G.noise_dim, generator=draw)
    c = G.codes.sample(samples, generator=draw)
    label = _labels(G, samples, draw)
    values = G.codes[code_index].traversal(steps).to(c)

    k = len(values)
    z = z.repeat_interleave(k, 0)
    c = c.repeat_interleave(k, 0)
    c[:, code_index] = values.repeat(samples)
    label = label.repeat_interleave(k, 0) if label is not None else None

    device = next((p.device for p in G.parameters()), torch.device("cpu"))
    training = G.training
    G.eval()
    try:
        images = []
        for i in range(0, len(z), batch):
            part = slice(i, i + batch)
            at = label[part].to(device) if label is not None else None
            out = G(z[part].to(device), c[part].to(device), label=at, psi=psi, noise="const")
            images.append(out.float().cpu())
    finally:
        G.train(training)
    return torch.cat(images), values


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
            column_labels=_value_labels(values),
            title=shown_name(code.name, names),
        )
        path = out_dir / f"traverse-{re.sub(r'[^A-Za-z0-9_.-]+', '_', code.name)}.png"
        with atomic_write(path) as file:
            sheet.save(file, format="png")
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


def _value_labels(values: Tensor) -> list[str]:
    """`0 1 2` for categories, `-1.00 … +1.00` for continuous codes."""
    numbers = [float(v) for v in values]
    if all(v == int(v) and v >= 0 for v in numbers):
        return [str(int(v)) for v in numbers]
    return [f"{v:+.2f}" if round(v, 2) else "0.00" for v in numbers]
