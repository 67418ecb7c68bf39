"""Perceptual path length: how fast the image changes along a path through the latent space.

    PPL = E d(G(x(t)), G(x(t + ε))) / ε²,   d the squared distance of the two images' features,

over random ends of the path and random t (Karras et al. 2019, section 4.1, with the features of the extractor
that is named in place of VGG's). The lowest and the highest percent of the samples are left out, as there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dnnlib.seeding import seed_step
from infostylegan.networks import Generator
from metrics.features import Extractor

EPSILON = 1e-3  # features are float32: at the 1e-4 of StyleGAN rounding would be a part of what is measured
CHUNK = 16

# (generator, draw, n, ε, labels) -> the two ends of n steps: w or the joined vector, each [n, D]
Ends = Callable[[Generator, torch.Generator, int, float, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class PathLength:
    value: float
    interval: tuple[float, float]  # 95 %, normal
    n: int


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """From a to b [N, D] along the sphere, at t [N, 1]; vectors need not be of unit length.

    The direction turns by an even angle, and the length goes from one's to the other's.
    """
    length = a.norm(dim=1, keepdim=True).lerp(b.norm(dim=1, keepdim=True), t)
    a, b = torch.nn.functional.normalize(a), torch.nn.functional.normalize(b)
    angle = (a * b).sum(dim=1, keepdim=True).clamp(-1, 1).acos()
    across = torch.nn.functional.normalize(b - a * angle.cos())
    return length * (a * (t * angle).cos() + across * (t * angle).sin())


def in_noise(
    G: Generator, draw: torch.Generator, n: int, eps: float, y: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Steps along great circles of z', the codes standing still."""
    (a, c), (b, _) = G.sample_latents(n, generator=draw), G.sample_latents(n, generator=draw)
    t = torch.rand(n, 1, generator=draw)
    return _mapped(G, slerp(a, b, t), c, slerp(a, b, t + eps), c, y)


def in_w(G: Generator, draw: torch.Generator, n: int, eps: float, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Steps along straight lines of w."""
    (za, ca), (zb, cb) = G.sample_latents(n, generator=draw), G.sample_latents(n, generator=draw)
    a, b = _mapped(G, za, ca, zb, cb, y)
    t = torch.rand(n, 1, generator=draw).to(a.device)
    return a.lerp(b, t), a.lerp(b, t + eps)


def in_code(index: int) -> Ends:
    """Steps along one uniform code between two of its values, all else standing still."""

    def ends(
        G: Generator, draw: torch.Generator, n: int, eps: float, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        z, c = G.sample_latents(n, generator=draw)
        other = G.codes[index].sample(n, draw, "cpu")
        t = torch.rand(n, generator=draw)
        one, two = c.clone(), c.clone()
        one[:, index] = c[:, index].lerp(other, t)
        two[:, index] = c[:, index].lerp(other, t + eps)
        return _mapped(G, z, one, z, two, y)

    return ends


def between_values(index: int) -> Ends:
    """One discrete code jumping from one of its values to another: no path, and no ε."""

    def ends(
        G: Generator, draw: torch.Generator, n: int, eps: float, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        z, c = G.sample_latents(n, generator=draw)
        values = len(G.codes[index].traversal())
        other = c.clone()
        step = torch.randint(1, values, (n,), generator=draw) if values > 2 else torch.ones(n)
        other[:, index] = (c[:, index] + step) % values
        return _mapped(G, z, c, z, other, y)

    return ends


@torch.no_grad()
def path_length(
    G: Generator,
    extractor: Extractor,
    ends: Ends,
    *,
    samples: int,
    seed: int = 0,
    epsilon: float = EPSILON,
    per_step: bool = False,
    device: torch.device | str = "cpu",
    labels: Tensor | None = None,
) -> PathLength:
    """Path length over `samples` steps. `per_step` leaves the division by ε² out, for jumps.

    labels    int64 [M]: those of the data, from which a conditional generator's are drawn
    """
    lengths: list[np.ndarray] = []
    for number, start in enumerate(range(0, samples, CHUNK)):
        n = min(CHUNK, samples - start)
        draw = torch.Generator().manual_seed(seed_step(seed, number, 0, stream=9))
        y = None
        if G.labels and labels is not None:
            y = labels[torch.randint(len(labels), (n,), generator=draw)].to(device)
        a, b = ends(G, draw, n, epsilon, y)
        # One set of noise maps for both ends: what differs is the latent alone.
        images = [G.synthesize(w, noise="const").float() for w in (a, b)]
        one, two = (extractor((x.clamp(-1, 1) + 1) * 127.5).double() for x in images)
        lengths.append((one - two).square().sum(dim=1).cpu().numpy())
    d = np.concatenate(lengths) / (1.0 if per_step else epsilon**2)
    d = d[(d >= np.percentile(d, 1, method="lower")) & (d <= np.percentile(d, 99, method="higher"))]
    mean, half = float(d.mean()), 1.96 * float(d.std(ddof=1)) / np.sqrt(len(d))
    return PathLength(mean, (mean - half, mean + half), samples)


def _mapped(
    G: Generator, za: Tensor, ca: Tensor, zb: Tensor, cb: Tensor, y: Tensor | None
) -> tuple[Tensor, Tensor]:
    device = G.grown_fade.device
    return G.map(za.to(device), ca.to(device), y), G.map(zb.to(device), cb.to(device), y)
