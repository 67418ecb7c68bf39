"""Projection: the z', c, w and noise maps with which a generator reproduces a given image.

Two phases of Adam (Kingma & Ba 2015), as in the projection of StyleGAN2 (Karras et al. 2020, appendix D),
with what codes add to it:

1. z' and the uniform codes, from the best of many starts. The codes start from Q's reading of the image:
   discrete codes are drawn from Q and stay what they were drawn as, uniform codes begin at Q's mean.
2. w = map(z', c) + delta, with a delta for each layer, and the noise maps, kept white. The smaller delta
   is, the more of the image is explained by z' and c, so that it is charged for.

A code is changed afterwards by moving w along the difference that the mapping network makes between both
values, w + map(z', c_new) - map(z', c_old): delta and noise maps, which hold what z' and c cannot say of the
image, stay where they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnnlib.errors import UserError
from dnnlib.files import atomic_write
from infostylegan.codes import CodeError, CodeSpec, Uniform
from infostylegan.networks import Discriminator, Generator
from infostylegan.networks.layers import box_downsample, pixel_norm
from infostylegan.networks.synthesis import StyledBlock

Progress = Callable[[int, int, float, Tensor], None]  # step, steps, loss, image [1, C, R, R]
Features = Callable[[Tensor], Sequence[Tensor]]  # images [N, C, R, R] in [-1, 1] -> maps [N, C', H', W']

FIRST_PHASE = 0.4  # share of the steps
CHAINS = 4  # starts that are followed through the first phase
RATES = {
    "z": 0.1,
    "c": 0.05,
    "delta": 0.05,
    "noise": 0.05,
}  # Adam's steps; of delta in units of w's deviation
PIXELS, DELTA, WHITE, READING = 4.0, 0.01, 0.1, 0.002  # weights of the loss beside the features' 1


class ProjectionError(UserError, ValueError):
    """Latents that do not fit the generator, or cannot be read; the message says which."""


@dataclass(frozen=True)
class Projection:
    """An image in the terms of a generator. Everything on the CPU; no gradients."""

    z: Tensor  # [1, noise_dim]
    c: Tensor  # [1, codes]: values
    w: Tensor  # [1, layers, latent_dim]; of a direct generator the joined vector [1, width]
    noise: tuple[Tensor, ...]  # [1, 1, size, size], one a styled layer; none in a direct generator
    image: Tensor  # [1, C, R, R]: what these make
    loss: float  # of `image` against the photograph
    label: Tensor | None = None  # [1]
    psnr: float = math.nan  # of `image` against the photograph, dB


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1], both clamped to it."""
    error = (a.clamp(-1, 1) - b.clamp(-1, 1)).double().square().mean()
    return float(10.0 * torch.log10(4.0 / error.clamp(min=1e-12)))


# ---- losses --------------------------------------------------------------------------------------------


def trunk_features(D: Discriminator, fade: float = 1.0) -> Features:
    """The features of the discriminator's trunk after each of its layers, as a perceptual extractor."""

    def features(image: Tensor) -> Sequence[Tensor]:
        kept: list[Tensor] = []
        D.trunk(image, fade, kept)
        return kept

    return features


def feature_distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of features brought to unit length at each pixel, averaged over layers, [N]."""
    terms = [(pixel_norm(a) - pixel_norm(b)).square().mean(dim=(1, 2, 3)) for a, b in zip(one, other)]
    return torch.stack(terms).mean(dim=0)


def pixel_distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference at each size of the pyramid down to 8 pixels, averaged over sizes, [N]."""
    difference, terms = one - other, []
    while True:
        terms.append(difference.square().mean(dim=(1, 2, 3)))
        if difference.shape[-1] <= 8:
            return torch.stack(terms).mean(dim=0)
        difference = box_downsample(difference)


def whiteness(noise: Sequence[Tensor]) -> Tensor:
    """Squared correlation of neighbours in noise maps at every scale: 0 of white noise (Karras et al. 2020).

    Without it the picture itself would be drawn into the noise.
    """
    total = torch.zeros((), device=noise[0].device)
    for x in noise:
        while x.shape[-1] >= 8:
            total = total + sum((x * x.roll(1, dim)).mean().square() for dim in (2, 3))
            x = box_downsample(x) * 2.0  # twice the mean of four has the variance of one
    return total


