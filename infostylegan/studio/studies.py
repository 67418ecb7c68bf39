"""ACM studies in a folder, as the page shows them: nothing here tells a rater which model drew a row."""

from __future__ import annotations

import math
import re
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infostylegan.export.tensors import WEIGHTS
from infostylegan.studio.jobs import Job
from metrics.errors import MetricError
from metrics.study import Rated, Study

MAX_SAMPLES = 500
MAX_ATTRIBUTE = 120  # characters
MAX_MEMORY = 4 << 30  # bytes of images, which are all drawn before the first row is written


class Studies:
    """The studies in one folder, a folder each, by its name. Votes go through one lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._voting = threading.Lock()

    def names(self) -> list[str]:
        return sorted(path.parent.name for path in self.folder.glob("*/study.json"))

    def open(self, name: str) -> Study:
        """The study of that name. Raises MetricError; a name is looked up and never used as a path."""
        if name not in self.names():
            raise MetricError(f"there is no study {name[:60]!r}")
        return Study.open(self.folder / name)

    def summaries(self) -> list[dict[str, Any]]:
        """What the list shows: name, attribute, rows, and how far each rater has come."""
        found: list[dict[str, Any]] = []
        for name in self.names():
            try:
                study = self.open(name)
                raters = {rater: len(study.votes(rater)) for rater in study.raters()}
            except MetricError as error:
                found.append({"name": name, "error": str(error)})
                continue
            found.append(
                {"name": name, "attribute": study.attribute, "rows": len(study.items), "raters": raters}
            )
        return found

    def row(self, name: str, item: str) -> Path:
        """The picture of a row. Raises MetricError for anything that is no row of the study."""
        path = self.open(name).image(item)
        # study.json may have come from elsewhere, and its items' names with it.
        if path.resolve().parent != (self.folder / name / "rows").resolve() or not path.is_file():
            raise MetricError(f"{name}: has no picture of row {item[:60]!r}")
        return path

    def progress(self, name: str, rater: str) -> dict[str, Any]:
        """Where a rater stands: votes given, and the rows to come in this rater's order.

        `before` is the row that an undo takes back.
        """
        study = self.open(name)
        votes = study.votes(rater)
        order = study.order(rater)
        first = next((i for i, item in enumerate(order) if item not in votes), len(order))
        return {
            "name": name,
            "question": study.question,
            "attribute": study.attribute,
            "rater": rater,
            "rows": len(order),
            "voted": len(votes),
            "next": [item for item in order[first:] if item not in votes][:3],
            "before": order[first - 1] if first else None,
        }

    def vote(self, name: str, rater: str, item: str, answer: bool | None) -> dict[str, Any]:
        """Record a vote (None takes it back), and where the rater stands after it."""
        with self._voting:
            self.open(name).vote(rater, item, answer)
            return self.progress(name, rater)

    def score(self, name: str) -> dict[str, Any]:
        """`Study.score()` as plain data: the same numbers as `python -m metrics acm score`."""
        with self._voting:
            score: dict[str, Any] = _plain(asdict(self.open(name).score()))
        return score

    def create(self, job: Job, snapshot: Path, request: Mapping[str, Any]) -> None:
        """Render a new study of one code of a snapshot: the work of a job.

        request   code, attribute, samples, seed; `name` of the folder, by default from the attribute
        Raises MetricError.
        """
        attribute = " ".join(str(request.get("attribute") or "").split())
        samples, seed = request.get("samples", 100), request.get("seed", 0)
        if not attribute or len(attribute) > MAX_ATTRIBUTE:
            raise MetricError(f"name the attribute that is to be judged, in at most {MAX_ATTRIBUTE} letters")
        if type(samples) is not int or not 1 <= samples <= MAX_SAMPLES:
            raise MetricError(f"samples: a whole number from 1 to {MAX_SAMPLES}")
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise MetricError("seed: a whole number from 0 to 4294967295")
        folder = self.folder / self._free_name(str(request.get("name") or attribute))
        # What is digested for the record is one file.
        file = snapshot / WEIGHTS if snapshot.is_dir() else snapshot
        rated = Rated.load(file, str(request.get("code", "")))
        # Most of the time goes into drawing, which Study.create does not report.
        values = len(rated.G.codes[rated.G.codes.names.index(rated.code)].traversal())
        images, drawn = samples * values, 0
        most = MAX_MEMORY // (values * rated.G.channels * int(rated.G.grown_resolution) ** 2 * 4)
        if samples > most:
            raise MetricError(f"samples {samples}: at this resolution at most {most} fit into memory")

        def count(module: Any, inputs: Any, output: Any) -> None:
            nonlocal drawn
            drawn += len(output)
            job.step(min(drawn, images), images)

        rated.G.register_forward_hook(count)
        folder.mkdir(parents=True)
        try:
            study = Study.create(folder, [rated], attribute=attribute, samples=samples, seed=seed)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # half a study is none
            raise
        job.result = {"name": study.folder.name}

    def _free_name(self, text: str) -> str:
        """A folder's name made of `text` that is not taken."""
        stem = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "study"
        name, number = stem, 2
        while (self.folder / name).exists():
            name, number = f"{stem}-{number}", number + 1
        return name


def _plain(value: Any) -> Any:
    """As JSON can hold it: NaN (agreement where chance is certain) is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
