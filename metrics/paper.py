"""The paper's Tables 1, 2 and 3, and where a run of ours stands in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnnlib.files import read_jsonl
from infostylegan.codes import CodeSpec
from metrics.errors import MetricError


@dataclass(frozen=True)
class Cell:
    """One number of a table: its value, what stands behind ±, and a word on how it was taken."""

    value: float
    spread: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    model: str
    source: str  # "paper", or the run's folder
    cells: dict[str, Cell]  # by column


@dataclass(frozen=True)
class Table:
    number: int
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


MODELS = (
    "MSI(S = 0, β = 1, d = 0)",
    "MSI(S = 1, β = 0, d = 0)",
    "MSI(S = 1, β = 1, d = 0)",
    "MSI(S = 1, β = 1, d = 1)",
)
PAPER = "paper"


def _row(model: str, **cells: Cell) -> Row:
    return Row(model, PAPER, {name.replace("_", " "): cell for name, cell in cells.items()})


# FID of the best snapshot; ± is the standard deviation over five estimates.
TABLE_1 = (
    _row(MODELS[0], CelebA=Cell(9.91, 0.06), EyePACS=Cell(5.15, 0.03)),
    _row(MODELS[1], CelebA=Cell(9.08, 0.10), EyePACS=Cell(4.11, 0.02)),
    _row(MODELS[2], CelebA=Cell(9.90, 0.07), EyePACS=Cell(4.52, 0.03)),
    _row(MODELS[3], CelebA=Cell(14.3, 0.05), EyePACS=Cell(9.59, 0.10)),
    _row("WGAN GP", CelebA=Cell(30.0, None, "as others reported it")),
    _row("BEGAN", CelebA=Cell(38.9, None, "as others reported it")),
    _row("DRAGAN", CelebA=Cell(42.3, None, "as others reported it")),
    _row("COCO-GAN", CelebA=Cell(4.2, None, "as others reported it")),
)
# On CelebA's 40 attributes, in nats.
TABLE_2 = (
    _row(MODELS[0], MIG=Cell(2.4e-2, None, "CelebA"), max_information=Cell(4.9e-2, None, "CelebA")),
    _row(MODELS[2], MIG=Cell(3.4e-2, None, "CelebA"), max_information=Cell(5.9e-2, None, "CelebA")),
    _row(MODELS[3], MIG=Cell(1.2e-4, None, "CelebA"), max_information=Cell(3.0e-4, None, "CelebA")),
)
# On EyePACS, judged by eye; ± is the 95 % margin.
TABLE_3 = (
    _row(MODELS[0], ACM=Cell(0.970, 0.034, "Melanin, EyePACS")),
    _row(MODELS[2], ACM=Cell(0.960, 0.038, "Melanin, EyePACS")),
    _row(MODELS[3], ACM=Cell(0.710, 0.089, "Glare, EyePACS")),
)


def model_name(options: dict[str, Any]) -> str:
    """MSI(S, β, d) of a run, from its options."""
    spec = CodeSpec.parse(str(options["codes"]))
    discrete = len(spec) > 0 and all(code.kind != "unif" for code in spec)
    beta = float(options["beta"]) if len(spec) else 0.0
    return f"MSI(S = {int(bool(options['styles']))}, β = {beta:g}, d = {int(discrete)})"


def tables(runs: Sequence[Path]) -> list[Table]:
    """The three tables, the paper's rows first. Raises MetricError for a folder that is no run."""
    ours = [(run, model_name(_options(run))) for run in runs]
    fids = [_row_of(run, name, _fid(run)) for run, name in ours]
    columns = dict.fromkeys(["CelebA", "EyePACS", *(c for row in fids for c in row.cells)])
    return [
        Table(1, "Quality: FID of the best snapshot (± standard deviation over estimates)", tuple(columns),
              (*TABLE_1, *fids)),
        Table(2, "Attributes: MIG through Q, and the largest I(V; C) in nats", ("MIG", "max information"),
              (*TABLE_2, *(_row_of(run, name, _mig(run)) for run, name in ours))),
        Table(3, "Attribute control: ACM (± 95 % margin)", ("ACM",),
              (*TABLE_3, *(row for run, name in ours for row in _acm(run, name)))),
    ]  # fmt: skip


def _row_of(run: Path, name: str, cells: dict[str, Cell]) -> Row:
    return Row(name, run.name, cells)


def _options(run: Path) -> dict[str, Any]:
    path = run / "training_options.json"
    try:
        options = json.loads(path.read_text())
        return {key: options[key] for key in ("styles", "beta", "codes", "data")}
    except (OSError, ValueError, KeyError, TypeError):
        raise MetricError(f"{run}: no run folder (it has no sound training_options.json)") from None


def _records(run: Path, pattern: str) -> list[dict[str, Any]]:
    return [record for path in sorted(run.glob(pattern)) for record in read_jsonl(path)]


