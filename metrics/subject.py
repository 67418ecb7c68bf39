"""From what a user names (a snapshot, a run folder, a data set) to what is measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infostylegan.data import DataError, Dataset, open_dataset
from infostylegan.export import load_snapshot
from metrics.errors import MetricError
from metrics.evaluation import Evaluation
from metrics.features import Extractor


def open_data(snapshot: Path, data: str | None, labels: bool = True) -> Dataset:
    """The data set to measure on, at the generator's size and channels.

    Without a name it is the one that the run was trained on, as its training_options.json tells; the protocol
    says whether it still is. Raises DataError, or MetricError where nothing tells.
    """
    content = load_snapshot(snapshot)
    G = content["G_ema"]
    run = _how_it_was_run(snapshot)
    name = data or run.get("data") or (content.get("dataset") or {}).get("name")
    if not name:
        raise MetricError(f"{snapshot}: does not tell what it was trained on; give --data")
    if data is None and (there := Path(run.get("folder", ""), name)).exists():
        name = str(there)  # a path, given where the run was started
    try:
        return open_dataset(
            name, resolution=G.resolution, channels=G.channels, fit=run.get("fit", "crop"),
            max_bad=run.get("max_bad", 0.05), labels=labels,
        )  # fmt: skip
    except DataError as error:
        if data is None:
            raise DataError(
                f"{error}; {snapshot.name} was trained on it: say with --data where it is"
            ) from None
        raise


def open_evaluation(
    snapshot: Path, data: str | None, extractor_source: Callable[[], Extractor], **options: Any
) -> Evaluation:
    """The snapshot and the data set to measure it on; `options` are those of Evaluation."""
    dataset = open_data(snapshot, data)
    return Evaluation(
        snapshot, dataset, extractor_source,
        unlabelled=lambda: open_data(snapshot, data, labels=False).digest, **options,
    )  # fmt: skip


def _how_it_was_run(snapshot: Path) -> dict[str, Any]:
    """What training_options.json tells of how the data were opened."""
    try:
        told = json.loads((snapshot.parent / "training_options.json").read_text())["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return told if isinstance(told, dict) else {}
