"""Metrics of a run's snapshots, while it trains: what train.py hangs on the training's hook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dnnlib.files import append_jsonl, truncate_jsonl
from infostylegan.data import Dataset
from metrics.evaluation import Evaluation
from metrics.features import Extractor
from metrics.measures import Request
from metrics.runner import Measured, measure

if TYPE_CHECKING:
    from infostylegan.training.loop import Snapshot

DURING = "training"


class MetricsHook:
    """Measures each snapshot from its file, so that nothing of the training's state is touched.

    Results go to metric-<name>.jsonl, a line of stats.jsonl, TensorBoard and the log. Whatever fails is a
    warning in the log, and the run goes on.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        dataset: Dataset,
        extractor_source: Callable[[], Extractor],
        device: torch.device,
        seed: int = 0,
    ) -> None:
        self.requests, self.dataset, self.device, self.seed = requests, dataset, device, seed
        self._source = extractor_source
        self._extractor: Extractor | None = None

    def extractor(self) -> Extractor:
        """Opened once a run."""
        if self._extractor is None:
            self._extractor = self._source()
        return self._extractor

    def __call__(self, snapshot: Snapshot) -> None:
        state = torch.random.get_rng_state()
        try:
            evaluation = Evaluation(
                snapshot.path, self.dataset, self.extractor, device=self.device, seed=self.seed, estimates=1
            )
            for request in self.requests:
                try:
                    self._measure(evaluation, request, snapshot)
                except Exception as error:  # whatever it is, it is not worth a run
                    warn(snapshot, request.name, error)
        except Exception as error:
            warn(snapshot, "metrics", error)
        finally:
            torch.random.set_rng_state(state)

    def _measure(self, evaluation: Evaluation, request: Request, snapshot: Snapshot) -> None:
        folder, images = snapshot.folder, snapshot.images
        # A run that was killed after this snapshot and before its checkpoint comes by here again.
        truncate_jsonl(folder / f"metric-{request.name}.jsonl", lambda record: not repeated(record, images))
        (item,) = measure(evaluation, [request], folder, extra={"during": DURING})
        for note in item.notes:
            snapshot.log.warn(f"{item.name}: {note}")
        if item.failure:
            snapshot.log.warn(f"{snapshot.path.name}: {one_line(item.failure)}")
        else:
            self._report(item, snapshot)

    def _report(self, item: Measured, snapshot: Snapshot) -> None:
        results: dict[str, float] = item.record["results"]
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in results.items())
        snapshot.log.line(f"metric {snapshot.images / 1000:.1f} kimg  {numbers}")
        stats = {"kimg": snapshot.images / 1000, "images": snapshot.images, "metrics": results}
        append_jsonl(snapshot.folder / "stats.jsonl", stats)
        for name, value in results.items():
            snapshot.events.add_scalar(f"metrics/{name}", value, snapshot.images)
        snapshot.events.flush()


def repeated(record: dict[str, Any], images: int) -> bool:
    """Whether a record was made during training at this snapshot or a later one."""
    return record.get("protocol", {}).get("during") == DURING and record.get("images", 0) >= images


def warn(snapshot: Snapshot, what: str, error: Exception) -> None:
    snapshot.log.warn(f"{what} of {snapshot.path.name}: {type(error).__name__}: {one_line(error)}")


def one_line(error: object) -> str:
    return " ".join(str(error).split())


def make_hook(
    requests: Sequence[Request],
    dataset: Dataset,
    *,
    extractor: str,
    weights: Path | None,
    device: torch.device,
    say: Callable[[str], None],
) -> MetricsHook:
    """The hook that measures these. Raises MetricError for an extractor that cannot be had, now and not after
    the first hours of training."""
    from metrics.features import open_extractor
    from metrics.measures import MEASURES

    hook = MetricsHook(
        requests,
        dataset,
        lambda: open_extractor(extractor, weights=weights, device=device, warn=say),
        device,
    )
    if any(MEASURES[request.kind].samples for request in requests):
        hook.extractor()
    return hook
