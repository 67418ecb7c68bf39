"""What a run folder holds. A run may be unfinished, damaged, without codes, or somebody else's: whatever
cannot be read is noted and left out."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from dnnlib.files import DamagedFile, read_jsonl
from infostylegan.codes import CodeError, CodeSpec
from infostylegan.export import SnapshotError, load_snapshot, snapshots_of
from infostylegan.naming import code_names

LARGEST_SETTINGS = 1 << 20  # bytes


class NoRun(UserError):  # noqa: N818  named for what it is
    """A folder that no run was written to; the message says what is missing."""


@dataclass
class Run:
    """Everything that a report can tell of."""

    folder: Path
    options: dict[str, Any]  # training_options.json
    stats: list[dict[str, Any]]  # ticks, in order
    result: dict[str, Any] | None  # of a run that came to its end
    metrics: dict[str, list[dict[str, Any]]]  # metric -> its records, in order of images
    names: dict[str, str]  # of the codes
    ceilings: dict[str, float]
    entropies: dict[str, float]
    dataset: dict[str, Any]  # what the newest snapshot says of the data
    parameters: dict[str, int]  # of the networks in that snapshot
    snapshot: str | None
    label_names: list[str]
    log: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def images(self) -> int:
        seen = [_number(record.get("images")) for record in self.stats]
        return int(max([value for value in seen if 0 <= value < 1e15] + [0.0]))

    @property
    def information(self) -> dict[str, float]:
        """Nats of each code: of the run's end on fresh samples, or of the last tick."""
        if self.result is not None:
            found = self.result.get("information")
            measured = found.get("G_ema") if isinstance(found, dict) else None
            if isinstance(measured, dict) and measured:
                return {str(k): _number(v) for k, v in measured.items()}
        for record in reversed(self.stats):
            if isinstance(record.get("information"), dict) and record["information"]:
                return {str(k): _number(v) for k, v in record["information"].items()}
        return {}

    def pictures(self, pattern: str) -> list[Path]:
        return sorted(path for path in self.folder.glob(pattern) if path.is_file())


def _number(value: Any) -> float:
    """A number, or NaN for what is none: records may hold anything."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")


def gather(folder: Path) -> Run:
    """Read a run folder. Raises NoRun where nothing of a run is in it."""
    notes: list[str] = []
    options_file, stats_file = folder / "training_options.json", folder / "stats.jsonl"
    if not folder.is_dir():
        raise NoRun(f"{folder}: no such folder")
    if not options_file.exists() and not stats_file.exists():
        inside = [p.name for p in sorted(folder.iterdir()) if (p / "training_options.json").exists()]
        hint = f"; it holds the runs {', '.join(inside[:5])}: name one" if inside else ""
        raise NoRun(f"{folder}: no run folder (no training_options.json or stats.jsonl in it){hint}")
    options = _json(options_file, notes)
    stats = [r for r in _lines(stats_file, notes) if "metrics" not in r]
    result = _lines(folder / "result.jsonl", notes)
    metrics: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("metric-*.jsonl")):
        records = [r for r in _lines(path, notes) if isinstance(r.get("results"), dict)]
        records.sort(key=lambda r: (_number(r.get("images")), str(r.get("time", ""))))
        if records:
            metrics[path.stem.removeprefix("metric-")] = records
    run = Run(
        folder, options, stats, result[-1] if result else None, metrics, {}, {}, {}, {}, {}, None, [],
        _log(folder / "log.txt"), notes,
    )  # fmt: skip
    _read_snapshot(run)
    _read_codes(run)
    return run


def _tame(value: Any) -> Any:
    """JSON with infinity in the place of whole numbers that no float holds."""
    if isinstance(value, dict):
        return {key: _tame(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tame(item) for item in value]
    return math.inf if isinstance(value, int) and abs(value) > 2**63 else value


def _json(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_SETTINGS:
            notes.append(f"{path.name} is too large for settings, and was not read")
            return {}
        content = _tame(json.loads(path.read_text(encoding="utf-8")))
        if isinstance(content, dict):
            return content
        notes.append(f"{path.name} holds no settings")
    except FileNotFoundError:
        notes.append(f"{path.name} is missing")
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} cannot be read: {error}")
    return {}


def _lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        return [_tame(record) for record in read_jsonl(path)]
    except FileNotFoundError:
        return []
    except (OSError, DamagedFile, UnicodeDecodeError, RecursionError) as error:
        notes.append(str(error).replace(str(path), path.name))
        return []


def _log(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 200_000))
            return file.read().decode("utf-8", "replace").splitlines()[-400:]
    except OSError:
        return []


def _read_snapshot(run: Run) -> None:
    for path in reversed(snapshots_of(run.folder)):
        try:
            content = load_snapshot(path)
        except SnapshotError as error:
            run.notes.append(str(error).replace(str(path), path.name))
            continue
        run.snapshot, run.names = path.name, code_names(content)
        run.parameters = {
            name: sum(p.numel() for p in content[name].parameters())
            for name in ("G", "D")
            if hasattr(content.get(name), "parameters")
        }
        codes: CodeSpec = content["G_ema"].codes
        run.ceilings, run.entropies = codes.ceilings(), {code.name: code.entropy for code in codes}
        if isinstance(content.get("dataset"), dict):
            run.dataset = content["dataset"]
        if isinstance(content.get("label_names"), list):
            run.label_names = [str(name) for name in content["label_names"]]
        if not run.options and isinstance(content.get("training_options"), dict):
            run.options = content["training_options"]
        return


def _read_codes(run: Run) -> None:
    """The codes of a run that has no snapshot yet."""
    if run.ceilings or not isinstance(run.options.get("codes"), str):
        return
    try:
        keys = ("codes", "uniform", "sigma_min")
        codes = CodeSpec.from_config({key: run.options[key] for key in keys})
        run.ceilings, run.entropies = codes.ceilings(), {code.name: code.entropy for code in codes}
    except (CodeError, KeyError, TypeError) as error:
        run.notes.append(f"training_options.json: codes cannot be read ({error})")


def kimg_of(path: Path) -> float | None:
    """Thousands of images in a picture's name, fakes000200.png -> 200."""
    match = re.search(r"(\d+)$", path.stem)
    return float(match[1]) if match else None
