"""Progressive growing: pure functions from images seen to resolution, fade, batch, rate and gamma.

A run is a list of phases. It starts stable at `start`; each further resolution begins with a fade, during
which its new layers enter linearly, and goes on stable. Batch size and learning rate of a resolution hold
from the start of its fade. The optimisers' state is reset at the start of every phase but the first, that is
whenever the floor or the ceiling of the level of detail changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

R1_REFERENCES = ("final", "native")


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one resolution; `start` and `end` in images seen."""

    index: int
    resolution: int
    fading: bool
    start: int
    end: int
    batch: int
    lr: float
    gamma: float  # effective R1 weight: the penalty is taken on images of this resolution

    @property
    def steps(self) -> int:
        """Steps that start within this phase, if one starts at its first image."""
        return max(0, math.ceil((self.end - self.start) / self.batch))

    def fade_at(self, images: int) -> float:
        """Share of the newest layers, 0 … 1, at a count of images seen."""
        if not self.fading:
            return 1.0
        return min(1.0, max(0.0, (images - self.start) / (self.end - self.start)))


@dataclass(frozen=True)
class Growth:
    """The schedule. Lengths in thousands of images; `batch` and `lr` by resolution.

    `stable_kimg` is one number for every resolution, or one for each (the last lasts until the end).
    `r1_reference="final"` reads gamma as StyleGAN does, on reals nearest-upscaled to the final resolution
    that D then box-averages: at level of detail lod that is 4^-lod of the penalty taken natively, which is
    how it is computed here. `"native"` applies gamma unchanged at every resolution.
    """

    start: int
    resolution: int
    total_kimg: float
    stable_kimg: Mapping[int, float]
    fade_kimg: Mapping[int, float]
    batch: Mapping[int, int]
    lr: Mapping[int, float]
    gamma: float
    r1_reference: str = "final"
    lr_decay_kimg: float = 0.0

    def lr_factor(self, images: int) -> float:
        """Factor on the learning rate: falls linearly from 1 to 0 over the last lr_decay_kimg of the run, so
        that G comes to rest where its moving average is."""
        if self.lr_decay_kimg <= 0:
            return 1.0
        return min(1.0, max(0.0, self.total_kimg * 1000 - images) / (self.lr_decay_kimg * 1000))

    def effective_gamma(self, resolution: int) -> float:
        """gamma · 4^-lod (final) or gamma (native)."""
        if self.r1_reference == "native":
            return self.gamma
        return self.gamma * (resolution / self.resolution) ** 2

    def phases(self) -> list[Phase]:
        """Every phase in order; the last ends at total_kimg, and phases beyond it are left out."""
        total = round(self.total_kimg * 1000)
        phases: list[Phase] = []
        at, resolution = 0, self.start
        while at < total:
            last = resolution == self.resolution
            lengths = [(False, math.inf if last else self.stable_kimg[resolution] * 1000)]
            if resolution != self.start:
                lengths.insert(0, (True, self.fade_kimg[resolution] * 1000))
            for fading, length in lengths:
                end = int(min(total, at + length)) if length != math.inf else total
                if end > at:
                    phases.append(
                        Phase(
                            index=len(phases),
                            resolution=resolution,
                            fading=fading,
                            start=at,
                            end=end,
                            batch=self.batch[resolution],
                            lr=self.lr[resolution],
                            gamma=self.effective_gamma(resolution),
                        )
                    )
                at = end
            if last:
                break
            resolution *= 2
        return phases

    def phase_at(self, images: int) -> Phase:
        """The phase that a step starting after `images` images belongs to."""
        phases = self.phases()
        return next((phase for phase in phases if images < phase.end), phases[-1])


def ema_decay(batch: int, half_life_images: float, images: int, rampup: float | None = None) -> float:
    """Decay of G's moving average for one step: weights lose half their share in `half_life_images`.

    With `rampup`, the half-life is at most that share of the images seen, so a short run does not end as an
    average of its untrained beginning.
    """
    if rampup is not None:
        half_life_images = min(half_life_images, images * rampup)
    return 0.5 ** (batch / max(half_life_images, 1e-8))


def per_resolution(value: float | Mapping[int, float], start: int, resolution: int) -> dict[int, float]:
    """One number for all resolutions, or a table whose gaps take the nearest lower resolution's number."""
    table = dict(value) if isinstance(value, Mapping) else {start: value}
    sizes = [2**r for r in range(int(math.log2(start)), int(math.log2(resolution)) + 1)]
    filled: dict[int, float] = {}
    for size in sizes:
        below = [key for key in table if key <= size]
        filled[size] = table[max(below)] if below else table[min(table)]
    return filled
