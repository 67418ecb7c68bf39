"""`python -m metrics fid,kid,pr,mig,acm --network SNAPSHOT --data DATA`: measure a model."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dnnlib.cli import Failure


@click.command(context_settings={"show_default": True, "max_content_width": 100})
@click.argument("metrics", metavar="METRICS")
@click.option(
    "--network", type=click.Path(path_type=Path), required=True, help="A network snapshot, or a run folder."
)
@click.option(
    "--data",
    metavar="NAME|FOLDER|ZIP",
    help="What it is compared with.  [default: the data it was trained on, where it can be found]",
)
@click.option("--extractor", default="auto", help="Network of features: auto, or a name.")
@click.option(
    "--inception-weights",
    type=click.Path(path_type=Path),
    help="File of Inception's weights, if not fetched.",
)
@click.option(
    "--samples", type=click.IntRange(2), help="Generated images, for metrics whose name states no number."
)
@click.option("--estimates", type=click.IntRange(1), default=5, help="Estimates of fid.")
@click.option("--seed", type=int, default=0, help="Of everything that is drawn.")
@click.option(
    "--outdir", type=click.Path(path_type=Path), help="Where results go.  [default: beside the network]"
)
@click.option("--device", help="cpu or cuda.  [default: cuda if present]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
def run(
    metrics: str,
    network: Path,
    data: str | None,
    extractor: str,
    inception_weights: Path | None,
    samples: int | None,
    estimates: int,
    seed: int,
    outdir: Path | None,
    device: str | None,
    threads: int | None,
) -> None:
    """Measure a snapshot with METRICS, separated by commas: fid5k, kid, pr, mig, …; `all` for every one that
    applies.

    Each result is appended to metric-<name>.jsonl with its whole protocol; pictures go beside it. `fid` takes
    50,000 images against all real ones, `fid5k_full` 5,000, and `fid5k` 5,000 against as many real ones.
    """
    import torch

    from dnnlib.devices import pick_device
    from infostylegan.export import find_snapshot
    from metrics.features import open_extractor
    from metrics.measures import parse
    from metrics.runner import measure, table
    from metrics.subject import open_evaluation

    if threads:
        torch.set_num_threads(threads)

    def say(text: str) -> None:
        click.echo(text, err=True)

    def warn(text: str) -> None:
        say(f"warning: {text}")

    requests = parse(metrics, samples)
    snapshot = find_snapshot(network)
    place = pick_device(device)
    folder = outdir or snapshot.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    evaluation = open_evaluation(
        snapshot,
        data,
        lambda: open_extractor(extractor, weights=inception_weights, device=place, warn=warn, progress=Bar()),
        device=place,
        seed=seed,
        estimates=estimates,
        say=say,
    )
    everything = "all" in metrics.split(",")
    measured = measure(evaluation, requests, folder, only_applicable=everything, say=say)
    for item in measured:
        for note in item.notes:
            warn(f"{item.name}: {note}")
        if item.skipped:
            say(f"left out: {item.failure}")
    if any(item.record for item in measured):
        click.echo(f"{snapshot}, {evaluation.images / 1000:g} kimg, on {evaluation.dataset.name}")
        click.echo(table(measured))
        click.echo(f"Kept in {folder}: metric-<name>.jsonl and .png")
    failed = [item.failure for item in measured if item.failure and not item.skipped]
    if failed:
        raise Failure("; ".join(failed))


class Bar:
    """A download on the terminal."""

    def __init__(self) -> None:
        self.shown = 0

    def __call__(self, done: int, total: int | None) -> None:
        if total and sys.stderr.isatty() and (done * 100 // total > self.shown or done == total):
            self.shown = done * 100 // total
            click.echo(f"\rDownloading the weights: {self.shown} %", nl=done == total, err=True)
