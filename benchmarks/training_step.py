"""Time and memory of whole training steps, contenders alternating in one run.

    python benchmarks/training_step.py --resolution 32 --batch 16
    python benchmarks/training_step.py --resolution 512 --batch 4 --rounds 2
    python benchmarks/training_step.py --resolution 64 --batch 8 --contenders fp32,fp32-stock-malloc

Full-width StyleGAN networks, the paper's codes, beta 1, R1 at every step. Each contender is a process of its
own, since the allocator is set once a process; medians over rounds, and ratios to the first contender.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

import click
import torch

CONTENDERS = ("fp32", "bf16", "fp32-stock-malloc")


def measure(contender: str, resolution: int, batch: int, steps: int, threads: int | None) -> dict[str, float]:
    """Seconds of each step after one to warm up, and the peak memory of this process."""
    from dnnlib.memory import peak_memory_bytes, tune_malloc
    from infostylegan.growth import Phase
    from infostylegan.presets import PRESETS
    from infostylegan.training.options import TrainingOptions
    from infostylegan.training.state import TrainingState
    from infostylegan.training.step import train_step

    if threads:
        torch.set_num_threads(threads)
    if not contender.endswith("stock-malloc"):
        tune_malloc()
    values = {k: v for k, v in PRESETS["paper-celeba"].items() if k not in ("labels", "resolution")}
    options = TrainingOptions(
        data="noise",
        data_digest="",
        resolution=resolution,
        **{**values, "precision": contender.split("-")[0]},
    )
    state = TrainingState.start(options, torch.device("cpu"))
    phase = Phase(0, resolution, False, 0, 10**9, batch, 1e-3, 10.0)
    real = torch.rand(batch, 3, resolution, resolution) * 2 - 1
    seconds = []
    for step in range(steps + 1):
        started = time.perf_counter()
        train_step(
            state.G, state.D, state.G_ema, state.g_optimizer, state.d_optimizer, real, None, phase, 1.0, step,
            0.999, options.losses(),
        )  # fmt: skip
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds[1:]), "gib": peak_memory_bytes() / 2**30}


@click.command()
@click.option("--resolution", type=int, default=32, show_default=True)
@click.option("--batch", type=int, default=16, show_default=True)
@click.option("--steps", type=int, default=3, show_default=True, help="Timed steps a round.")
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--threads", type=int)
@click.option("--contenders", default="fp32,bf16", show_default=True, help=", ".join(CONTENDERS))
@click.option("--one", hidden=True)
def main(
    resolution: int,
    batch: int,
    steps: int,
    rounds: int,
    threads: int | None,
    contenders: str,
    one: str | None,
) -> None:
    """Print a Markdown table: seconds a step, images a second, ratio to the first contender, peak memory."""
    if one:
        click.echo(json.dumps(measure(one, resolution, batch, steps, threads)))
        return
    names = contenders.split(",")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            command = [sys.executable, __file__, "--one", name, "--resolution", str(resolution)]
            command += ["--batch", str(batch), "--steps", str(steps)]
            command += ["--threads", str(threads)] if threads else []
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    click.echo("| contender | s/step | img/s | speed against the first | peak GiB |\n|---|---|---|---|---|")
    for name in names:
        seconds = statistics.median(run["seconds"] for run in found[name])
        pairs = zip(found[names[0]], found[name])
        ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in pairs)
        memory = max(run["gib"] for run in found[name])
        click.echo(f"| {name} | {seconds:.2f} | {batch / seconds:.2f} | {ratio:.2f} | {memory:.1f} |")


if __name__ == "__main__":
    main()
