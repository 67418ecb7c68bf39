"""What psi leaves of a code: truncation towards the mean of w given the codes, against the global mean.

    python benchmarks/truncation.py runs/00000-fundus32-beta0.15/network-snapshot-000200.pkl --psi 0.7

The effect of a code is the mean absolute change of the pixels when it goes from one end of its range to the
other and all else stands still (the first and the last value of a category); the table gives its share of the
effect at psi = 1. The last row is what truncation is for: the spread of images over z' with the codes held.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor

from infostylegan.codes import shown_name
from infostylegan.export import load_snapshot
from infostylegan.naming import code_names
from infostylegan.networks import Generator
from infostylegan.render.latents import render


def images(G: Generator, z: Tensor, c: Tensor, psi: float, truncation: str) -> Tensor:
    label = torch.arange(len(z)) % G.labels if G.labels else None
    return torch.cat(list(render(G, z, c, label, psi=psi, truncation=truncation, batch=32)))


@click.command()
@click.argument("snapshot", type=click.Path(path_type=Path))
@click.option("--psi", type=float, default=0.7, show_default=True)
@click.option("--samples", type=int, default=256, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(snapshot: Path, psi: float, samples: int, seed: int) -> None:
    """Print a Markdown table."""
    content = load_snapshot(snapshot)
    G, names = content["G_ema"], code_names(content)
    z, c = G.sample_latents(samples, generator=torch.Generator().manual_seed(seed))
    ways = [(1.0, "codes"), (psi, "codes"), (psi, "global")]
    click.echo(
        f"| {samples} samples, psi {psi:g} | towards the mean given the codes | towards the global mean |"
    )
    click.echo("|---|---|---|")
    for i, code in enumerate(G.codes):
        low, high = c.clone(), c.clone()
        low[:, i], high[:, i] = code.traversal(2)[0], code.traversal(2)[-1]
        full, *shares = (
            (images(G, z, low, *way) - images(G, z, high, *way)).abs().mean().item() for way in ways
        )
        told = " | ".join(f"{share / full:.0%}" for share in shares)
        click.echo(f"| {shown_name(code.name, names)} | {told} |")
    held = c[:1].expand(samples, -1)
    full, *shares = (images(G, z, held, *way).std(dim=0).mean().item() for way in ways)
    click.echo(f"| spread over z' | {' | '.join(f'{share / full:.0%}' for share in shares)} |")


if __name__ == "__main__":
    main()
