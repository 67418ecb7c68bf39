"""Which posterior should Q have for uniform codes? The same small run with each family, on several seeds.

    python benchmarks/uniform_posteriors.py --seeds 0,1,2

The families' bounds have different ceilings (docs/training.md, *Information in nats*), so that nats do not
compare them. What compares is how well Q's mean tells the code of a fresh image: r² between the two, 0 for a
dead code. Everything after `--` goes to train.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import torch

from dnnlib.files import read_jsonl
from dnnlib.seeding import seed_step
from infostylegan.codes import UNIFORM_POSTERIORS
from infostylegan.export import find_snapshot, load_snapshot
from infostylegan.losses import information

ROOT = Path(__file__).resolve().parent.parent
# Without what the preset does against too much information, which would hide how the families differ.
PLAIN = ("--beta", "0.3", "--sigma-min", "0.2", "--margin", "0", "--no-share-codes",
         "--information-clip", "0", "--trunk-share", "1")  # fmt: skip
RUN = ("--resolution", "16", "--kimg", "100", "--threads", "1", *PLAIN)
HEADER = (
    "| posterior | seed | r² of the uniform codes, best first | sum | share of discrete ceilings | spread |"
)


@torch.no_grad()
def evaluate(run: Path, samples: int = 4000) -> tuple[list[float], float]:
    """r² of each uniform code, best first, and the discrete codes' information as a share of its ceiling."""
    content = load_snapshot(find_snapshot(run))
    G, D = content["G_ema"], content["D"]
    draw = torch.Generator().manual_seed(seed_step(0, 0, 0, stream=4))
    codes, means, nats = [], [], []
    for _ in range(0, samples, 250):
        z, c = G.sample_latents(250, generator=draw)
        posterior = D.posterior(G(z, c))
        codes.append(c)
        means.append(torch.stack([q.mean for code, q in zip(G.codes, posterior) if code.kind == "unif"], 1))
        nats.append(information(G.codes, posterior, c))
    uniform = [i for i, code in enumerate(G.codes) if code.kind == "unif"]
    discrete = [i for i, code in enumerate(G.codes) if code.kind != "unif"]
    told, read = torch.cat(codes)[:, uniform].numpy(), torch.cat(means).numpy()
    r2 = [float(np.corrcoef(a, b)[0, 1] ** 2) if b.std() > 1e-6 else 0.0 for a, b in zip(told.T, read.T)]
    share = torch.cat(nats).mean(0)[discrete].sum() / sum(G.codes[i].ceiling for i in discrete)
    return sorted(r2, reverse=True), float(share)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--outdir", type=click.Path(path_type=Path), default=Path("runs/posteriors"), show_default=True)
@click.argument("train_args", nargs=-1, type=click.UNPROCESSED)
def main(seeds: str, outdir: Path, train_args: tuple[str, ...]) -> None:
    """Train each family on each seed (or take up the runs that exist) and print a Markdown table."""
    click.echo(HEADER + "\n|" + "---|" * 6)
    for seed in seeds.split(","):  # families alternate, so that a table cut short still compares
        for family in UNIFORM_POSTERIORS:
            folder = outdir / f"{family}-{seed}"
            command = [sys.executable, str(ROOT / "train.py"), "--uniform", family, "--seed", seed]
            subprocess.run(
                [*command, "--outdir", str(folder), *RUN, *train_args], check=True, stdout=subprocess.DEVNULL
            )
            run = sorted(folder.iterdir())[-1]
            r2, share = evaluate(run)
            spread = read_jsonl(run / "stats.jsonl")[-1]["spread"]
            shown = ", ".join(f"{value:.2f}" for value in r2)
            click.echo(f"| {family} | {seed} | {shown} | {sum(r2):.2f} | {share:.0%} | {spread:.2f} |")


if __name__ == "__main__":
    main()
