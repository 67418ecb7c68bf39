"""Facts about `python -m metrics acm`: create, rate in the terminal or on a page, score."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from dnnlib.files import read_jsonl, sha256_file
from infostylegan import Generator
from infostylegan.export import load_snapshot, save_generator
from metrics.__main__ import main
from metrics.commands.acm import half_blocks
from metrics.study import Study


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "00000-fundus16-beta1"
    folder.mkdir()
    torch.manual_seed(0)
    G = Generator(16, "bern:1,unif:2", latent_dim=16, fmap_base=64, fmap_max=8)
    save_generator(folder / "network-snapshot-000001.pkl", G, code_names={"unif1": "melanin"})
    return folder


def invoke(*args, **options):
    return CliRunner().invoke(main, ["acm", *map(str, args)], **options)


def fails(*args):
    """The message of a command that must fail for its user's mistake: exit code 2, no traceback."""
    result = invoke(*args)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture
def study(run_folder, tmp_path):
    network = run_folder / "network-snapshot-000001.pkl"
    result = invoke(
        "create", tmp_path / "s", "--network", network, "--code", "melanin", "--attribute", "melanin",
        "--samples", 6, "--controls", 0.3, "--repeats", 0.2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return Study.open(tmp_path / "s")


def test_a_study_remembers_the_digest_of_the_snapshot_and_the_code_swept(study, run_folder):
    model = study.models[0]
    assert model.digest == sha256_file(run_folder / "network-snapshot-000001.pkl")
    assert (model.code, study.attribute) == ("unif1", "melanin")
    assert len(study.items) == 6 + 2 + 2


def test_rating_in_the_terminal_keeps_every_vote_and_goes_on_where_it_stopped(study):
    order = study.order("anna")
    first = invoke("rate", study.folder, "--rater", "anna", input="ynuq")
    assert first.exit_code == 0, first.output
    assert "1 of 10 rated" in first.output
    assert study.votes("anna") == {order[0]: True}
    second = invoke("rate", study.folder, "--rater", "anna", input="n" * 9)
    assert "all rated" in second.output
    assert study.votes("anna") == {order[0]: True, **dict.fromkeys(order[1:], False)}


def test_the_terminal_shows_neither_model_nor_code_nor_kind(study, run_folder):
    shown = invoke("rate", study.folder, "--rater", "anna", input="y" * 10).output
    for secret in ("unif1", "fundus16", "snapshot", "sample", "still", "repeat"):
        assert secret not in shown.replace(str(study.folder), "")


def page_of(study, rater="bert"):
    result = invoke("rate", study.folder, "--rater", rater, "--page")
    assert result.exit_code == 0, result.output
    return (study.folder / f"rate-{rater}.html").read_text()


def test_the_page_holds_every_row_in_the_raters_order_and_asks_for_nothing_else(study):
    page = page_of(study)
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.S)[1])
    assert [row["item"] for row in data["rows"]] == study.order("bert")
    for row in data["rows"]:
        kind, encoded = row["src"].split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(encoded) == study.image(row["item"]).read_bytes()
    assert data["study"] == study.digest
    assert not re.findall(r"https?://", page)
    assert not re.search(r"unif1|fundus16|\bstill\b|sha256", page.replace("Until", ""))


def test_what_people_call_an_attribute_is_text_on_the_page_and_never_markup(run_folder, tmp_path):
    network = run_folder / "network-snapshot-000001.pkl"
    invoke("create", tmp_path / "s", "--network", network, "--code", "unif0", "--attribute",
           "</title><script>alert(1)</script>", "--samples", 1)  # fmt: skip
    assert "<script>alert" not in page_of(Study.open(tmp_path / "s"))


def test_large_rows_go_into_the_page_as_jpeg(study, monkeypatch):
    monkeypatch.setattr("metrics.rating_page.LARGEST_ROW", 100)
    assert "data:image/jpeg;base64," in page_of(study)


def saved(study, rater, votes, path):
    """What the page saves."""
    lines = [{"study": study.digest, "item": i, "vote": v, "time": "2026-01-01T00:00:00Z"} for i, v in votes]
    (path / f"{rater}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path / f"{rater}.jsonl"


def test_the_score_takes_in_saved_ratings_and_tells_p_with_both_intervals_and_agreement(study, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    samples = [name for name, item in study.items.items() if item.kind == "sample"]
    anna = saved(study, "anna", [(i, i in samples[:5]) for i in study.items], away)
    bert = saved(study, "bert", [(i, True) for i in study.items], away)
    result = invoke("score", study.folder, anna, bert)
    assert result.exit_code == 0, result.output
    assert "anna             83.3% (±29.8%)  43.6% … 97.0%  n 6" in result.output
    assert "bert             100.0% (±0.0%)" in result.output
    assert "all raters       91.7%" in result.output
    assert "Gwet's AC1" in result.output
    assert "bert saw the attribute change where nothing does" in result.output
    assert "anna saw" not in result.output


def test_a_score_is_recorded_in_the_run_that_holds_the_rated_snapshot(study, run_folder, tmp_path):
    invoke("rate", study.folder, "--rater", "anna", input="y" * 10)
    assert invoke("score", study.folder, "--record", run_folder).exit_code == 0
    record = read_jsonl(run_folder / "metric-acm.jsonl")[-1]
    assert record["metric"] == "acm"
    assert record["results"] == {"acm": 1.0, "acm_margin": 0.0}
    assert record["snapshot"] == "network-snapshot-000001.pkl"
    assert record["images"] == load_snapshot(run_folder / record["snapshot"]).get("images", 0)
    assert record["protocol"]["attribute"] == "melanin"
    assert record["protocol"]["study_digest"] == study.digest
    assert "holds none of the snapshots" in fails("score", study.folder, "--record", tmp_path)


def test_mistakes_are_one_line_each(study, run_folder, tmp_path):
    network = run_folder / "network-snapshot-000001.pkl"
    create = ["create", tmp_path / "t", "--attribute", "melanin", "--network", network]
    assert "no code is called 'unif9'; this generator has bern0, unif0, unif1" in fails(
        *create, "--code", "unif9"
    )
    assert "1 networks and 2 codes" in fails(*create, "--code", "unif0", "--code", "unif1")
    assert "no such file" in fails(
        "create", tmp_path / "t", "--attribute", "x", "--code", "c", "--network", "no"
    )
    assert "holds a study already" in fails(
        "create", study.folder, "--attribute", "x", "--code", "unif0", "--network", network
    )
    assert "nobody has rated it yet" in fails("score", study.folder)
    assert "holds no study" in fails("rate", tmp_path / "none", "--rater", "anna")
    assert "use letters, digits" in fails("rate", study.folder, "--rater", "../x", "--page")
    torn = tmp_path / "anna.jsonl"
    torn.write_text('{"vote": tru\n')
    assert "anna.jsonl: cannot be read as ratings" in fails("score", study.folder, torn)
    assert "no such file of ratings" in fails("score", study.folder, tmp_path / "carl.jsonl")


def test_half_blocks_show_two_pixels_a_character():
    picture = Image.fromarray(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8))
    assert half_blocks(picture, 10) == "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m"
