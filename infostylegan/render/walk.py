"""Latent walks: films in which z' wanders and chosen codes are swept, held or cross-faded.

A frame is computed when it is asked for and forgotten when it is written, so that memory does not grow with
the length of the film (docs/generate.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infostylegan.codes import Uniform
from infostylegan.render.animation import Frame, save_animation
from infostylegan.render.grids import Pixels, to_uint8
from infostylegan.render.latents import (
    check_label,
    code_value,
    device_of,
    evaluating,
    find_code,
    seeded_latents,
)

if TYPE_CHECKING:
    from infostylegan.networks.generator import Generator

__all__ = ["Walk", "WalkSpec", "save_animation", "slerp", "walk_frames"]

MOTIONS = ("sweep", "hold", "fade")
EASINGS = ("smooth", "linear")
SECONDS_A_KEY = 2.0


@dataclass(frozen=True)
class WalkSpec:
    """What a walk shows.

    Each of `samples` tiles goes from key to key, on a great circle in z'. A key is a seed, the same image
    that `generate` makes of it; tile i has `seeds[i * keys : (i + 1) * keys]`. One key lets z' stand still.

    codes     code -> "sweep" (through its values and back to the first, the same in all tiles), "hold" (as
              the tile's first key has it), "fade" (from key to key, as z'), or a value to hold it at.
              Between two values of a category w is cross-faded.
    rest      the motion of codes not named; None: "hold" if any is named, else "fade"
    in_turn   codes are swept one after the other; a code that waits rests at the start of its sweep
    cycles    how often each sweep runs within its time
    easing    "smooth" slows down at keys and values, "linear" keeps its speed
    loop      the last frame leads back to the first
    size      pixels a side of a tile; None: its own, or a multiple that makes the film 256 wide at least
    """

    seconds: float = 10.0
    fps: float = 25.0
    samples: int = 1
    keys: int | None = None
    seeds: tuple[int, ...] | None = None
    codes: Mapping[str, str | float] = field(default_factory=dict)
    rest: str | None = None
    in_turn: bool = False
    cycles: int = 1
    label: int | None = None
    psi: float = 1.0
    truncation: str = "codes"
    easing: str = "smooth"
    loop: bool = True
    size: int | None = None
    columns: int | None = None

    def __post_init__(self) -> None:
        positive = {"seconds": self.seconds, "fps": self.fps, "samples": self.samples, "cycles": self.cycles}
        for optional in ("keys", "size", "columns"):
            if getattr(self, optional) is not None:
                positive[optional] = getattr(self, optional)
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} {value}: must be above 0")
        if self.fps > 240:
            raise ValueError(f"fps {self.fps:g}: at most 240")
        if self.easing not in EASINGS:
            raise ValueError(f"easing {self.easing!r}: choose one of {', '.join(EASINGS)}")
        if self.rest is not None and self.rest not in MOTIONS:
            raise ValueError(f"rest {self.rest!r}: choose one of {', '.join(MOTIONS)}")
        if self.seeds is not None and (not self.seeds or len(self.seeds) % self.samples):
            raise ValueError(
                f"{len(self.seeds)} seeds for {self.samples} tiles: each tile needs equally many, one or more"
            )
        if self.seeds is not None and self.keys not in (None, len(self.seeds) // self.samples):
            raise ValueError(
                f"{len(self.seeds)} seeds for {self.samples} tiles are not {self.keys} keys a tile: "
                "leave out keys"
            )

    @property
    def count(self) -> int:
        """Frames of the film."""
        return max(1, round(self.seconds * self.fps))

    def all_seeds(self) -> tuple[int, ...]:
        if self.seeds is not None:
            return self.seeds
        keys = self.keys or max(2, round(self.seconds / SECONDS_A_KEY))
        return tuple(range(keys * self.samples))


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """From a [..., d] to b on a great circle, with the length between theirs: a at t = 0, b at t = 1."""
    a, b = a.double(), b.double()
    length_a, length_b = (v.norm(dim=-1, keepdim=True).clamp(min=1e-12) for v in (a, b))
    unit_a, unit_b = a / length_a, b / length_b
    # From the half-angle's tangent: exact for equal and for opposite vectors too.
    angle = 2 * torch.atan2((unit_a - unit_b).norm(dim=-1), (unit_a + unit_b).norm(dim=-1)).unsqueeze(-1)
    side = unit_b - unit_a * (unit_a * unit_b).sum(dim=-1, keepdim=True)
    size = side.norm(dim=-1, keepdim=True)
    turn = torch.where(size > 1e-9, side / size.clamp(min=1e-30), _orthogonal(unit_a))
    direction = unit_a * torch.cos(t * angle) + turn * torch.sin(t * angle)
    return (direction * torch.lerp(length_a, length_b, t)).float()


def _orthogonal(unit: Tensor) -> Tensor:
    """Some unit vector at right angles to each of `unit` [..., d]: which way to turn between opposites."""
    if unit.shape[-1] == 1:
        return torch.zeros_like(unit)
    axis = torch.zeros_like(unit).scatter(-1, unit.abs().argmin(dim=-1, keepdim=True), 1.0)
    side = axis - unit * (axis * unit).sum(dim=-1, keepdim=True)
    return side / side.norm(dim=-1, keepdim=True)


def ease(t: float, easing: str) -> float:
    return t * t * (3.0 - 2.0 * t) if easing == "smooth" else t


def sweep_uniform(phase: float, easing: str) -> float:
    """0 -> 1 -> -1 -> 0 as phase goes from 0 to 1."""
    if easing == "smooth":
        return math.sin(2 * math.pi * phase)
    return 4 * phase if phase < 0.25 else 2 - 4 * phase if phase < 0.75 else 4 * phase - 4


@dataclass(frozen=True)
class Mixture:
    """One instant of all tiles: z' [tiles, d], and codes [tiles, n] of several settings with their shares."""

    z: Tensor
    settings: list[tuple[float, Tensor]]


