"""The paper's tables: its own figures as its text has them, and runs put beside them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from dnnlib.files import append_jsonl
from infostylegan import Generator
from metrics.__main__ import main
from metrics.paper import TABLE_1, TABLE_2, TABLE_3, model_name, tables
from metrics.study import Rated, Study


def test_the_papers_figures_are_those_of_its_text(shared: Path) -> None:
    papers = list(shared.glob("seeds/004_*.txt"))
    if not papers:
        pytest.skip("the paper's text is not here")
    text = papers[0].read_text().replace(" ", "").replace("\\pm", "±").replace("$", "")
    for row in TABLE_1:
        cells = [f"{c.value:.3g}(±{c.spread:.2f})" for c in row.cells.values() if c.spread is not None]
        cells = [cell.replace("9.9(", "9.90(") for cell in cells] or [f"{row.cells['CelebA'].value}"]
        for cell in cells:
            assert cell in text, cell
    for row in TABLE_2:
        values = [re.sub(r"e-0?", "e-", f"{c.value:.1e}") for c in row.cells.values()]
        assert "\t".join(values) in text, values
    for row in TABLE_3:
        (cell,) = row.cells.values()
        assert f"{cell.value:.1%}({cell.spread:.1%})\t{cell.note.split(',')[0]}" in text


@pytest.mark.parametrize(
    ("styles", "beta", "codes", "name"),
    [
        (True, 1.0, "cat:3,bern:7,unif:10", "MSI(S = 1, β = 1, d = 0)"),
        (False, 1.0, "cat:3,bern:7,unif:10", "MSI(S = 0, β = 1, d = 0)"),
        (True, 0.0, "none", "MSI(S = 1, β = 0, d = 0)"),
        (True, 1.0, "cat:3,bern:7", "MSI(S = 1, β = 1, d = 1)"),
        (True, 0.3, "cat:3,unif:1", "MSI(S = 1, β = 0.3, d = 0)"),
    ],
)
def test_a_run_is_named_as_the_paper_names_its_family(
    styles: bool, beta: float, codes: str, name: str
) -> None:
    assert model_name({"styles": styles, "beta": beta, "codes": codes}) == name


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "00000-eyes"
    folder.mkdir()
    options = {"styles": True, "beta": 1.0, "codes": "cat:3,unif:2", "data": "eyes"}
    (folder / "training_options.json").write_text(json.dumps(options))
    for images, value, deviation in ((100_000, 9.0, 0.1), (200_000, 7.0, 0.2), (300_000, 8.0, 0.3)):
        append_jsonl(folder / "metric-fid50k_full.jsonl", {
            "metric": "fid50k_full", "results": {"fid50k_full": value, "fid50k_full_std": deviation},
            "interval": {}, "images": images, "protocol": {"dataset": "eyes"}, "time": f"t{images}",
        })  # fmt: skip
    for images, value in ((300_000, 0.03), (200_000, 0.5)):
        append_jsonl(folder / "metric-mig.jsonl", {
            "results": {"mig": value, "max_information": 0.06, "max_information_ceiling": 0.3},
            "interval": {"mig": [value - 0.01, value + 0.01]}, "images": images, "time": f"t{images}",
            "protocol": {"dataset": "eyes", "attributes": ["a", "b"], "max_information_at": ["a", "unif1"]},
        })  # fmt: skip
    append_jsonl(folder / "metric-acm100.jsonl", {
        "results": {"acm_hue": 0.4, "acm_brightness": 0.9}, "interval": {}, "images": 300_000, "time": "t",
        "protocol": {"dataset": "eyes", "best_code": {
            "hue": {"code": "unif0", "margin": 0.1}, "brightness": {"code": "cat0", "margin": 0.06},
        }},
    })  # fmt: skip
    return folder


def test_a_run_stands_with_its_best_fid_its_latest_mig_and_its_best_acm_first(run: Path) -> None:
    first, second, third = tables([run])
    assert "eyes, fid50k_full" in first.columns
    fid = first.rows[-1].cells["eyes, fid50k_full"]
    assert (fid.value, fid.spread, fid.note) == (7.0, 0.2, "200 kimg")
    mig = second.rows[-1].cells["MIG"]
    assert mig.value == 0.03
    assert mig.spread == pytest.approx(0.01)
    ours = [row.cells["ACM"] for row in third.rows if row.source == "00000-eyes"]
    assert [cell.value for cell in ours] == [0.9, 0.4]
    assert ours[0].note.startswith("brightness by cat0")


def test_a_rating_study_kept_in_the_run_stands_before_the_automatic_judges(run: Path) -> None:
    G = Generator(8, "cat:2,unif:1", latent_dim=8, fmap_base=16, fmap_max=4, mapping_layers=1)
    study = Study.create(
        run / "study",
        [Rated(G, "unif0", "eyes", "0" * 64)],
        attribute="glow",
        samples=4,
        controls=0,
        repeats=0,
    )
    for number, item in enumerate(study.order("ann")):
        study.vote("ann", item, number > 0)
    third = tables([run])[2]
    first = next(row for row in third.rows if row.source == "00000-eyes")
    assert first.cells["ACM"].value == 0.75
    assert first.cells["ACM"].note == "glow; raters: 1"


def test_a_score_recorded_from_a_study_elsewhere_stands_there_too_and_the_last_one_of_it(run: Path) -> None:
    for share in (0.5, 0.9):
        append_jsonl(run / "metric-acm.jsonl", {
            "metric": "acm", "results": {"acm": share, "acm_margin": 0.1}, "interval": {"acm": [0, 1]},
            "snapshot": "network-snapshot-000300.pkl", "images": 300_000, "time": "t",
            "protocol": {"judge": "raters", "attribute": "glow", "code": "unif0", "raters": ["ann", "bo"],
                         "rows": 100, "study_digest": "1" * 64, "model_digest": "2" * 64},
        })  # fmt: skip
    ours = [row.cells["ACM"] for row in tables([run])[2].rows if row.source == "00000-eyes"]
    assert [cell.value for cell in ours] == [0.9, 0.9, 0.4]
    assert ours[0].note == "glow; raters: 2"


def test_the_command_prints_markdown_and_csv(run: Path) -> None:
    page = CliRunner().invoke(main, ["table", str(run)])
    assert page.exit_code == 0, page.output
    assert "| MSI(S = 1, β = 1, d = 0) | 00000-eyes | – | – | 7.00 (± 0.20), 200 kimg |" in page.stdout
    assert "| MSI(S = 1, β = 1, d = 0) | paper | 9.90 (± 0.07) | 4.52 (± 0.03) | – |" in page.stdout
    rows = list(
        csv.DictReader(io.StringIO(CliRunner().invoke(main, ["table", str(run), "--format", "csv"]).stdout))
    )
    ours = [row for row in rows if row["source"] == "00000-eyes"]
    assert {row["table"] for row in ours} == {"1", "2", "3"}
    assert float(ours[0]["value"]) == 7.0


def test_a_run_without_results_has_dashes_and_a_folder_that_is_none_is_named(
    run: Path, tmp_path: Path
) -> None:
    for path in run.glob("metric-*"):
        path.unlink()
    page = CliRunner().invoke(main, ["table", str(run)])
    assert "| MSI(S = 1, β = 1, d = 0) | 00000-eyes | – | – |" in page.stdout
    wrong = CliRunner().invoke(main, ["table", str(tmp_path)])
    assert wrong.exit_code == 2
    assert "no run folder" in wrong.stderr
    (run / "metric-fid5k.jsonl").write_text("{broken\n")
    damaged = CliRunner().invoke(main, ["table", str(run)])
    assert damaged.exit_code == 2
    assert "metric-fid5k.jsonl is damaged: line 1" in damaged.stderr
