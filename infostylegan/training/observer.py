"""Everything a run measures and draws of itself, at ticks, at snapshots and at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnnlib import distributed
from dnnlib.memory import peak_memory_bytes
from dnnlib.seeding import seed_step
from infostylegan.code_version import code_version
from infostylegan.data import BatchStream, Dataset
from infostylegan.growth import Phase
from infostylegan.naming import names_in_run
from infostylegan.render.traversal import save_traversals
from infostylegan.training.measure import Spread, measure_information, measure_spread
from infostylegan.training.options import TrainingOptions
from infostylegan.training.report import Reporter
from infostylegan.training.state import TrainingState
from infostylegan.training.step import StepStats, fade_reals

SMALL = 64  # up to this resolution, measuring on many images is cheap


class Observer:
    """Measures with the run's networks and data, and hands the results to the reporter (main process)."""

    def __init__(
        self,
        options: TrainingOptions,
        device: torch.device,
        dataset: Dataset,
        reporter: Reporter | None,
        state: TrainingState,
    ) -> None:
        self.options, self.device, self.dataset = options, device, dataset
        # A stream of its own: looking back must not disturb what training reads ahead.
        self.stream = BatchStream(dataset, options.seed, prefetch=0)
        self.reference: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.reporter = reporter
        self.last = (state.seconds, state.images)
        # On resume, later snapshots keep what the codes were called in the last one.
        self.code_names = names_in_run(reporter.folder) if reporter is not None else {}
        draw = torch.Generator().manual_seed(seed_step(options.seed, 0, 0, stream=3))
        self.count = 48 if options.resolution <= 128 else 12
        self.z, self.c = state.G.sample_latents(self.count, generator=draw)
        self.y = torch.arange(self.count) % options.label_count if options.label_count else None

    def reals(self) -> None:
        assert self.reporter is not None
        real, _ = self.stream.batch(0, min(self.count, len(self.dataset)), self.options.resolution)
        self.reporter.pictures("reals", real, self.options.resolution)

    @torch.no_grad()
    def fakes(self, state: TrainingState) -> Tensor:
        device = self.device
        y = self.y if self.y is None else self.y.to(device)
        parts = [slice(i, i + 16) for i in range(0, self.count, 16)]
        return torch.cat(
            [
                state.G_ema(
                    self.z[p].to(device), self.c[p].to(device), None if y is None else y[p], noise="const"
                )
                for p in parts
            ]
        )

    def record(self, state: TrainingState, phase: Phase, tick: int, data_wait: float) -> dict[str, Any]:
        """The numbers of one tick, averaged over the images since the last (and over processes).

        `data_wait`: the share of their time for which this process's steps have waited for their images.
        """
        fade = phase.fade_at(state.images)
        stats = reduce_stats(state.tick, self.device)
        n = max(stats.images, 1)
        spread = self.spread(state, phase.resolution, fade) if self.reporter is not None else None
        nats = dict(zip(self.options.spec().names, (stats.information / n).tolist()))
        rate = state.seconds / max(state.images, 1)
        return {
            "tick": tick,
            "images": state.images,
            "kimg": state.images / 1000,
            "step": state.step,
            "resolution": phase.resolution,
            "fade": fade,
            "batch": phase.batch,
            "lr": state.g_optimizer.param_groups[0]["lr"],
            "gamma": phase.gamma,
            "loss_g": float(stats.loss_g) / n,
            "loss_d": float(stats.loss_d) / n,
            "r1": float(stats.r1) / stats.r1_images if stats.r1_images else None,
            "score_real": float(stats.score_real) / n,
            "score_fake": float(stats.score_fake) / n,
            "information": nats if self.options.informed else {},
            "spread": spread.within if spread is not None else None,
            "spread_overall": spread.overall if spread is not None else None,
            "skipped": state.skipped,
            "seconds": state.seconds,
            "sec_per_kimg": self.sec_per_kimg(state),
            "data_wait": data_wait,
            "seconds_left": rate * max(0, round(self.options.kimg * 1000) - state.images),
            "memory_bytes": peak_memory_bytes(self.device),
        }

    def sec_per_kimg(self, state: TrainingState) -> float:
        """Since the last tick, or since this process began."""
        seconds, images = self.last
        self.last = (state.seconds, state.images)
        return (state.seconds - seconds) / max(state.images - images, 1) * 1000

    def spread(self, state: TrainingState, resolution: int, fade: float) -> Spread:
        small = resolution <= SMALL
        count = min(256 if small else 64, len(self.dataset))
        if resolution not in self.reference:
            self.reference = {resolution: self.stream.batch(0, count, resolution)}
        real, label = self.reference[resolution]
        return measure_spread(
            state.G_ema, fade_reals(real, fade).to(self.device),
            label if self.options.label_count else None, codes=32 if small else 8, noises=8 if small else 4,
        )  # fmt: skip

    def snapshot(self, state: TrainingState) -> Path:
        assert self.reporter is not None
        fakes = self.fakes(state)
        self.reporter.pictures(f"fakes{state.images // 1000:06d}", fakes, self.options.resolution)
        self.reporter.picture_event(fakes, state.images)
        self.reporter.information_plot()
        return self.reporter.snapshot(state, self.provenance(state))

    def provenance(self, state: TrainingState) -> dict[str, Any]:
        names = self.dataset.label_names
        return {
            **code_version(),
            "training_options": json.loads(self.options.to_json()),
            "images": state.images,
            "code_names": self.code_names,
            "label_names": list(names) if names and self.options.label_count else None,
            "dataset": {
                "name": self.dataset.name,
                "digest": self.dataset.digest,
                "images": len(self.dataset),
            },
        }

    def finish(self, state: TrainingState) -> tuple[dict[str, dict[str, float]], Spread]:
        """Draw each code's traversals; measure its information on fresh samples of G_ema and of G, and the
        spread of G_ema."""
        assert self.reporter is not None
        small = self.options.resolution <= SMALL
        if len(self.options.spec()):
            save_traversals(state.G_ema, self.reporter.folder, self.code_names, samples=8 if small else 4)
        nats: dict[str, dict[str, float]] = {"G_ema": {}, "G": {}}
        for name, G in (("G_ema", state.G_ema), ("G", state.G)):
            if self.options.informed:
                nats[name] = measure_information(
                    G,
                    state.D,
                    samples=2048 if small else 128,
                    batch=64 if small else 8,
                    seed=self.options.seed,
                    device=self.device,
                )
        return nats, self.spread(state, int(state.G.grown_resolution), float(state.G.grown_fade))


def reduce_stats(stats: StepStats, device: torch.device) -> StepStats:
    """Sum a tick's statistics over processes."""
    if distributed.world_size() == 1:
        return stats
    names = ("images", "loss_g", "loss_d", "r1", "r1_images", "score_real", "score_fake", "skipped")
    values = torch.tensor([float(getattr(stats, name)) for name in names], device=device, dtype=torch.float64)
    values = distributed.all_gather_sum(torch.cat([values, stats.information.double().to(device)]))
    total = StepStats(**dict(zip(names, values.tolist())), information=values[len(names) :].float())
    total.images, total.skipped = int(total.images), int(total.skipped)
    return total