class Path:
    """Where all tiles are at each instant of a walk."""

    def __init__(self, G: Generator, spec: WalkSpec, names: Mapping[str, str] | None = None) -> None:
        seeds = spec.all_seeds()
        z, c, label = seeded_latents(G, seeds, spec.label)
        self.spec, self.codes = spec, G.codes
        self.keys = len(seeds) // spec.samples
        self.z = z.unflatten(0, (spec.samples, self.keys))
        self.c = c.unflatten(0, (spec.samples, self.keys))
        self.label = None if label is None else label.view(spec.samples, self.keys)[:, 0]
        rest = spec.rest or ("hold" if spec.codes else "fade")
        self.motions = [rest] * len(self.codes)
        for name, motion in spec.codes.items():
            index = find_code(self.codes, name, names)
            if motion in MOTIONS:
                self.motions[index] = str(motion)
            else:
                self.motions[index] = "hold"
                self.c[:, :, index] = code_value(self.codes[index], motion, MOTIONS)
        self.swept = [i for i, motion in enumerate(self.motions) if motion == "sweep"]

    def at(self, phase: float) -> Mixture:
        """The instant `phase` of the film, from 0 to 1."""
        spec = self.spec
        segments = self.keys if spec.loop and self.keys > 1 else self.keys - 1
        position = min(phase * segments, segments - 1e-9) if segments else 0.0
        now = int(position)
        then, share = (now + 1) % self.keys, ease(position - now, spec.easing)
        z = slerp(self.z[:, now], self.z[:, then], share) if segments else self.z[:, 0]

        c = self.c[:, 0].clone()
        # Codes that change between the same shares are cross-faded as one.
        crossing: dict[float, list[tuple[int, Tensor, Tensor]]] = {}
        for i, code in enumerate(self.codes):
            if self.motions[i] == "fade" and segments:
                a, b, t = self.c[:, now, i], self.c[:, then, i], share
            elif self.motions[i] == "sweep":
                turn = self.turn(i, phase)
                if isinstance(code, Uniform):
                    c[:, i] = sweep_uniform(turn, spec.easing)
                    continue
                values = len(code.traversal())
                step = min(turn * values, values - 1e-9)
                a, b = (torch.full_like(c[:, i], (int(step) + k) % values) for k in (0, 1))
                t = ease(step - int(step), spec.easing)
            else:
                continue
            if isinstance(code, Uniform):
                c[:, i] = torch.lerp(a, b, t)
            elif t < 1e-6 or torch.equal(a, b):
                c[:, i] = a
            else:
                crossing.setdefault(round(t, 9), []).append((i, a, b))

        settings = [(1.0, c)]
        for t, members in crossing.items():
            split = []
            for weight, base in settings:
                before, after = base.clone(), base.clone()
                for i, a, b in members:
                    before[:, i], after[:, i] = a, b
                split += [(weight * (1 - t), before), (weight * t, after)]
            settings = split
        return Mixture(z, settings)

    def turn(self, index: int, phase: float) -> float:
        """How far the sweep of a code is, from 0 to 1."""
        if self.spec.in_turn:
            phase = phase * len(self.swept) - self.swept.index(index)
            if not 0.0 <= phase < 1.0:
                return 0.0
        return (phase * self.spec.cycles) % 1.0


