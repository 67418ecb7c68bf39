"""The code atlas: what each code does to the image, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from infostylegan.codes import Code
from infostylegan.losses import information
from infostylegan.networks import Discriminator, Generator
from infostylegan.networks.layers import box_downsample
from infostylegan.render.attributes import Probe, trunk_vectors
from infostylegan.render.grids import to_uint8
from infostylegan.render.latents import device_of, evaluating
from infostylegan.render.statistics import association, chance_level, measure_statistics
from infostylegan.render.traversal import effect_map, traverse

NAMED = 0.3  # the weakest correlation that is worth a name
ATTRIBUTE = " (attribute)"  # behind the name of an attribute that a pixel statistic shares
SHOWN = 128  # pixels of a side of an image on a page, at most


@dataclass(frozen=True)
class Link:
    """A code and something measured go together."""

    what: str
    strength: float  # signed rank correlation; of a category the correlation ratio
    source: str  # "pixels", or "probe": an attribute of the data read through D

    @property
    def name(self) -> str:
        """What a code may be called after it."""
        return self.what.removesuffix(ATTRIBUTE)


@dataclass(frozen=True)
class Entry:
    """What the atlas says of one code."""

    code: Code
    nats: float | None  # None without a discriminator
    interval: tuple[float, float] | None  # of the mean, 95 %
    ceiling: float
    share: float  # of the image's variance that a sweep of this code alone makes
    where: npt.NDArray[np.float64]  # [H, W]: mean absolute change, as a share of the range of an image
    sweep: Tensor  # [samples * values, C, H, W]: each row a sample
    values: Tensor
    links: tuple[Link, ...]  # the strongest first
    least: float = NAMED  # the weakest correlation that a name is suggested for: beyond chance in any case

    @property
    def suggestion(self) -> Link | None:
        """The strongest link, where it is worth a name."""
        return self.links[0] if self.links and abs(self.links[0].strength) >= self.least else None


@dataclass(frozen=True)
class Atlas:
    entries: tuple[Entry, ...]
    samples: int
    chance: float  # the correlation that chance reaches somewhere in 5 of 100 atlases
    unread: tuple[tuple[str, float], ...]  # attributes that the probe could not read, and how well it did
    read: tuple[tuple[str, float], ...]


@torch.no_grad()
def survey(
    G: Generator,
    D: Discriminator | None,
    *,
    samples: int = 512,
    rows: int = 6,
    probes: Mapping[str, Probe] | None = None,
    seed: int = 0,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Atlas:
    """Measure every code of G on `samples` images with codes drawn from their priors, and on sweeps of `rows`
    samples. `probes` read attributes of the data (render.attributes); they need D."""
    codes, device, fade = G.codes, device_of(G), float(G.grown_fade)
    draw = torch.Generator().manual_seed(seed)
    z, c = G.sample_latents(samples, generator=draw)
    y = torch.randint(G.labels, (samples,), generator=draw) if G.labels else None
    measured: list[dict[str, npt.NDArray[np.float64]]] = []
    nats: list[Tensor] = []
    features: list[npt.NDArray[np.float64]] = []
    mean = square = torch.zeros(())
    total = samples + len(codes)
    readable = {name: probe for name, probe in (probes or {}).items() if probe.readable}
    for at in range(0, samples, batch):
        part = slice(at, at + batch)
        label = None if y is None else y[part].to(device)
        with evaluating(G):
            images = G(z[part].to(device), c[part].to(device), label, noise="random").float()
        if D is not None:
            with evaluating(D):
                posterior = D.posterior(images, fade=fade)
                nats.append(information(codes, posterior, c[part].to(device)).double().cpu())
                if readable:
                    features.append(trunk_vectors(D, images, fade))
        pixels = np.ascontiguousarray(to_uint8(images).transpose(0, 3, 1, 2))
        measured.append(measure_statistics(pixels))
        shown = images.clamp(-1, 1).double().cpu()
        mean, square = mean + shown.sum(dim=0), square + shown.square().sum(dim=0)
        if progress is not None:
            progress(min(at + batch, samples), total)
    overall = float((square / samples - (mean / samples).square()).mean())
    statistics = {name: np.concatenate([m[name] for m in measured]) for name in measured[0]}
    vectors = np.concatenate(features) if features else None
    attributes = {name: probe(vectors) for name, probe in readable.items()} if vectors is not None else {}
    told = torch.cat(nats) if nats else None
    chance = chance_level(samples, len(codes) * (len(statistics) + len(attributes)))
    entries = []
    for index, code in enumerate(codes):
        images, values = traverse(G, index, samples=rows, seed=seed, batch=batch)
        sweep = images.clamp(-1, 1)
        column = c[:, index].double().numpy()
        links = [Link(name, association(code, column, m), "pixels") for name, m in statistics.items()]
        for name, m in attributes.items():
            what = f"{name}{ATTRIBUTE}" if name in statistics else name
            links.append(Link(what, association(code, column, m), "probe"))
        links.sort(key=lambda link: -abs(link.strength))
        within = float(sweep.double().unflatten(0, (rows, -1)).var(dim=1, correction=0).mean())
        value, interval = (None, None) if told is None else _mean_interval(told[:, index].numpy())
        entries.append(
            Entry(
                code, value, interval, code.ceiling, within / max(overall, 1e-12),
                (effect_map(sweep, rows) / 2.0).double().numpy(),
                box_downsample(sweep, max(1, sweep.shape[-1] // SHOWN)), values,
                tuple(links), max(NAMED, chance),
            )
        )  # fmt: skip
        if progress is not None:
            progress(samples + index + 1, total)
    quality = sorted(((n, p.quality) for n, p in (probes or {}).items()), key=lambda pair: -pair[1])
    return Atlas(
        tuple(entries), samples, chance,
        tuple(pair for pair in quality if pair[0] not in readable),
        tuple(pair for pair in quality if pair[0] in readable),
    )  # fmt: skip


def _mean_interval(values: npt.NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    mean, half = float(values.mean()), 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return mean, (mean - half, mean + half)


def atlas_record(atlas: Atlas, names: Mapping[str, str]) -> dict[str, Any]:
    """Every number of the atlas as plain data."""
    return {
        "samples": atlas.samples,
        "chance": atlas.chance,
        "attributes_read": dict(atlas.read),
        "attributes_not_readable": dict(atlas.unread),
        "codes": {
            entry.code.name: {
                "name": names.get(entry.code.name),
                "suggested_name": entry.suggestion.name if entry.suggestion else None,
                "nats": entry.nats,
                "interval": entry.interval,
                "ceiling": entry.ceiling,
                "share_of_variance": entry.share,
                "mean_absolute_change": float(entry.where.mean()),
                "correlations": {link.what: link.strength for link in entry.links},
            }
            for entry in atlas.entries
        },
    }
