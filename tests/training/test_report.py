"""Facts about a run's record: the status line, the warning of a collapse, the closing table."""

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.files import append_jsonl, read_jsonl
from dnnlib.log import RunLog
from infostylegan.training.measure import SPREAD_WARNING
from infostylegan.training.report import Reporter, information_table, status_line

CEILINGS = {"cat0": 1.0986, "unif0": -0.2258}


def record(**changes):
    values = {
        "tick": 3, "images": 60_000, "kimg": 60.0, "step": 10, "resolution": 16, "fade": 0.4, "batch": 32,
        "lr": 0.002, "gamma": 1.0, "loss_g": 1.0, "loss_d": 1.0, "r1": None,
        "score_real": 0.1, "score_fake": -0.1,
        "information": {"cat0": 0.916, "unif0": -0.5}, "spread": 0.81, "spread_overall": 0.9, "skipped": 0,
        "seconds": 65.0, "sec_per_kimg": 1.234, "seconds_left": 3600.0, "data_wait": 0.034,
        "memory_bytes": 3 * 2**30,
    }  # fmt: skip
    return {**values, **changes}


@pytest.fixture
def reporter(tmp_path):
    with RunLog(tmp_path / "log.txt") as log:
        made = Reporter(tmp_path, log, CEILINGS, 0)
        yield made
        made.close()


def test_the_status_line_tells_where_the_run_is_and_each_code_beside_its_ceiling():
    line = status_line(record(), CEILINGS)
    for part in ("tick 3", "kimg 60.0", "16² fade 0.40", "1.23 s/kimg", "data 3%", "3.0 GiB",
                 "1m 05s, left 1h 00m 00s", "cat0 0.92/1.10", "unif0 -0.50/-0.23",
                 "spread 0.81"):  # fmt: skip
        assert part in line, part
    assert "skipped" not in line
    assert "skipped 2" in status_line(record(skipped=2), CEILINGS)
    assert "fade" not in status_line(record(fade=1.0), CEILINGS)
    assert "nats" not in status_line(record(information={}), CEILINGS)


def test_a_collapse_of_the_noise_is_told_once_and_again_if_it_comes_back(reporter, tmp_path):
    low, high = SPREAD_WARNING * 0.9, SPREAD_WARNING * 1.1
    warnings = []
    for spread in (high, low, low, high, low, None):
        reporter.tick(record(spread=spread))
        warnings.append((tmp_path / "log.txt").read_text().count("warning"))
    assert warnings == [0, 1, 1, 1, 2, 2]
    assert "--beta" in (tmp_path / "log.txt").read_text()


def test_without_information_in_the_loss_a_small_spread_is_no_cause_for_a_warning(reporter, tmp_path):
    reporter.tick(record(spread=0.01, information={}))
    assert "warning" not in (tmp_path / "log.txt").read_text()


def test_every_tick_is_one_line_of_stats_jsonl(reporter, tmp_path):
    for tick in (1, 2):
        reporter.tick(record(tick=tick, images=tick * 1000))
    assert [r["tick"] for r in read_jsonl(tmp_path / "stats.jsonl")] == [1, 2]
    assert read_jsonl(tmp_path / "stats.jsonl")[0] == record(tick=1, images=1000)


def test_what_was_recorded_after_the_checkpoint_is_taken_back_on_resuming(tmp_path):
    for images in (1000, 2000, 3000):
        append_jsonl(tmp_path / "stats.jsonl", record(images=images))
    with RunLog(None) as log:
        Reporter(tmp_path, log, CEILINGS, 2000).close()
    assert [r["images"] for r in read_jsonl(tmp_path / "stats.jsonl")] == [1000, 2000]


@pytest.mark.parametrize(("channels", "size", "count"), [(3, 8, 48), (1, 8, 12), (3, 8, 24), (3, 8, 1)])
def test_pictures_of_an_early_resolution_are_shown_as_large_as_those_of_the_last(
    reporter, tmp_path, channels, size, count
):
    images = torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    reporter.pictures("early", images, 16)
    reporter.pictures("late", images.repeat_interleave(16 // size, 2).repeat_interleave(16 // size, 3), 16)
    with Image.open(tmp_path / "early.png") as early, Image.open(tmp_path / "late.png") as late:
        assert early.mode == ("L" if channels == 1 else "RGB")
        assert np.array_equal(np.asarray(early), np.asarray(late))
        assert len(np.unique(np.asarray(early))) > 100


def test_the_closing_table_has_each_codes_nats_ceiling_share_and_name():
    nats = {"G_ema": {"cat0": 0.55, "unif0": -0.3}, "G": {"cat0": 0.6, "unif0": -0.25}}
    lines = information_table(nats, CEILINGS, {"cat0": "digit"}).splitlines()
    assert lines[0].split() == ["code", "nats", "ceiling", "share", "without", "averaging"]
    assert lines[1].split() == ["cat0", "(digit)", "0.550", "1.099", "50%", "0.600"]
    assert lines[2].split() == [
        "unif0",
        "-0.300",
        "-0.226",
        "–",
        "-0.250",
    ]  # no share of a ceiling below zero
    assert len({len(line) for line in lines}) == 1