class Walk(Iterator[Frame]):
    """The frames of a walk, uint8 [H, W, 3], made as they are asked for; `len` says how many are left."""

    def __init__(
        self, G: Generator, spec: WalkSpec, *, names: Mapping[str, str] | None = None, batch: int = 8
    ) -> None:
        check_label(G, spec.label)
        self.G, self.spec, self.path = G, spec, Path(G, spec, names)
        self.together = max(1, batch // spec.samples)
        self.batch = batch
        self.done = 0
        self.ready: list[Frame] = []
        self.columns = min(spec.columns or math.ceil(math.sqrt(spec.samples)), spec.samples)
        resolution = int(G.grown_resolution)
        self.size = spec.size or resolution * max(1, -(-256 // (resolution * self.columns)))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        rows = -(-self.spec.samples // self.columns)
        return rows * self.size, self.columns * self.size

    def __len__(self) -> int:
        return self.spec.count - self.done

    def __next__(self) -> Frame:
        if self.done >= self.spec.count:
            raise StopIteration
        if not self.ready:
            last = min(self.done + self.together, self.spec.count)
            self.ready = self.make(range(self.done, last))[::-1]
        self.done += 1
        return self.ready.pop()

    def make(self, frames: range) -> list[Frame]:
        # In a loop the frame after the last would be the first again.
        whole = self.spec.count if self.spec.loop else max(1, self.spec.count - 1)
        instants = [self.path.at(frame / whole) for frame in frames]
        with evaluating(self.G):
            w, mean = (torch.cat(parts) for parts in zip(*(self.mixed(m) for m in instants)))
            images = []
            for part in range(0, len(w), self.batch):
                at = slice(part, part + self.batch)
                psi, centre = self.spec.psi, (mean[at] if self.centred else None)
                images.append(to_uint8(self.G.synthesize(w[at], psi=psi, mean=centre, noise="const")))
        tiles = np.concatenate(images).reshape(len(frames), self.spec.samples, *images[0].shape[1:])
        return [self.tiled(each) for each in tiles]

    @property
    def centred(self) -> bool:
        return self.G.mapping is not None and self.spec.psi != 1.0 and self.spec.truncation == "codes"

    def mixed(self, instant: Mixture) -> tuple[Tensor, Tensor]:
        """w of each tile and the mean that truncation pulls it to, both mixed of the settings' own."""
        device = device_of(self.G)
        label = None if self.path.label is None else self.path.label.to(device)
        z = instant.z.to(device)
        parts = []
        for weight, c in instant.settings:
            w = self.G.map(z, c.to(device), label)
            mean = self.G.mean_w(c.to(device), label) if self.centred else w
            parts.append((weight * w, weight * mean))
        w, mean = (torch.stack(each).sum(dim=0) for each in zip(*parts))
        return w, mean

    def tiled(self, tiles: Pixels) -> Frame:
        frame = np.zeros((*self.shape, 3), np.uint8)
        for i, tile in enumerate(tiles):
            if tile.shape[0] != self.size:
                image = Image.fromarray(tile[:, :, 0] if tile.shape[2] == 1 else tile)
                tile = np.asarray(image.resize((self.size, self.size), Image.Resampling.LANCZOS))
                tile = tile.reshape(self.size, self.size, -1)
            y, x = i // self.columns * self.size, i % self.columns * self.size
            frame[y : y + self.size, x : x + self.size] = tile
        return frame


def walk_frames(
    G: Generator, spec: WalkSpec, *, names: Mapping[str, str] | None = None, batch: int = 8
) -> Walk:
    """The frames of a walk, uint8 [H, W, 3], made as they are asked for, `batch` tiles at a time at most.

    names   what people call the codes, by code name: `spec.codes` may use these
    Raises ValueError (CodeError) for codes, values or labels that this generator does not have.
    """
    return Walk(G, spec, names=names, batch=batch)
