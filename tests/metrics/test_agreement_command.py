"""Facts about `python -m metrics agreement`: several models, all metrics, one table of rank correlations."""

import csv

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import spearmanr

from dnnlib.files import read_jsonl
from infostylegan import Discriminator, Generator
from infostylegan.data import ArrayDataset
from infostylegan.export import save_snapshot
from metrics import rank_agreement, subject
from metrics.__main__ import main
from metrics.commands.agreement import agreement_table

CODES = "bern:1,unif:2"


def world(n=160, seed=0):
    draw = np.random.default_rng(seed)
    level, side = draw.integers(4, size=n), draw.integers(2, size=n)
    images = np.zeros((n, 3, 16, 16)) + 60 * level[:, None, None, None]
    images[:, :, :, :8] += 40 * side[:, None, None, None]
    images = np.clip(images + draw.normal(0, 5, images.shape), 0, 255).astype(np.uint8)
    return ArrayDataset("squares", images, factors={"level": level, "side": side})


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "open_data", lambda snapshot, data: world(seed=int(data or 0)))
    folders = []
    for seed in range(3):
        torch.manual_seed(seed)
        G = Generator(16, CODES, latent_dim=16, fmap_base=64, fmap_max=8)
        D = Discriminator(16, CODES, fmap_base=64, fmap_max=8)
        folder = tmp_path / f"0000{seed}-squares16"
        folder.mkdir()
        save_snapshot(folder / "network-snapshot-000001.pkl", {"G": G, "D": D, "G_ema": G, "images": 1000})
        folders.append(folder)
    return folders


def invoke(*args):
    return CliRunner().invoke(main, ["agreement", *map(str, args), "--device", "cpu"])


METRICS = ["--metrics", "mig_locatello,modularity,sap"]


def test_the_table_is_spearmans_correlation_of_what_was_recorded_for_each_run(runs, tmp_path):
    result = invoke(*runs, *METRICS, "--csv", tmp_path / "a.csv")
    assert result.exit_code == 0, result.output
    scores = {
        name: [read_jsonl(run / f"metric-{name}.jsonl")[-1]["results"][name] for run in runs]
        for name in ("mig_locatello", "modularity", "sap")
    }
    want = spearmanr(np.array(list(scores.values())).T).statistic
    rows = list(csv.reader((tmp_path / "a.csv").open()))
    at = next(i for i, row in enumerate(rows) if row[:1] == ["spearman"])
    table = np.array([[float(x) for x in row[1:]] for row in rows[at + 1 :]])
    assert table == pytest.approx(want)
    assert "00001-squares16" in result.stdout
    assert "over 3 models" in result.stdout


def test_what_has_been_measured_with_these_settings_is_used_again(runs):
    first = invoke(*runs, *METRICS)
    second = invoke(*runs, *METRICS)
    assert second.stdout == first.stdout
    assert len(read_jsonl(runs[0] / "metric-sap.jsonl")) == 1
    invoke(*runs, *METRICS, "--seed", 1)
    assert len(read_jsonl(runs[0] / "metric-sap.jsonl")) == 2
    invoke(*runs, *METRICS, "--again")
    assert len(read_jsonl(runs[0] / "metric-sap.jsonl")) == 3


def test_too_few_models_and_metrics_of_images_are_refused_in_one_line(runs):
    for args, message in (
        ((*runs[:2], *METRICS), "three models or more, and 2 are given"),
        ((*runs, "--metrics", "sap,fid5k"), "agreement compares metrics of codes"),
        ((*runs, "--metrics", "nonsense"), "'nonsense'"),
        ((*runs[:2], runs[0] / "network-snapshot-9.pkl", *METRICS), "no such file"),
    ):
        result = invoke(*args)
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        assert result.exit_code == 2
        assert message in result.stderr


def test_models_on_different_data_are_not_compared(runs, monkeypatch):
    seeds = iter((0, 0, 7))
    monkeypatch.setattr(subject, "open_data", lambda snapshot, data: world(seed=next(seeds)))
    result = invoke(*runs, *METRICS)
    assert result.exit_code == 2
    assert "models are compared on different data" in result.stderr


def test_the_printed_table_is_laid_out_as_the_lectures():
    found = rank_agreement({"mig": [1, 2, 3, 4], "dci": [1, 2, 4, 3], "flat": [0, 0, 0, 0]})
    lines = agreement_table(found).splitlines()
    assert lines[2].split() == ["mig", "(A)", "100", "80", "-"]
    assert lines[4].split() == ["flat", "(C)", "-", "-", "-"]
    assert "may be chance" in lines[5]
