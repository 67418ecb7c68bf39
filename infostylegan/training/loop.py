"""The loop around the step: phases, ticks, snapshots, interruption and exact resumption."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dnnlib import distributed
from dnnlib.errors import UserError
from dnnlib.files import remove_parts
from dnnlib.log import RunLog
from dnnlib.seeding import seed_everything, seed_step
from infostylegan.data import BatchStream, Dataset
from infostylegan.growth import Phase, ema_decay
from infostylegan.training.measure import Spread
from infostylegan.training.observer import Observer
from infostylegan.training.options import TrainingOptions
from infostylegan.training.report import Reporter
from infostylegan.training.state import TrainingState
from infostylegan.training.step import StepStats, train_step

MAX_SKIPPED_IN_A_ROW = 50
CHECKPOINT_SECONDS = 600.0


class TrainingError(UserError, RuntimeError):
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
    events: SummaryWriter  # the run's own: TensorBoard follows one file of a folder at a time


@dataclass(frozen=True)
class RunResult:
    finished: bool
    images: int
    information: dict[str, dict[str, float]]  # nats of each code, of G_ema and of G
    spread: Spread | None  # of G_ema: information is never told without it
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
    total = round(options.kimg * 1000)
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
    observer = Observer(options, device, dataset, reporter, state)
    if reporter is not None and found is None:
        observer.reals()
    tick_images = max(1, round(settings.tick_kimg * 1000))
    started = time.perf_counter() - state.seconds
    bar = tqdm(total=total, initial=state.images, unit="img", unit_scale=True, leave=False,
               disable=None if distributed.is_main() and not settings.quiet else True)  # fmt: skip
    last_snapshot: Path | None = None
    saved = time.monotonic()
    stepping = 0.0  # seconds spent in steps since the last tick
    with interruptible() as interrupted, bar:
        while state.images < total:
            phase = growth.phase_at(state.images)
            state.enter(phase)
            before = state.images
            begun = time.perf_counter()
            stats = run_step(state, options, stream, phase, device)
            stepping += time.perf_counter() - begun
            state.seconds = time.perf_counter() - started
            bar.update(state.images - before)
            check_finite(state, stats)
            done = state.images >= total
            tick = -(-state.images // tick_images) if done else state.images // tick_images
            passed = before // tick_images
            ticked = tick > passed or done
            if ticked:
                record = observer.record(state, phase, tick, stream.waited / stepping)
                stream.waited = stepping = 0.0
                if reporter is not None:
                    reporter.tick(record)
                state.tick = StepStats()
            stop = distributed.any_process(interrupted(), device) and not done
            due = done or tick // settings.snapshot_ticks > passed // settings.snapshot_ticks
            if due and reporter is not None:
                last_snapshot = observer.snapshot(state)
                for hook in hooks:
                    hook(Snapshot(last_snapshot, state.images, state, settings.folder, log, reporter.events))
            # Long ticks are not worth losing; what is computed does not depend on when it is saved.
            due = due or time.monotonic() - saved > CHECKPOINT_SECONDS
            # The checkpoint comes last: whatever a kill prevents before it is done again after it.
            if (due or stop) and reporter is not None:
                state.save(settings.folder)
                saved = time.monotonic()
            if stop:
                break
    finished = state.images >= total
    nats: dict[str, dict[str, float]] = {}
    spread: Spread | None = None
    if finished and reporter is not None:
        nats, spread = observer.finish(state)
    if reporter is not None:
        reporter.close()
    return RunResult(finished, state.images, nats, spread, last_snapshot)


def run_step(
    state: TrainingState, options: TrainingOptions, stream: BatchStream, phase: Phase, device: torch.device
) -> StepStats:
    """One step. All its randomness is seeded here, from (seed, step, rank): nothing else carries over."""
    seed_everything(seed_step(options.seed, state.step, distributed.rank()))
    share = phase.batch // distributed.world_size()
    real, label = stream.batch(state.images, share, phase.resolution)
    label = label.to(device) if label is not None and options.label_count else None
    state.set_lr(phase.lr * options.growth().lr_factor(state.images))
    decay = ema_decay(phase.batch, options.ema_kimg * 1000, state.images, options.ema_rampup)
    stats = train_step(
        state.G, state.D, state.G_ema, state.g_optimizer, state.d_optimizer, real.to(device), label, phase,
        phase.fade_at(state.images), state.step, decay, options.losses(state.images),
    )  # fmt: skip
    state.images += phase.batch
    state.step += 1
    state.tick.add(stats)
    return stats


def check_finite(state: TrainingState, stats: StepStats) -> None:
    state.skipped += stats.skipped
    state.skipped_in_a_row = state.skipped_in_a_row + 1 if stats.skipped else 0
    if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
        raise TrainingError(
            f"gradients have been NaN or infinite for {MAX_SKIPPED_IN_A_ROW} steps in a row, at "
            f"{state.images / 1000:.1f} kimg: the run has diverged. Start again with a "
            "lower --lr or a larger --gamma"
        )


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
