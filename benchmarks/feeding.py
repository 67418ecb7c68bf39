"""How long a training step waits for its images, at each resolution of a 512x512 set.

    python benchmarks/feeding.py PHOTOGRAPHS --batch 8

PHOTOGRAPHS is a folder of photographs of 512x512 or more. They are packed; then, at each resolution from 8 to
512, batches are drawn, the contenders in turn:

packed      the packed zip: its lower resolutions are read, at 512 its PNG files
whole       the same zip, but every image decoded at 512 and averaged, as for a zip of another tool
raw         the folder itself: JPEG files decoded at 512 and averaged

Memory is told to hold nothing, as for a set of tens of thousands, so every image is decoded each time. Given
are the processor time of all threads for one image, which other work on the machine does not disturb, and
what `data_wait` in stats.jsonl tells: the share of their time for which steps wait for their images. The
steps are of narrow networks (16 feature maps), on the same cores that decode. Wider ones wait less.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch

from infostylegan.data import BatchStream, Dataset, loading, open_dataset
from infostylegan.data.images import Framing
from infostylegan.data.packing import pack_files
from infostylegan.data.sources import FolderFiles

RESOLUTIONS = (8, 16, 32, 64, 128, 256, 512)


class Whole:
    """A data set that can only be read at its own resolution."""

    def __init__(self, inner: Dataset) -> None:
        self.name, self.labels, self.resolution, self.channels = (
            "whole",
            None,
            inner.resolution,
            inner.channels,
        )
        self._inner = inner

    def __len__(self) -> int:
        return len(self._inner)

    def images(self, indices: np.ndarray) -> np.ndarray:
        return self._inner.images(indices)


class Step:
    """A training step of a narrow network at a resolution."""

    def __init__(self, resolution: int, batch: int) -> None:
        from infostylegan.growth import Phase
        from infostylegan.presets import PRESETS
        from infostylegan.training.options import TrainingOptions
        from infostylegan.training.state import TrainingState

        values = {k: v for k, v in PRESETS["paper-celeba"].items() if k not in ("labels", "resolution")}
        narrow = {"precision": "fp32", "fmap_max": 16, "latent_dim": 64}
        self.options = TrainingOptions(
            data="x", data_digest="", resolution=resolution, **{**values, **narrow}
        )
        self.state = TrainingState.start(self.options, torch.device("cpu"))
        self.phase = Phase(0, resolution, False, 0, 10**9, batch, 1e-3, 10.0)

    def __call__(self, real: torch.Tensor) -> None:
        from infostylegan.training.step import train_step

        state = self.state
        train_step(
            state.G, state.D, state.G_ema, state.g_optimizer, state.d_optimizer, real, None, self.phase, 1.0,
            0, 0.999, self.options.losses(),
        )  # fmt: skip


def cost(stream: BatchStream, resolution: int, batch: int, position: int) -> float:
    """Milliseconds of processor time for one image."""
    begun = time.process_time()
    stream.batch(position, batch, resolution)
    return (time.process_time() - begun) / batch * 1e3


def waiting(dataset: Dataset, resolution: int, batch: int, steps: int) -> tuple[float, float]:
    """The share of the time that steps wait for their images, and seconds a step."""
    step = Step(resolution, batch)
    stream = BatchStream(dataset, 0)
    step(stream.batch(0, batch, resolution)[0])
    stream.waited, begun = 0.0, time.perf_counter()
    for i in range(1, steps + 1):
        step(stream.batch(i * batch, batch, resolution)[0])
    seconds = time.perf_counter() - begun
    stream.close()
    return stream.waited / seconds, seconds / steps


@click.command()
@click.argument("photographs", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--batch", type=int, default=8, show_default=True)
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--steps", type=int, default=3, show_default=True, help="Training steps at each resolution.")
@click.option("--largest", type=int, default=512, show_default=True, help="Train up to this resolution.")
def main(photographs: Path, batch: int, rounds: int, steps: int, largest: int) -> None:
    loading.RAM_LIMIT = 0
    files = FolderFiles(photographs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "set.zip")
        begun = time.process_time()
        packed = pack_files(files, path, Framing(512))
        seconds = (time.process_time() - begun) / packed.count
        bytes_ = path.stat().st_size / packed.count / 1024
        print(
            f"packed {packed.count} images: {seconds * 1e3:.1f} ms of processor time, {bytes_:.0f} KiB each"
        )
        small = open_dataset(str(path))
        contenders = {
            "packed": BatchStream(small, 0, prefetch=0),
            "whole": BatchStream(Whole(small), 0, prefetch=0),  # type: ignore[arg-type]
            "raw": BatchStream(
                open_dataset(str(photographs), resolution=512, cache_dir=folder), 0, prefetch=0
            ),
        }
        print(f"{'':>5}  ms of processor time an image                    steps")
        print(f"{'':>5}  {'packed':>8}{'whole':>8}{'raw':>8}{'whole/packed':>14}{'s/step':>10}{'waiting':>9}")
        for resolution in RESOLUTIONS:
            times: dict[str, list[float]] = {name: [] for name in contenders}
            for turn in range(rounds):
                for name, stream in contenders.items():
                    times[name].append(cost(stream, resolution, 4 * batch, turn * 4 * batch))
            middle = {name: statistics.median(values) for name, values in times.items()}
            line = "".join(f"{middle[name]:8.2f}" for name in contenders)
            ratio = middle["whole"] / middle["packed"]
            told = ""
            if resolution <= largest:
                share, each = waiting(small, resolution, batch, steps)
                told = f"{each:10.2f}{share:9.1%}"
            print(f"{resolution:>4}²  {line}{ratio:13.1f}x{told}", flush=True)


if __name__ == "__main__":
    main()
