"""The loop around the step: phases, ticks, snapshots, interruption and exact resumption."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dnnlib import distributed
from dnnlib.files import remove_parts
from dnnlib.log import RunLog
from dnnlib.memory import peak_memory_bytes
from dnnlib.seeding import seed_everything, seed_step
from infostylegan.data import BatchStream, Dataset
from infostylegan.growth import Phase, ema_decay
from infostylegan.render.traversal import save_traversals
from infostylegan.training.measure import measure_information, measure_spread
from infostylegan.training.options import TrainingOptions
from infostylegan.training.report import Reporter
from infostylegan.training.state import TrainingState
from infostylegan.training.step import StepStats, fade_reals, train_step

MAX_SKIPPED_IN_A_ROW = 50


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


@dataclass(frozen=True)
class RunSettings:
    """What a run shows and keeps; none of it changes what is computed."""

    folder: Path
    device: torch.device
    tick_kimg: float
    snapshot_ticks: int = 5
    quiet: bool = False


@dataclass(frozen=True)
class Snapshot:
    """What a hook is given whenever a network snapshot has been written."""

    path: Path
    images: int
    state: TrainingState
    folder: Path
    log: RunLog


@dataclass(frozen=True)
class RunResult:
    finished: bool
    images: int
    information: dict[str, float]
    snapshot: Path | None


Hook = Callable[[Snapshot], None]


def train(
    options: TrainingOptions,
    settings: RunSettings,
    dataset: Dataset,
    log: RunLog,
    hooks: tuple[Hook, ...] = (),
) -> RunResult:
    """Train to options.kimg, from the newest sound checkpoint in the run folder if there is one.

    Raises TrainingError where the run cannot go on. Returns early, with finished=False, after Ctrl-C or
    SIGTERM, once a checkpoint is written.
    """
    device, growth = settings.device, options.growth()
    phases, total = growth.phases(), round(options.kimg * 1000)
    if distributed.is_main():
        remove_parts(settings.folder)
    state = TrainingState.start(options, device)
    found = state.resume(settings.folder, options, device, log.warn)
    if found is not None:
        log.line(f"Resuming from {found.name} at {state.images / 1000:.1f} kimg")
    stream = BatchStream(dataset, options.seed, rank=distributed.rank(), world_size=distributed.world_size())
    reporter = (
        Reporter(settings.folder, log, options.spec().ceilings(), state.images)
        if distributed.is_main()
        else None
    )
    show = Show(options, settings, dataset, stream, reporter, state)
    if reporter is not None and found is None:
        show.reals()
    tick_images = max(1, round(settings.tick_kimg * 1000))
    started = time.perf_counter() - state.seconds
    bar = tqdm(total=total, initial=state.images, unit="img", unit_scale=True, leave=False,
               disable=None if distributed.is_main() and not settings.quiet else True)  # fmt: skip
    last_snapshot: Path | None = None
    with interruptible() as interrupted, bar:
        while state.images < total:
            phase = current_phase(phases, state.images)
            state.enter(phase)
            before = state.images
            stats = run_step(state, options, stream, phase, device)
            state.seconds = time.perf_counter() - started
            bar.update(state.images - before)
            check_finite(state, stats)
            done = state.images >= total
            tick = state.images // tick_images
            ticked = tick > before // tick_images or done
            if ticked:
                record = show.record(state, phase, tick)
                if reporter is not None:
                    reporter.tick(record)
                state.tick = StepStats()
            stop = distributed.any_process(interrupted(), device) and not done
            due = done or (ticked and tick % settings.snapshot_ticks == 0)
            if due and reporter is not None:
                last_snapshot = show.snapshot(state)
                for hook in hooks:
                    hook(Snapshot(last_snapshot, state.images, state, settings.folder, log))
            # The checkpoint comes last: whatever a kill prevents before it is done again after it.
            if (due or stop) and reporter is not None:
                state.save(settings.folder)
            distributed.barrier()
            if stop:
                break
    finished = state.images >= total
    nats: dict[str, float] = {}
    if finished and reporter is not None:
        nats = show.finish(state)
    if reporter is not None:
        reporter.close()
    return RunResult(finished, state.images, nats, last_snapshot)


def run_step(
    state: TrainingState, options: TrainingOptions, stream: BatchStream, phase: Phase, device: torch.device
) -> StepStats:
    """One step. All its randomness is seeded here, from (seed, step, rank): nothing else carries over."""
    seed_everything(seed_step(options.seed, state.step, distributed.rank()))
    share = phase.batch // distributed.world_size()
    real, label = stream.batch(state.images, share, phase.resolution)
    label = label.to(device) if label is not None and options.label_count else None
    decay = ema_decay(phase.batch, options.ema_kimg * 1000, state.images, options.ema_rampup)
    stats = train_step(
        state.G, state.D, state.G_ema, state.g_optimizer, state.d_optimizer, real.to(device), label, phase,
        phase.fade_at(state.images), state.step, decay, options.losses(),
    )  # fmt: skip
    state.images += phase.batch
    state.step += 1
    state.tick.add(stats)
    return stats


def current_phase(phases: list[Phase], images: int) -> Phase:
    return next((phase for phase in phases if images < phase.end), phases[-1])


def check_finite(state: TrainingState, stats: StepStats) -> None:
    state.skipped += stats.skipped
    state.skipped_in_a_row = state.skipped_in_a_row + 1 if stats.skipped else 0
    if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
        raise TrainingError(
            f"gradients have been NaN or infinite for {MAX_SKIPPED_IN_A_ROW} steps in a row, at "
            f"{state.images / 1000:.1f} kimg: the run has diverged. Go back to an earlier checkpoint with a "
            "lower --lr or a larger --gamma"
        )


class Show:
    """Everything a run measures and draws, gathered so that the loop above stays readable."""

    def __init__(
        self,
        options: TrainingOptions,
        settings: RunSettings,
        dataset: Dataset,
        stream: BatchStream,
        reporter: Reporter | None,
        state: TrainingState,
    ) -> None:
        self.options, self.settings, self.dataset, self.stream = options, settings, dataset, stream
        self.reporter = reporter
        self.last = (state.seconds, state.images)
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
        device = self.settings.device
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

    def record(self, state: TrainingState, phase: Phase, tick: int) -> dict[str, Any]:
        """The numbers of one tick, averaged over the images since the last (and over processes)."""
        fade = phase.fade_at(state.images)
        stats = reduce_stats(state.tick, self.settings.device)
        n = max(stats.images, 1)
        spread = self.spread(state, phase.resolution, fade) if self.reporter is not None else None
        rate = state.seconds / max(state.images, 1)
        return {
            "tick": tick,
            "images": state.images,
            "kimg": state.images / 1000,
            "step": state.step,
            "resolution": phase.resolution,
            "fade": fade,
            "batch": phase.batch,
            "lr": phase.lr,
            "gamma": phase.gamma,
            "loss_g": float(stats.loss_g) / n,
            "loss_d": float(stats.loss_d) / n,
            "r1": float(stats.r1) / stats.r1_images if stats.r1_images else None,
            "score_real": float(stats.score_real) / n,
            "score_fake": float(stats.score_fake) / n,
            "information": dict(zip(self.options.spec().names, (stats.information / n).tolist())),
            "spread": spread.within if spread is not None else None,
            "spread_overall": spread.overall if spread is not None else None,
            "skipped": state.skipped,
            "seconds": state.seconds,
            "sec_per_kimg": self.sec_per_kimg(state),
            "seconds_left": rate * max(0, round(self.options.kimg * 1000) - state.images),
            "memory_bytes": peak_memory_bytes(self.settings.device),
        }

    def sec_per_kimg(self, state: TrainingState) -> float:
        """Since the last tick, or since this process began."""
        seconds, images = self.last
        self.last = (state.seconds, state.images)
        return (state.seconds - seconds) / max(state.images - images, 1) * 1000

    def spread(self, state: TrainingState, resolution: int, fade: float) -> Any:
        small = resolution <= 64
        count = min(256 if small else 64, len(self.dataset))
        real, label = self.stream.batch(0, count, resolution)
        return measure_spread(
            state.G_ema, fade_reals(real, fade).to(self.settings.device),
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
            "version": version("infostylegan"),
            "training_options": json.loads(self.options.to_json()),
            "images": state.images,
            "code_names": {},
            "label_names": list(names) if names and self.options.label_count else None,
            "dataset": {
                "name": self.dataset.name,
                "digest": self.dataset.digest,
                "images": len(self.dataset),
            },
        }

    def finish(self, state: TrainingState) -> dict[str, float]:
        """Traversals of every code, and the information measured on fresh samples of G_ema."""
        small = self.options.resolution <= 64
        if len(self.options.spec()):
            save_traversals(state.G_ema, self.settings.folder, samples=8 if small else 4)
        return measure_information(
            state.G_ema, state.D, samples=2048 if small else 128, batch=64 if small else 8,
            seed=self.options.seed, device=self.settings.device,
        )  # fmt: skip


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


@contextmanager
def interruptible() -> Any:
    """Within it, the first Ctrl-C or SIGTERM only sets a flag, so that the step under way can be kept."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        if distributed.is_main():
            os.write(2, b"\nStopping after this step; again to stop at once.\n")

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
