"""`python -m metrics agreement RUN…`: do metrics rank these models alike?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metrics.agreement import RankAgreement

# The lecture's six, and the paper's form of MIG beside the one that the lecture's table means.
METRICS = ("betavae", "factorvae", "mig_locatello", "dci", "modularity", "sap", "mig")


@click.command(context_settings={"show_default": True, "max_content_width": 100})
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--metrics", default=",".join(METRICS), help="Which metrics, separated by commas.")
@click.option(
    "--data", metavar="NAME|FOLDER|ZIP", help="Data with factors.  [default: what each was trained on]"
)
@click.option("--seed", type=int, default=0, help="Of everything that is drawn.")
@click.option("--again", is_flag=True, help="Measure anew what has been measured with these settings before.")
@click.option(
    "--csv", "csv_path", type=click.Path(path_type=Path), help="Write the scores and the table there too."
)
@click.option("--device", help="cpu or cuda.  [default: cuda if present]")
def agreement(
    runs: tuple[Path, ...],
    metrics: str,
    data: str | None,
    seed: int,
    again: bool,
    csv_path: Path | None,
    device: str | None,
) -> None:
    """Score every RUN, a run folder (its newest snapshot) or a snapshot, and compare the metrics' rankings.

    Three models or more, measured on the same data. The table holds Spearman's rank correlation times 100, as
    in Locatello et al. 2019. Results are kept in each run's metric-<name>.jsonl and used again.
    """
    from dnnlib.devices import pick_device
    from metrics.agreement import rank_agreement
    from metrics.measures import parse

    requests = parse(metrics)
    place = pick_device(device)
    if len(runs) < 3:
        raise Failure(f"rank correlation needs three models or more, and {len(runs)} are given")
    scored: list[dict[str, float]] = []
    digests: dict[str, str] = {}
    names: list[str] = []
    for run in runs:
        records = _measured(run, requests, data, seed, again, place)
        values: dict[str, float] = {}
        for request in requests:
            record = records[request.name]
            digests[record["protocol"]["dataset_digest"]] = f"{run} ({record['protocol']['dataset']})"
            value = record["results"].get(request.name)
            values[request.name] = float("nan") if value is None else float(value)
        if len(digests) > 1:
            raise Failure(
                f"models are compared on different data: {' and '.join(digests.values())}; give --data"
            )
        scored.append(values)
        names.append(_called(run))
    by_metric = {request.name: [values[request.name] for values in scored] for request in requests}
    found = rank_agreement(by_metric)
    click.echo(scores_table(names, by_metric))
    click.echo()
    click.echo(agreement_table(found))
    if csv_path:
        _write_csv(csv_path, names, by_metric, found)
        click.echo(f"Written to {csv_path}")


def _called(run: Path) -> str:
    return (
        run.name
        if run.is_dir()
        else f"{run.absolute().parent.name}/{run.stem.removeprefix('network-snapshot-')}"
    )


def _measured(
    run: Path, requests: Sequence[Any], data: str | None, seed: int, again: bool, device: Any
) -> dict[str, dict[str, Any]]:
    """The record of every metric: an old one of the same snapshot, data, seed and code, or a new one."""
    from dnnlib.files import read_jsonl
    from infostylegan.export import find_snapshot
    from metrics.errors import MetricError
    from metrics.runner import measure
    from metrics.subject import open_evaluation

    def no_extractor() -> Any:
        raise MetricError(
            "agreement compares metrics of codes; measure those of images with python -m metrics"
        )

    snapshot = find_snapshot(run)
    evaluation = open_evaluation(
        snapshot, data, no_extractor, device=device, seed=seed,
        say=lambda text: click.echo(f"{_called(run)}: {text}", err=True),
    )  # fmt: skip
    told = evaluation.protocol()
    same = {name: told[name] for name in ("model_digest", "dataset_digest", "seed", "version", "commit")}
    folder = snapshot.absolute().parent
    records: dict[str, dict[str, Any]] = {}
    for request in requests:
        path = folder / f"metric-{request.name}.jsonl"
        for record in read_jsonl(path) if path.exists() and not again else []:
            protocol = record.get("protocol") or {}
            if all(protocol.get(name) == value for name, value in same.items()):
                records[request.name] = record
    left = [request for request in requests if request.name not in records]
    for item in measure(evaluation, left, folder, say=evaluation.say):
        if not item.record:
            raise Failure(f"{run}: {item.failure}")
        records[item.name] = item.record
    return records


def scores_table(names: Sequence[str], by_metric: Mapping[str, Sequence[float]]) -> str:
    """A line a model, a column a metric."""
    wide = max(len("model"), *map(len, names))
    lines = [f"{'model':<{wide}}" + "".join(f"  {metric:>13}" for metric in by_metric)]
    for i, name in enumerate(names):
        lines.append(f"{name:<{wide}}" + "".join(f"  {values[i]:13.4f}" for values in by_metric.values()))
    return "\n".join(lines)


def agreement_table(found: RankAgreement) -> str:
    """The lecture's table: metrics lettered, correlations times 100; a dash where there is none."""
    letters = [f"({chr(ord('A') + i)})" for i in range(len(found.names))]
    wide = max(len(name) for name in found.names) + 4
    lines = [
        f"Spearman's rank correlation of the metrics over {found.models} models, times 100:",
        " " * wide + "".join(f"{letter:>6}" for letter in letters),
    ]
    for name, letter, row in zip(found.names, letters, found.correlation):
        cells = "".join("     -" if value != value else f"{round(100 * value):6d}" for value in row)
        lines.append(f"{name + ' ' + letter:<{wide}}{cells}")
    if found.models < 10:
        lines.append(f"With {found.models} models a correlation of any size may be chance.")
    return "\n".join(lines)


def _write_csv(
    path: Path, names: Sequence[str], by_metric: Mapping[str, Sequence[float]], found: RankAgreement
) -> None:
    import csv

    from dnnlib.files import atomic_write

    with atomic_write(path, "w") as file:
        writer = csv.writer(file)
        writer.writerow(["model", *by_metric])
        writer.writerows(
            [name, *(values[i] for values in by_metric.values())] for i, name in enumerate(names)
        )
        writer.writerow([])
        writer.writerow(["spearman", *found.names])
        writer.writerows([name, *row] for name, row in zip(found.names, found.correlation.tolist()))
