"""Measure a snapshot: metrics by name -> a table, a line in metric-<name>.jsonl each, and their pictures."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dnnlib.files import DamagedFile, append_jsonl, atomic_write
from infostylegan.data import DataError
from metrics.errors import MetricError
from metrics.evaluation import Evaluation
from metrics.measures import MEASURES, Outcome, Picture, Request

# What a metric may fail with for a reason that a user can understand; all else is a mistake of this program.
EXPECTED = (MetricError, DataError, DamagedFile, OSError)


@dataclass(frozen=True)
class Measured:
    """One metric's record, as it stands in metric-<name>.jsonl, or why there is none."""

    name: str
    record: dict[str, Any]
    notes: list[str]
    failure: str = ""
    skipped: bool = False  # it does not apply to this snapshot and data


def measure(
    evaluation: Evaluation,
    requests: Sequence[Request],
    folder: Path,
    *,
    only_applicable: bool = False,
    say: Callable[[str], None] = lambda text: None,
    extra: dict[str, Any] | None = None,
) -> list[Measured]:
    """Compute each metric; one that fails does not keep the others from being computed.

    only_applicable  pass over metrics that the snapshot or the data lack something for
    extra            goes into each record's protocol
    """
    measured = []
    for request in requests:
        lacking = MEASURES[request.kind].lacks(evaluation)
        if lacking:
            text = f"{request.name} needs {lacking}, and there is none"
            measured.append(Measured(request.name, {}, [], text, skipped=only_applicable))
            continue
        say(f"{request.name}: {MEASURES[request.kind].about}")
        try:
            measured.append(_measure_one(evaluation, request, folder, extra or {}))
        except EXPECTED as error:
            measured.append(Measured(request.name, {}, [], f"{request.name}: {error}"))
    return measured


def _measure_one(evaluation: Evaluation, request: Request, folder: Path, extra: dict[str, Any]) -> Measured:
    started = time.perf_counter()
    # Whoever measures in the midst of something else goes on with the random state that was there.
    with torch.random.fork_rng([]), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        outcome: Outcome = MEASURES[request.kind].run(evaluation, request)
    told = [w for w in caught if issubclass(w.category, (UserWarning, RuntimeWarning))]
    warned = dict.fromkeys(str(w.message).splitlines()[0] for w in told)
    notes = [*outcome.notes, *warned]
    record = {
        "metric": request.name,
        "results": outcome.results,
        "interval": {name: list(ends) for name, ends in outcome.interval.items()},
        "snapshot": evaluation.snapshot.name,
        "images": evaluation.images,
        "protocol": {**evaluation.protocol(), **outcome.protocol, **extra},
        "notes": notes,
        "seconds": round(time.perf_counter() - started, 1),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    append_jsonl(folder / f"metric-{request.name}.jsonl", record)
    for suffix, picture in outcome.pictures.items():
        save_picture(picture, folder / f"metric-{request.name}{suffix}.png")
    return Measured(request.name, record, notes)


def save_picture(picture: Picture, path: Path) -> None:
    with atomic_write(path) as file:
        if isinstance(picture, Image.Image):
            picture.save(file, format="PNG")
        else:
            picture.savefig(file, format="png")


def table(measured: Sequence[Measured]) -> str:
    """Every number with its interval, one a line."""
    rows = [("result", "value", "95 % interval")]
    for item in measured:
        for name, value in (item.record.get("results") or {}).items():
            ends = item.record["interval"].get(name)
            rows.append((name, f"{value:.4g}", f"{ends[0]:.4g} … {ends[1]:.4g}" if ends else ""))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}".rstrip() for a, b, c in rows)
