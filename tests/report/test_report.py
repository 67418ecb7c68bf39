"""Facts about the report of a run: what is in it, and that nothing else is."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from infostylegan.__main__ import main
from infostylegan.data import ArrayDataset
from infostylegan.report import write_report
from infostylegan.report.charts import Series, chart, number, thinned, tick_labels, ticks
from infostylegan.report.gather import NoRun, gather
from infostylegan.report.markup import Html, tag, text
from infostylegan.report.pictures import Picture, encode, fitted

from .conftest import CODES, options, picture, tick, write_lines  # isort: skip


class Reader(HTMLParser):
    """Every element with its attributes, and the text without the style sheet."""

    def __init__(self, document):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(document)

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in ("meta", "img", "br", "hr"):
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def read(path):
    reader = Reader(path.read_text(encoding="utf-8"))
    assert reader.open == []  # every element is closed, in order
    return reader


@pytest.fixture
def report(run, tmp_path):
    write_report(run, tmp_path / "report.html")
    return read(tmp_path / "report.html")


# ---- what is in it -------------------------------------------------------------------------------------


def test_it_tells_the_settings_the_data_the_codes_and_the_metrics(report):
    for words in (
        "Run 00000-fundus8-beta0.3", "finished at 10.0 thousand images", "ab" * 32, "8192",
        "unif0 (pigmentation)",
        "0.987", "1.099", "-0.010", "fid 40 (38 – 42.5)", "reals: 8192", "sigma_min 0.2", "train.py --beta 1",
        "warning: the spread is low", "after 5 thousand images", "256.0 MiB", "10m 00s",
    ):  # fmt: skip
        assert words in report.text, words


def test_every_picture_of_the_run_is_in_it_with_words_for_who_cannot_see(report):
    images = [a for name, a in report.elements if name == "img"]
    assert len(images) == 2 + 1 + 4  # fakes, reals, a sheet for each code
    assert all(a["alt"] and a["src"].startswith("data:image/webp;base64,") for a in images)
    assert any("unif0 (pigmentation)" in a["alt"] for a in images)
    charts = [a for name, a in report.elements if name == "svg" and a.get("role") == "img"]
    assert all("ends at" in a["aria-label"] for a in charts)
    assert len(charts) == 1 + 1 + 6


def test_nothing_in_it_runs_or_asks_for_anything(report):
    allowed = {"src", "href", "content", "xmlns"}
    for name, attributes in report.elements:
        assert name not in ("script", "link", "iframe", "object", "embed", "form", "base")
        for key, value in attributes.items():
            assert not key.startswith("on")
            assert key in allowed or "//" not in (value or "")
            if key in ("src", "href"):
                assert value.startswith(("data:image/webp;base64,", "#"))
    policy = next(a["content"] for n, a in report.elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_headings_and_landmarks_let_a_screen_reader_find_its_way(report):
    names = [name for name, _ in report.elements]
    assert names.count("h1") == names.count("main") == names.count("header") == 1
    ids = {a["id"] for _, a in report.elements if "id" in a}
    targets = {a["href"][1:] for name, a in report.elements if name == "a"}
    assert targets <= ids
    assert all(a.get("scope") in ("col", "row") for name, a in report.elements if name == "th")
    assert ("html", {"lang": "en"}) in report.elements


def test_a_run_that_has_just_begun_is_told_of(tmp_path):
    folder = tmp_path / "00003-new"
    folder.mkdir()
    (folder / "training_options.json").write_text(json.dumps(options()))
    write_report(folder, tmp_path / "a.html")
    words = read(tmp_path / "a.html").text
    assert "unfinished: 0.0 of 10 thousand images" in words
    assert "bern0" in words
    assert "0.693" in words  # ceilings are known before anything is measured


def test_a_run_without_codes_has_no_section_on_codes(tmp_path):
    folder = tmp_path / "00004-plain"
    folder.mkdir()
    (folder / "training_options.json").write_text(json.dumps(options(codes="none")))
    write_lines(folder / "stats.jsonl", [tick(k, information={}) for k in (1, 2)])
    write_report(folder, tmp_path / "a.html")
    reader = read(tmp_path / "a.html")
    assert "What the codes tell" not in reader.text
    assert "Losses" in reader.text
    assert "unfinished: 2.0 of 10" in reader.text


def test_damaged_records_are_noted_and_the_rest_is_told(run, tmp_path):
    (run / "stats.jsonl").write_text('{"kimg": 1}\nnonsense\n{"kimg": 2}\n')
    (run / "training_options.json").write_text("{")
    found = write_report(run, tmp_path / "a.html")
    assert any("stats.jsonl is damaged: line 2" in note for note in found.notes)
    assert any("training_options.json cannot be read" in note for note in found.notes)
    assert "line 2 is not JSON" in read(tmp_path / "a.html").text


@pytest.mark.parametrize(
    "value",
    [None, "x", [], {}, [[1]], {"a": [1]}, True, 0, -1, math.nan, math.inf, 10**400],
    ids=lambda value: str(value)[:9],
)
def test_a_record_of_odd_values_is_told_of_as_far_as_it_goes(tmp_path, value):
    """Python's JSON knows NaN, infinity and whole numbers that no float holds."""
    odd = dict.fromkeys(options(), value)
    (tmp_path / "training_options.json").write_text(json.dumps(odd | {"codes": CODES, "uniform": "uniform"}))
    ticks = [dict.fromkeys(tick(1), value), tick(2, information=dict.fromkeys(("cat0", "unif0"), value))]
    write_lines(tmp_path / "stats.jsonl", ticks)
    write_lines(tmp_path / "result.jsonl", [{"images": value, "information": value}])
    record = {"results": {"fid": value}, "interval": {"fid": [value, value]}}
    keys = ("snapshot", "images", "protocol", "notes", "time")
    write_lines(tmp_path / "metric-fid.jsonl", [record, record | dict.fromkeys(keys, value)])
    write_report(tmp_path, tmp_path / "report.html")
    assert "finished at 2.0 thousand images" in read(tmp_path / "report.html").text


