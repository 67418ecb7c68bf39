"""Films of what is on the page: a code swept to and fro, or a way from sample to sample."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infostylegan.render.walk import WalkSpec, save_animation, walk_frames
from infostylegan.studio.jobs import Job
from infostylegan.studio.model import MAX_SEED, BadSettings, Model, Pixels, Settings, number_within

if TYPE_CHECKING:
    from infostylegan.studio.photos import Photos

MAX_SECONDS, MAX_FPS = 20, 30


@dataclass(frozen=True)
class WalkWish:
    """What the page asks for. `sweep` is a code; None: from sample to sample, the codes as they are."""

    settings: Settings
    sweep: str | None
    seconds: float
    fps: float

    @property
    def count(self) -> int:
        return max(1, round(self.seconds * self.fps))


def read_walk(model: Model, document: Mapping[str, Any]) -> WalkWish:
    """A wish from the page's JSON. Raises BadSettings."""
    settings = model.read(document)
    sweep = document.get("sweep")
    if sweep is not None and sweep not in model.G.codes.names:
        raise BadSettings(f"this generator has no code {str(sweep)[:40]!r}")
    if sweep is None and settings.photo is not None:
        raise BadSettings("a photograph is one sample: choose a code to be swept")
    seconds = number_within(document.get("seconds"), "seconds", 0.2, MAX_SECONDS)
    fps = number_within(document.get("fps"), "frames a second", 1, MAX_FPS)
    return WalkWish(settings, sweep, seconds, fps)


def spec_of(model: Model, wish: WalkWish) -> WalkSpec:
    """The walk of a seed: with a code swept z' stands still, else it goes to the seeds that follow."""
    settings = wish.settings
    keys = 1 if wish.sweep else max(2, round(wish.seconds / 2))
    seeds = tuple((settings.seed + i) % (MAX_SEED + 1) for i in range(keys))
    codes: dict[str, str | float] = dict(zip(model.G.codes.names, settings.codes))
    if wish.sweep:
        codes[wish.sweep] = "sweep"
    return WalkSpec(
        seconds=wish.seconds,
        fps=wish.fps,
        seeds=seeds,
        codes=codes,
        label=settings.label,
        psi=settings.psi,
    )


def make_walk(job: Job, model: Model, photos: Photos, wish: WalkWish) -> None:
    """The work of a job: its file is an animated WebP."""
    frames: Iterator[Pixels]
    if wish.settings.photo is not None:
        assert wish.sweep is not None
        frames = photos.sweep(wish.settings, wish.sweep, wish.count)
    else:
        # A few frames at a time: a slider waits no longer than for these.
        frames = walk_frames(model.G, spec_of(model, wish), batch=4)
    job.step(0, wish.count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "walk.webp"
        save_animation(
            taking_turns(model, frames), path, fps=wish.fps, progress=lambda n: job.step(n, wish.count)
        )
        job.file = ("image/webp", path.read_bytes())


def taking_turns(model: Model, frames: Iterator[Pixels]) -> Iterator[Pixels]:
    """The same frames, each drawn while nobody else draws."""
    while True:
        with model.turn:
            frame = next(frames, None)
        if frame is None:
            return
        yield frame