def _fid(run: Path) -> dict[str, Cell]:
    """The best FID for each way in which it was taken; each way is a column of its own."""
    best: dict[str, Cell] = {}
    for record in _records(run, "metric-fid*.jsonl"):
        protocol = record["protocol"]
        for name, value in record["results"].items():
            if name.endswith("_std") or value is None:
                continue
            column = f"{protocol['dataset']}, {name}"
            snapshot = f"{record['images'] / 1000:g} kimg"
            cell = Cell(value, record["results"].get(f"{name}_std"), snapshot)
            if column not in best or value < best[column].value:
                best[column] = cell
    return best


def _newest(records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The record of the latest snapshot; of several of it, the latest."""
    return max(records, key=lambda r: (r["images"], r["time"]), default=None)


def _mig(run: Path) -> dict[str, Cell]:
    record = _newest(_records(run, "metric-mig.jsonl"))
    if record is None:
        return {}
    protocol, found = record["protocol"], record["results"]
    low, high = record["interval"].get("mig", (None, None))
    spread = None if low is None else (high - low) / 2
    attributes = protocol["attributes"]
    what = attributes[0] if len(attributes) == 1 else f"{len(attributes)} attributes"
    where = f"{protocol['dataset']}, {what}"
    attribute, code = protocol["max_information_at"]
    ceiling = found.get("max_information_ceiling")
    return {
        "MIG": Cell(found["mig"], spread, where),
        "max information": Cell(
            found["max_information"], None, f"{attribute} by {code}; ceiling {ceiling:.3g}"
        ),
    }


def _acm(run: Path, name: str) -> list[Row]:
    """What raters found, in studies kept in the run's folder or recorded in it, then what judges measured."""
    from metrics.study import Study

    rows = []
    kept = set()
    for path in sorted(run.glob("*/study.json")):
        study = Study.open(path.parent)
        kept.add(study.digest)
        score = study.score()
        for model in score.models:
            if model.acm is not None:
                note = f"{score.attribute}; raters: {len(score.raters)}"
                cell = Cell(model.acm.value, model.acm.margin, note)
                rows.append(Row(f"{name}, {model.model.name}", run.name, {"ACM": cell}))
    judged = []
    rated: dict[tuple[str, str, str], dict[str, Any]] = {}  # a study scored again replaces its older score
    for record in _records(run, "metric-acm*.jsonl"):
        protocol = record["protocol"]
        if protocol.get("judge") != "raters":
            judged.append(record)
        elif protocol["study_digest"] not in kept:
            rated[protocol["study_digest"], protocol["model_digest"], protocol["code"]] = record
    for record in rated.values():
        protocol, found = record["protocol"], record["results"]
        note = f"{protocol['attribute']}; raters: {len(protocol['raters'])}"
        cell = Cell(found["acm"], found["acm_margin"], note)
        rows.append(Row(f"{name}, {record['snapshot']}", run.name, {"ACM": cell}))
    latest = _newest(judged)
    if latest is not None:
        best = latest["protocol"]["best_code"]
        names = sorted(best, key=lambda attribute: -latest["results"][f"acm_{attribute}"])
        for attribute in names:
            value, told = latest["results"][f"acm_{attribute}"], best[attribute]
            note = f"{attribute} by {told['code']}; automatic, {latest['protocol']['dataset']}"
            rows.append(Row(name, run.name, {"ACM": Cell(value, told["margin"], note)}))
    return rows or [Row(name, run.name, {})]


# ---- as text -------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    lines = [
        f"**Table {table.number}.** {table.title}",
        "",
        "| model | source | " + " | ".join(table.columns) + " |",
        "|---" * (2 + len(table.columns)) + "|",
    ]
    for row in table.rows:
        cells = [_shown(row.cells.get(column), table.number) for column in table.columns]
        lines.append(f"| {row.model} | {row.source} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


FORMATS = {1: (".2f", ".2f"), 2: (".3g", ".1g"), 3: (".1%", ".1%")}


def _shown(cell: Cell | None, number: int) -> str:
    if cell is None:
        return "–"
    of_value, of_spread = FORMATS[number]
    text = format(cell.value, of_value)
    if cell.spread is not None:
        text += f" (± {format(cell.spread, of_spread)})"
    return f"{text}, {cell.note}" if cell.note else text


def csv_rows(found: Sequence[Table]) -> list[list[str]]:
    """One line a number: table, model, source, column, value, spread, note."""
    lines = [["table", "model", "source", "column", "value", "spread", "note"]]
    for table in found:
        for row in table.rows:
            for column, cell in row.cells.items():
                spread = "" if cell.spread is None else repr(cell.spread)
                number = str(table.number)
                lines.append([number, row.model, row.source, column, repr(cell.value), spread, cell.note])
    return lines