def test_lines_of_metrics_among_the_ticks_are_no_ticks(run):
    with open(run / "stats.jsonl", "a") as file:
        file.write(json.dumps({"kimg": 10, "images": 10000, "metrics": {"fid": 40}}) + "\n")
    assert len(gather(run).stats) == 10


def test_the_data_sheet_counts_classes_and_compares_digests(run, tmp_path):
    images = np.zeros((10, 3, 8, 8), dtype=np.uint8)
    data = ArrayDataset(
        "mine", images, labels=np.arange(10) % 2, label_names=("well", "ill"), digest="ab" * 32
    )
    write_report(run, tmp_path / "a.html", dataset=data)
    words = read(tmp_path / "a.html").text
    assert "its digest is the same as the run's" in words
    assert "well 5 50.0%" in words
    data.digest = "cd" * 32
    write_report(run, tmp_path / "a.html", dataset=data)
    assert "another than the run was trained on" in read(tmp_path / "a.html").text


def test_a_study_shows_its_score_with_both_intervals(run, tmp_path):
    from metrics.study import Rated, Study

    rated = Rated.load(run / "network-snapshot-000010.pkl", "unif0")
    study = Study.create(run / "acm", [rated], attribute="pigmentation", samples=5)
    for item in study.order("ann"):
        study.vote("ann", item, True)
    score = Study.open(run / "acm").score().models[0].acm
    write_report(run, tmp_path / "a.html")
    words = read(tmp_path / "a.html").text
    assert f"{score.value:.1%} ± {score.margin:.1%}" in words
    assert f"{score.interval[0]:.1%} – {score.interval[1]:.1%}" in words
    assert "ann" in words


# ---- untrusted folders ---------------------------------------------------------------------------------


def test_texts_of_a_hostile_run_are_texts(hostile, tmp_path):
    found = write_report(hostile, tmp_path / "a.html")
    reader = read(tmp_path / "a.html")
    names = {name for name, _ in reader.elements}
    assert not names & {"script", "iframe", "b"}
    images = [a for name, a in reader.elements if name == "img"]
    assert len(images) == 1  # the only file that is an image
    assert "onerror=alert(1)" in reader.text
    assert "fakes000001.png: not a sound image" in reader.text
    assert any("refused" in note for note in found.notes)
    document = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "\x00" not in document
    assert "\x1b" not in document


@given(st.text(), st.text())
def test_text_comes_back_as_it_was_and_makes_no_element(content, attribute):
    reader = Reader(tag("p", content, title=attribute))
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in content)
    assert [name for name, _ in reader.elements] == ["p"]
    assert "".join(reader.words) == shown
    wanted = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in attribute)
    assert reader.elements[0][1]["title"] == wanted
    assert text(Html("<b>")) == "<b>"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, phases=[Phase.generate])  # a failure is shown as it was drawn