@dataclass(frozen=True)
class _Target:
    """The photograph, and how far images are from it."""

    image: Tensor  # [1, C, R, R]
    features: Features | None
    wanted: Sequence[Tensor]
    reading: Callable[[Tensor], Tensor]  # codes [N, k] -> how unlikely Q finds them, [N]

    def distance(self, images: Tensor) -> Tensor:
        """[N]."""
        loss = PIXELS * pixel_distance(images, self.image)
        if self.features is not None:
            loss = loss + feature_distance(self.features(images), self.wanted)
        return loss


# ---- the generator, opened up --------------------------------------------------------------------------


@contextlib.contextmanager
def _standing(*networks: torch.nn.Module | None) -> Iterator[None]:
    """Eval mode, and back to how it was. What is in eval mode already keeps its kernels."""
    trained = [network for network in networks if network is not None and network.training]
    for network in trained:
        network.eval()
    try:
        yield
    finally:
        for network in trained:
            network.train()


def _latent(G: Generator, z: Tensor, c: Tensor, label: Tensor | None) -> Tensor:
    """What the synthesis network reads: [N, layers, latent_dim], or the joined vector [N, width]."""
    w = G.map(z, c, label)
    return w if G.mapping is None else w.unsqueeze(1).repeat(1, G.synthesis.num_layers, 1)


def _synthesize(G: Generator, latent: Tensor, noise: Sequence[Tensor]) -> Tensor:
    maps: str | Sequence[Tensor] = noise if len(noise) else "const"
    return G.synthesis(latent, resolution=int(G.grown_resolution), fade=float(G.grown_fade), noise=maps)


def _noise_maps(G: Generator) -> list[Tensor]:
    """The maps of noise="const", to start from: one for each styled layer."""
    if G.mapping is None:
        return []
    maps: list[Tensor] = []
    for block in G.synthesis.blocks.values():
        assert isinstance(block, StyledBlock)
        maps += [epilogue.const_noise.clone() for epilogue in (block.epilogue0, block.epilogue1)]
    return maps


@torch.no_grad()
def _spread_of_w(G: Generator) -> float:
    """The deviation of w around its mean, over z' and c: the unit in which delta is measured."""
    if G.mapping is None:
        return 1.0
    device = next(G.parameters()).device
    z, c = (t.to(device) for t in G.sample_latents(256, generator=torch.Generator().manual_seed(0)))
    label = torch.arange(256, device=device) % G.labels if G.labels else None
    return float(G.map(z, c, label).std(dim=0).square().mean().sqrt().clamp(min=1e-6))


# ---- projecting ----------------------------------------------------------------------------------------


