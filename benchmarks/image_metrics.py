"""What the metrics of images cost, side by side with the plain way, alternating in one process.

    python benchmarks/image_metrics.py --task trace      Tr (Σr Σg)^½ against scipy.linalg.sqrtm
    python benchmarks/image_metrics.py --task inception  Inception against its plain form
    python benchmarks/image_metrics.py --task memory     peak memory of FID's statistics

The covariances of `trace` are of correlated features whose scales spread over four orders of magnitude in
variance, as Inception's do. `inception` uses drawn weights: time does not depend on their values. Ratios are
medians over rounds; `--clock cpu` counts the processor's time, which other work hardly touches.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import click
import numpy as np
import torch


def covariance(dimensions: int, draw: np.random.Generator) -> np.ndarray:
    scales = np.exp(draw.normal(size=dimensions))
    mix = draw.normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    return np.cov(draw.normal(size=(3 * dimensions, dimensions)) * scales @ mix, rowvar=False)


def compare(
    ours: Callable[[], object], plain: Callable[[], object], rounds: int, now: Callable[[], float]
) -> None:
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(rounds):
        for name, work in (("ours", ours), ("plain", plain)):
            started = now()
            work()
            times[name].append(now() - started)
    ratios = [plain / ours for ours, plain in zip(times["ours"], times["plain"])]
    click.echo(
        f"ours {statistics.median(times['ours']):.3f} s, plain {statistics.median(times['plain']):.3f} s, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    )


def trace(dimensions: int, rounds: int, now: Callable[[], float]) -> None:
    import scipy.linalg

    from metrics.frechet import trace_of_root

    draw = np.random.default_rng(0)
    a, b = covariance(dimensions, draw), covariance(dimensions, draw)

    def plain() -> float:
        return float(np.trace(scipy.linalg.sqrtm(a @ b)).real)

    ours, theirs = trace_of_root(a, b), plain()
    click.echo(f"{dimensions} dimensions: {ours:.8f} and {theirs:.8f}, apart by {abs(ours - theirs):.1e}")
    compare(lambda: trace_of_root(a, b), plain, rounds, now)


def inception(batch: int, rounds: int, now: Callable[[], float]) -> None:
    from metrics.features.inception import FoldedInception, PlainInception, parameter_shapes

    draw = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in parameter_shapes().items():
        state[name] = torch.rand(shape, generator=draw) + 0.5
        if name.endswith("conv.weight"):  # of a scale that neither grows nor dies through 94 layers
            state[name] = (state[name] - 1.0) * (24.0 / np.prod(shape[1:])) ** 0.5
    x = torch.rand(batch, 3, 299, 299, generator=draw) * 2 - 1
    plain, folded = PlainInception(state), FoldedInception(state)
    with torch.inference_mode():
        one, two = plain(x), folded(x)
        apart = float((one - two).abs().max() / two.abs().max())
        click.echo(f"{batch} images: features apart by {apart:.1e} of the largest")
        compare(lambda: folded(x), lambda: plain(x), rounds, now)


def memory() -> None:
    for count in (2_000, 20_000, 200_000):
        command = [sys.executable, __file__, "--task", "gather", "--count", str(count)]
        click.echo(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def gather(count: int) -> None:
    from metrics.frechet import FeatureStatistics

    draw = np.random.default_rng(0)
    statistics_ = FeatureStatistics(512)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(0, count, 16):
        statistics_.append(draw.random((16, 512), dtype=np.float32))
    statistics_.moments()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    click.echo(f"{count:7,} vectors of 512: {(peak - before) / 1024:.1f} MiB more at the peak")


@click.command()
@click.option("--task", type=click.Choice(["trace", "inception", "memory", "gather"]), default="trace")
@click.option("--dimensions", type=int, default=2048, show_default=True)
@click.option("--batch", type=int, default=16, show_default=True)
@click.option("--count", type=int, default=10_000, hidden=True)
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--threads", type=int)
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True)
def main(
    task: str, dimensions: int, batch: int, count: int, rounds: int, threads: int | None, clock: str
) -> None:
    """Print what each costs; ratios are medians over rounds, with their range."""
    if threads:
        torch.set_num_threads(threads)
    now = time.process_time if clock == "cpu" else time.perf_counter
    if task == "trace":
        trace(dimensions, rounds, now)
    elif task == "inception":
        inception(batch, rounds, now)
    elif task == "memory":
        memory()
    else:
        gather(count)


if __name__ == "__main__":
    main()