@given(st.data())
def test_records_of_any_content_make_a_report(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")

    def shaken(record):
        """The record with some of its values replaced by anything."""
        chosen = data.draw(st.sets(st.sampled_from(sorted(record)), max_size=4))
        return {key: data.draw(ANYTHING) if key in chosen else value for key, value in record.items()}

    metric = {
        "results": {"fid": 3.0},
        "interval": {"fid": [1.0, 2.0]},
        "snapshot": "a",
        "images": 10,
        "notes": [],
    }
    (folder / "training_options.json").write_text(json.dumps(shaken(options())))
    write_lines(folder / "stats.jsonl", [shaken(tick(1)), shaken(tick(2))])
    write_lines(folder / "result.jsonl", [shaken({"images": 1, "information": {"G_ema": {"cat0": 1.0}}})])
    write_lines(folder / "metric-fid.jsonl", [shaken(metric), shaken(metric)])
    write_report(folder, folder / "report.html")
    read(folder / "report.html")


def test_texts_that_pass_the_limit_are_refused(run, tmp_path):
    many = {"metric": "x", "results": {f"{'a' * 5000}{i}": 1.0 for i in range(5000)}, "images": 1}
    write_lines(run / "metric-x.jsonl", [many])
    result = CliRunner().invoke(main, ["report", str(run), "--out", str(tmp_path / "a.html")])
    assert result.exit_code == 2
    assert "are the limit" in result.output
    assert not (tmp_path / "a.html").exists()


def test_folders_that_hold_no_run_are_refused_with_a_hint(run, tmp_path):
    for folder, words in ((tmp_path / "none", "no such folder"), (tmp_path, f"it holds the runs {run.name}")):
        with pytest.raises(NoRun) as error:
            gather(folder)
        assert words in str(error.value)
        result = CliRunner().invoke(main, ["report", str(folder)])
        assert result.exit_code == 2
        assert words in result.output


def test_the_command_writes_into_the_run_folder(run):
    result = CliRunner().invoke(main, ["report", str(run)])
    assert result.exit_code == 0, result.output
    assert "report.html" in result.output
    read(run / "report.html")


# ---- pictures ------------------------------------------------------------------------------------------


def test_pictures_are_made_smaller_until_they_fit(tmp_path):
    pictures = []
    for i in range(4):
        picture(tmp_path / f"{i}.png", (640, 480), seed=i, square=1)  # noise: the hardest to compress
        pictures.append(Picture(tmp_path / f"{i}.png", "noise", "noise"))
    fine, coarse = fitted(pictures, 10 << 20), fitted(pictures, 200_000)
    assert all(len(coarse[p.path]) < len(fine[p.path]) / 4 for p in pictures)
    assert sum(len(re.search(r"base64,([^\"]*)", f)[1]) for f in coarse.values()) * 3 / 4 <= 200_000
    none = fitted(pictures, 1000)
    assert all("left out, so that the report stays small" in f for f in none.values())


def test_what_is_no_sound_image_is_not_encoded(tmp_path):
    picture(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    assert encode(tmp_path / "a.png", 100, 80) is not None
    for content in (b"", b"GIF89a", whole[: len(whole) // 2], b"<html>"):
        (tmp_path / "b.png").write_bytes(content)
        assert encode(tmp_path / "b.png", 100, 80) is None


# ---- charts --------------------------------------------------------------------------------------------


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_within(low, width):
    values = ticks(low, low + width)
    assert 1 <= len(values) <= 8
    slack = 1e-6 * (abs(low) + width)
    assert all(low - slack <= value <= low + width + slack for value in values)
    assert values == sorted(values)


def test_numbers_are_short_and_tick_labels_alike():
    assert [number(x) for x in (0.8341, 12.44, 1200.0, 1234.5, 3.1e-5, 0.0, -2.5, math.nan, 40.0)] == [
        "0.834", "12.4", "1200", "1234", "3.1e-05", "0", "-2.50", "–", "40",
    ]  # fmt: skip
    assert tick_labels([0.0, 0.25, 0.5]) == ["0.00", "0.25", "0.50"]
    assert tick_labels([0.0, 10.0]) == ["0", "10"]


def test_a_chart_draws_what_is_finite_and_nothing_of_nothing():
    assert chart("empty", [Series("a", [(0.0, math.nan)], "red")]) is None
    drawn = chart(
        "one", [Series("a", [(0.0, 1.0), (1.0, math.inf), (2.0, 3.0)], "red", [None, None, (2.0, 4.0)])]
    )
    line = re.search(r'points="([^"]*)"', drawn)[1].split()
    assert len(line) == 2
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert drawn.count('class="interval"') == 1
    for _, y in (pair.split(",") for pair in line):
        assert 14 <= float(y) <= 240


def test_long_curves_are_averaged_and_keep_their_mean():
    y = np.random.default_rng(0).normal(size=100_003)
    points = thinned([(float(i), float(v)) for i, v in enumerate(y)])
    assert len(points) == 400
    assert np.mean([v for _, v in points]) == pytest.approx(y.mean(), abs=1e-4)