def project(
    G: Generator,
    D: Discriminator | None,
    image: Tensor,
    *,
    label: Tensor | int | None = None,
    steps: int = 400,
    features: Features | None = None,
    perceptual: bool = True,
    starts: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Projection:
    """Find the latents with which G reproduces `image` [1, C, R, R] in [-1, 1], R the size G has grown to.

    D         gives the perceptual features and Q's reading of the codes; without it pixels alone count, and
              codes are searched for
    label     the class; of a conditional generator without it, the one that fits best is searched for
    steps     of Adam in all; more reproduce more
    features  a perceptual extractor in the place of D's trunk
    perceptual=False  leaves pixels alone
    starts    how many latents are tried before the first step
    progress  called after each step with (step, steps, loss, image)
    The same seed gives the same result on the same machine. Neither network is changed.
    Raises ProjectionError for an image of another shape, ValueError for a label that G does not know.
    """
    resolution = int(G.grown_resolution)
    if list(image.shape) != [1, G.channels, resolution, resolution]:
        raise ProjectionError(
            f"the image is {list(image.shape)}: this generator makes [1, {G.channels}, {resolution}, "
            f"{resolution}]"
        )
    if steps < 2:
        raise ProjectionError(f"steps {steps}: at least 2 are needed")
    device = next(G.parameters()).device
    with _standing(G, D), torch.enable_grad():
        target = _aim(G, D, image.float().to(device), features, perceptual)
        z, c, y = _start(G, D, target, label, starts or (96 if resolution <= 64 else 24), seed)
        first = max(1, round(FIRST_PHASE * steps))
        z, c, y = _find_inputs(G, target, z, c, y, first, _report(progress, 0, steps))
        return _find_rest(G, target, z, c, y, steps - first, _report(progress, first, steps))


def _report(progress: Progress | None, before: int, steps: int) -> Callable[[int, float, Tensor], None]:
    def report(step: int, loss: float, image: Tensor) -> None:
        if progress is not None:
            progress(before + step, steps, loss, image.detach().cpu())

    return report


def _aim(
    G: Generator, D: Discriminator | None, image: Tensor, features: Features | None, perceptual: bool
) -> _Target:
    fade = float(G.grown_fade)
    if features is None and D is not None:
        features = trunk_features(D, fade)
    if not perceptual:
        features = None
    uniform = [i for i, code in enumerate(G.codes) if isinstance(code, Uniform)]
    with torch.no_grad():
        wanted = [f.detach() for f in features(image)] if features is not None else []
        posterior = D.posterior(image, fade=fade) if D is not None else []

    def reading(c: Tensor) -> Tensor:
        if not posterior or not uniform:
            return c.new_zeros(len(c))
        return -torch.stack([posterior[i].log_prob(c[:, i]) for i in uniform]).sum(dim=0)

    return _Target(image, features, wanted, reading)


def _start(
    G: Generator,
    D: Discriminator | None,
    target: _Target,
    label: Tensor | int | None,
    count: int,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The best CHAINS of `count` starts: z' [k, …], c [k, …], label [k]."""
    device = target.image.device
    draw = torch.Generator().manual_seed(seed)
    z, c = G.sample_latents(count, generator=draw)
    if D is not None and len(G.codes):
        with torch.no_grad():
            posterior = D.posterior(target.image, fade=float(G.grown_fade))
        for i, (code, q) in enumerate(zip(G.codes, posterior)):
            if isinstance(code, Uniform):
                c[:, i] = q.mean.clamp(-1.0, 1.0).item()
            else:
                p = q.mean[0].cpu() if q.mean.ndim == 2 else torch.stack([1 - q.mean[0], q.mean[0]]).cpu()
                c[:, i] = torch.multinomial(p, count, replacement=True, generator=draw).float()
                c[: count // 2, i] = float(p.argmax())  # half of the starts take Q at its word
    y: Tensor | None = None
    if G.labels:
        given = -1 if label is None else int(label)
        if label is not None and not 0 <= given < G.labels:
            raise ValueError(f"label {given}: this generator knows 0 to {G.labels - 1}")
        y = torch.arange(count) % G.labels if label is None else torch.full((count,), given)
        y = y.to(device)
    elif label is not None:
        raise ValueError(f"label {int(label)}: this generator was trained without labels")
    z, c = z.to(device), c.to(device)
    noise = _noise_maps(G)
    with torch.no_grad():
        losses = []
        for i in range(0, count, 8):
            part = slice(i, i + 8)
            latent = _latent(G, z[part], c[part], None if y is None else y[part])
            losses.append(target.distance(_synthesize(G, latent, noise)))
    best = torch.cat(losses).nan_to_num(math.inf).argsort()[:CHAINS]
    return z[best], c[best], None if y is None else y[best]


def _rate(t: float) -> float:
    """Adam's step over a phase, t from 0 to 1: a short rise, a plateau, a cosine to nothing."""
    return min(1.0, t / 0.05 + 0.05) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - t) / 0.5)))


class _Descent:
    """Adam over leaves of its own; gradients reach no network's weights."""

    def __init__(self, leaves: Mapping[str, Sequence[Tensor]], steps: int) -> None:
        leaves = {name: values for name, values in leaves.items() if values}
        groups = [{"params": list(values), "lr": RATES[name]} for name, values in leaves.items()]
        self.rates = [RATES[name] for name in leaves]
        self.leaves = [leaf for values in leaves.values() for leaf in values]
        self.adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self.steps = steps

    def step(self, step: int, loss: Tensor) -> None:
        for leaf, gradient in zip(self.leaves, torch.autograd.grad(loss, self.leaves)):
            leaf.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
        for group, rate in zip(self.adam.param_groups, self.rates):
            group["lr"] = rate * _rate(step / self.steps)
        self.adam.step()


