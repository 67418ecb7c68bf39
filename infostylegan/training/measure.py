"""What training measures of itself: information per code, and whether the noise z' is still alive."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dnnlib.seeding import seed_step
from infostylegan.losses import information
from infostylegan.networks import Discriminator, Generator

# Codes may rightly explain most of the variance; below this z' has all but lost its say.
SPREAD_WARNING = 0.3


@dataclass(frozen=True)
class Spread:
    """How varied the fakes are, against the data: roots of the mean per-pixel variance, as ratios.

    `within` is taken at fixed codes, over z' alone. Information at its ceiling with `within` near 0 means
    that each value of the codes has become one picture. `overall` is over codes and z'.
    """

    within: float
    overall: float


@torch.no_grad()
def measure_spread(G: Generator, real: Tensor, label: Tensor | None, *, codes: int, noises: int) -> Spread:
    """Spread of `codes` × `noises` fakes against real images [M, C, R, R] of the same resolution."""
    n = codes * noises
    draw = torch.Generator().manual_seed(seed_step(0, 0, 0, stream=1))
    z, c = G.sample_latents(n, generator=draw)
    # Codes and label stay fixed within a group; each group holds `noises` draws of z'.
    groups = torch.arange(codes).repeat_interleave(noises)
    y = None if label is None else label[groups % len(label)].to(real.device)
    z, c = z.to(real.device), c[groups].to(real.device)
    fakes = torch.cat(
        [
            G(
                z[i : i + 64],
                c[i : i + 64],
                None if y is None else y[i : i + 64],
                resolution=real.shape[-1],
                noise="const",
            )
            for i in range(0, n, 64)
        ]
    )
    reference = real.var(dim=0, correction=0).mean().sqrt().clamp(min=1e-8)
    # The sample variance (correction 1) of so few draws, so that it does not shrink with `noises`.
    within = fakes.unflatten(0, (codes, noises)).var(dim=1, correction=1).mean().sqrt()
    overall = fakes.var(dim=0, correction=0).mean().sqrt()
    return Spread(float(within / reference), float(overall / reference))


@torch.no_grad()
def measure_information(
    G: Generator, D: Discriminator, *, samples: int, batch: int, seed: int, device: torch.device
) -> dict[str, float]:
    """L_info of each code in nats on fresh samples of G, read by D's own Q without views."""
    draw = torch.Generator().manual_seed(seed_step(seed, 0, 0, stream=2))
    total = torch.zeros(len(G.codes), device=device)
    for start in range(0, samples, batch):
        n = min(batch, samples - start)
        z, c = (t.to(device) for t in G.sample_latents(n, generator=draw))
        y = torch.randint(G.labels, (n,), generator=draw).to(device) if G.labels else None
        posterior = D.posterior(G(z, c, y), fade=float(G.grown_fade))
        total += information(G.codes, posterior, c).sum(dim=0)
    return dict(zip(G.codes.names, (total / samples).tolist()))
