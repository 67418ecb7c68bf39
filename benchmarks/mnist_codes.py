"""Train the MNIST preset on several seeds and say what its categorical code has found, without labels.

    python benchmarks/mnist_codes.py --data FOLDER --seeds 0,1,2
    python benchmarks/mnist_codes.py --data FOLDER --evaluate RUN --evaluate RUN …

Labels are read for the last column alone. Everything after `--` goes to train.py.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import torch

from infostylegan.data import open_dataset
from infostylegan.export import find_snapshot, load_snapshot
from infostylegan.losses import information
from metrics import matched_accuracy, spread_within

ROOT = Path(__file__).resolve().parent.parent
HEADER = (
    "| run | minutes | kimg | nats of the category | ceiling | spread within / overall | digit accuracy |"
)


@torch.no_grad()
def evaluate(run: Path, data: str, samples: int = 5000) -> tuple[float, float, float, float, float]:
    """(kimg, nats, ceiling, spread, accuracy) of the last snapshot of a run."""
    content = load_snapshot(find_snapshot(run))
    G, D = content["G_ema"], content["D"]
    test = open_dataset(data, split="test", resolution=G.resolution)
    assert test.labels is not None
    draw = torch.Generator().manual_seed(20)
    fakes, codes, nats = [], [], []
    for _ in range(0, samples, 250):
        z, c = G.sample_latents(250, generator=draw)
        image = G(z, c)
        fakes.append(image)
        codes.append(c[:, 0])
        nats.append(information(G.codes, D.posterior(image), c)[:, 0])
    read = [
        D.posterior(torch.from_numpy(test.images(np.arange(i, i + 250))).float() / 127.5 - 1)[0].mean.argmax(
            1
        )
        for i in range(0, len(test), 250)
    ]
    accuracy = matched_accuracy(torch.cat(read).numpy(), test.labels).accuracy
    spread = spread_within(torch.cat(fakes).numpy(), torch.cat(codes).numpy())
    return content["images"] / 1000, float(torch.cat(nats).mean()), G.codes[0].ceiling, spread, accuracy


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--data", required=True, help="Folder with MNIST's four idx files.")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--outdir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--evaluate", "runs", multiple=True, type=click.Path(path_type=Path, exists=True))
@click.argument("train_args", nargs=-1, type=click.UNPROCESSED)
def main(data: str, seeds: str, outdir: Path, runs: tuple[Path, ...], train_args: tuple[str, ...]) -> None:
    """Train (or only evaluate) and print a Markdown table."""
    minutes: dict[Path, float] = {}
    for seed in [] if runs else seeds.split(","):
        folder = outdir / f"mnist-seed{seed}"
        command = [
            sys.executable,
            str(ROOT / "train.py"),
            "--data",
            data,
            "--seed",
            seed,
            "--outdir",
            str(folder),
        ]
        started = time.monotonic()
        subprocess.run([*command, *train_args], check=True)
        run = sorted(folder.iterdir())[-1]
        minutes[run] = (time.monotonic() - started) / 60
    click.echo(HEADER + "\n|" + "---|" * 7)
    rows = []
    for run in runs or minutes:
        kimg, nats, ceiling, spread, accuracy = evaluate(run, data)
        rows.append(accuracy)
        took = f"{minutes[run]:.1f}" if run in minutes else "–"
        click.echo(
            f"| {run.name} | {took} | {kimg:.0f} | {nats:.3f} | {ceiling:.3f} "
            f"| {spread:.2f} | {accuracy:.1%} |"
        )
    click.echo(f"mean accuracy {np.mean(rows):.1%}, lowest {min(rows):.1%}")


if __name__ == "__main__":
    main()