def _find_inputs(
    G: Generator,
    target: _Target,
    z: Tensor,
    c: Tensor,
    y: Tensor | None,
    steps: int,
    report: Callable[[int, float, Tensor], None],
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The first phase, all chains side by side; the best of them: z' [1, …], c [1, …], label [1]."""
    uniform = torch.tensor([isinstance(code, Uniform) for code in G.codes], device=c.device, dtype=torch.bool)
    noise = _noise_maps(G)
    z = z.clone().requires_grad_()
    free = c[:, uniform].clone().requires_grad_()
    descent = _Descent({"z": [z], "c": [free] if free.numel() else []}, steps)
    best = torch.full((len(z),), math.inf, device=z.device)
    kept_z, kept_c = z.detach().clone(), c.clone()
    for step in range(steps):
        values = c.clone()
        values[:, uniform] = free
        images = _synthesize(G, _latent(G, z, values, y), noise)
        distance = target.distance(images) + READING * target.reading(values)
        better = distance.detach() < best
        best = torch.where(better, distance.detach(), best)
        kept_z[better], kept_c[better] = z.detach()[better], values.detach()[better]
        report(step + 1, float(best.min()), images[int(distance.argmin())][None])
        descent.step(step, distance.sum())
        with torch.no_grad():
            z.copy_(pixel_norm(z))  # of the length that z' has in many dimensions
            free.clamp_(-1.0, 1.0)
    first = best.argmin()[None]
    return kept_z[first], kept_c[first], None if y is None else y[first]


def _find_rest(
    G: Generator,
    target: _Target,
    z: Tensor,
    c: Tensor,
    y: Tensor | None,
    steps: int,
    report: Callable[[int, float, Tensor], None],
) -> Projection:
    """The second phase: delta and noise maps."""
    with torch.no_grad():
        base = _latent(G, z, c, y)
    unit = _spread_of_w(G)
    delta = torch.zeros_like(base, requires_grad=True)
    # A direct generator reads the codes from the vector itself: these columns stay what the codes say.
    mask = torch.ones_like(base)
    if G.mapping is None:
        mask[:, G.noise_dim :] = 0.0
    noise = [n.requires_grad_() for n in _noise_maps(G)]
    used = [n for n in noise if n.shape[-1] <= target.image.shape[-1]]
    descent = _Descent({"delta": [delta], "noise": used}, steps)
    best: tuple[float, Tensor, Tensor, list[Tensor]] | None = None
    for step in range(steps):
        latent = base + unit * delta * mask
        image = _synthesize(G, latent, noise)
        distance = target.distance(image)[0]
        loss = float(distance.detach())
        if best is None or loss < best[0]:
            kept = [n.detach().clone().cpu() for n in noise]
            best = loss, image.detach().cpu(), latent.detach().cpu(), kept
        report(step + 1, loss, image)
        charge = DELTA * (delta * mask).square().mean()
        descent.step(step, distance + charge + (WHITE * whiteness(used) if used else 0.0))
        with torch.no_grad():
            for n in used:
                n.sub_(n.mean()).mul_((n.square().mean() + 1e-8).rsqrt())
    assert best is not None
    loss, made, latent, maps = best
    return Projection(
        z.cpu(), c.cpu(), latent, tuple(maps), made, loss,
        None if y is None else y.cpu(), psnr(made, target.image.cpu()),
    )  # fmt: skip


# ---- changing codes ------------------------------------------------------------------------------------


@torch.no_grad()
def moved_w(G: Generator, projection: Projection, c: Tensor) -> Tensor:
    """w of other codes c [N, codes]: the projection's w + map(z', c) - map(z', its c)."""
    G.codes.check(c)
    check_fit(G, projection)
    device = next(G.parameters()).device
    z, y = projection.z.to(device), None if projection.label is None else projection.label.to(device)
    n = len(c)
    with _standing(G):
        old = _latent(G, z, projection.c.to(device), y)
        new = _latent(G, z.expand(n, -1), c.to(device), None if y is None else y.expand(n))
    return projection.w + (new - old).cpu()


@torch.no_grad()
def with_codes(G: Generator, projection: Projection, c: Tensor) -> Tensor:
    """The projected image with other codes: values c [N, codes] -> images [N, C, R, R] on the CPU."""
    device = next(G.parameters()).device
    noise = [n.to(device) for n in projection.noise]
    with _standing(G):
        rows = moved_w(G, projection, c).split(8)
        return torch.cat([_synthesize(G, w.to(device), noise).float().cpu() for w in rows])


def changed_codes(codes: CodeSpec, c: Tensor, changes: Mapping[str, float]) -> Tensor:
    """A copy of values c [1, codes] with `changes` by code. Raises CodeError for what a code cannot take."""
    c = c.clone()
    for name, value in changes.items():
        if name not in codes.names:
            raise CodeError(f"no code {name!r}: this generator has {', '.join(codes.names) or 'none'}")
        index = codes.names.index(name)
        values = codes[index].traversal()
        low, high = float(values.min()), float(values.max())
        whole = not isinstance(codes[index], Uniform)
        if not low <= value <= high or (whole and value != round(value)):
            kind = "a whole number" if whole else "a number"
            raise CodeError(f"{name}={value:g}: it takes {kind} from {low:g} to {high:g}")
        c[:, index] = value
    return c


def change_codes(G: Generator, projection: Projection, changes: Mapping[str, float]) -> Projection:
    """The projection after `changes`, values by code. Raises CodeError for what a code cannot take."""
    c = changed_codes(G.codes, projection.c, changes)
    w, image = moved_w(G, projection, c), with_codes(G, projection, c)
    return replace(projection, c=c, w=w, image=image, loss=math.nan, psnr=math.nan)


# ---- files ---------------------------------------------------------------------------------------------


def check_fit(G: Generator, projection: Projection) -> None:
    """Raise ProjectionError unless the shapes of `projection` are those of latents of G."""
    styled = G.mapping is not None
    wanted = {
        "z": [1, G.noise_dim],
        "c": [1, len(G.codes)],
        "w": [1, G.synthesis.num_layers, int(G.config["latent_dim"])]
        if styled
        else [1, G.latent.out_features],
    }
    for name, shape in wanted.items():
        found = list(getattr(projection, name).shape)
        if found != shape:
            raise ProjectionError(f"{name} is {found} and this generator's is {shape}: it is another one's")
    sizes = [list(n.shape) for n in projection.noise]
    if sizes != [list(n.shape) for n in _noise_maps(G)]:
        raise ProjectionError(
            "the noise maps are of other sizes than this generator's: they are another one's"
        )
    if (projection.label is not None) != bool(G.labels):
        raise ProjectionError("a label where the generator knows none, or none where it needs one")


def fingerprint(G: Generator) -> str:
    """What tells one generator's weights from another's: sha256 (hex)."""
    digest = hashlib.sha256(json.dumps(G.config, sort_keys=True).encode())
    for name, value in sorted(G.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_projection(path: str | os.PathLike[str], G: Generator, projection: Projection, **note: Any) -> None:
    """Write the latents to `path`, .npz, and what they say in words beside it, .json; atomically.

    `note` is plain data to keep in the JSON file.
    """
    path = Path(path)
    arrays = {name: getattr(projection, name).numpy() for name in ("z", "c", "w", "image")}
    arrays |= {f"noise{i:02d}": n.numpy() for i, n in enumerate(projection.noise)}
    if projection.label is not None:
        arrays["label"] = projection.label.numpy()
    arrays["scores"] = np.array([projection.loss, projection.psnr])
    arrays["generator"] = np.array(fingerprint(G))
    with atomic_write(path) as file:
        np.savez(file, **arrays)
    words = {
        "codes": dict(zip(G.codes.names, projection.c[0].tolist())),
        "label": None if projection.label is None else int(projection.label),
        "psnr_db": projection.psnr if math.isfinite(projection.psnr) else None,
        "loss": projection.loss if math.isfinite(projection.loss) else None,
        "generator": str(arrays["generator"]),
        **note,
    }
    with atomic_write(path.with_suffix(".json"), "w") as file:
        file.write(json.dumps(words, indent=2, allow_nan=False) + "\n")


def load_projection(path: str | os.PathLike[str], G: Generator) -> Projection:
    """The projection that `save_projection` wrote. Raises ProjectionError for any other file, or latents of
    another generator; executes nothing."""
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        maps = [torch.from_numpy(arrays[name]) for name in sorted(arrays) if name.startswith("noise")]
        z, c, w, image = (torch.from_numpy(arrays[name]).float() for name in ("z", "c", "w", "image"))
        label = torch.from_numpy(arrays["label"]) if "label" in arrays else None
        loss, quality = arrays["scores"].tolist()
        whose = str(arrays["generator"])
        projection = Projection(z, c, w, tuple(maps), image, loss, label, quality)
    except FileNotFoundError:
        raise ProjectionError(f"{path}: no such file") from None
    except Exception as error:
        raise ProjectionError(f"{path}: not saved latents, or damaged ({error})") from error
    if whose != fingerprint(G):
        raise ProjectionError(f"{path}: these are the latents of another generator")
    check_fit(G, projection)
    return projection
