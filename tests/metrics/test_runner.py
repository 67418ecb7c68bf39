"""Facts about `python -m metrics METRICS` and `train.py --metrics`, with a tiny network and extractor."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import train
from dnnlib.files import read_jsonl
from infostylegan import Discriminator, Generator
from infostylegan.data import ArrayDataset
from infostylegan.export import save_snapshot
from metrics import evaluation as evaluation_module
from metrics.__main__ import main
from metrics.errors import MetricError
from metrics.evaluation import CHUNK, Evaluation
from metrics.features import Extractor, extractor
from metrics.frechet import frechet_distance
from metrics.measures import MEASURES, parse
from metrics.runner import measure

CODES = "cat:3,bern:1,unif:2"


def tiny_extractor(*args: object) -> Extractor:
    """Sixteen fixed linear features of the image at 4²: fast, and differentiable by eye."""
    torch_draw = torch.Generator().manual_seed(1)
    network = nn.Linear(48, 16, bias=False).requires_grad_(False)
    network.weight.copy_(torch.randn(16, 48, generator=torch_draw))
    return Extractor(
        "tiny", "0" * 64, 16, "box to 4²", False, network,
        lambda x: torch.nn.functional.adaptive_avg_pool2d(x.float(), 4).flatten(1) / 255,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INFOSTYLEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INFOSTYLEGAN_DATA", raising=False)
    monkeypatch.setitem(extractor.EXTRACTORS, "tiny", tiny_extractor)
    monkeypatch.setattr(train, "tune_malloc", lambda: False)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    G = Generator(16, CODES, latent_dim=16, fmap_base=64, fmap_max=8, mapping_layers=2, mapping_lr=1.0)
    D = Discriminator(16, CODES, fmap_base=64, fmap_max=8)
    path = tmp_path / "run" / "network-snapshot-000003.pkl"
    path.parent.mkdir()
    save_snapshot(path, {"G": G, "D": D, "G_ema": G, "images": 3000, "code_names": {"unif1": "glow"}})
    return path


def data(n: int = 120, channels: int = 3, **known: object) -> ArrayDataset:
    draw = np.random.default_rng(0)
    level = draw.random(n)
    base = np.clip(255 * level[:, None, None, None] + draw.normal(0, 20, (n, channels, 16, 16)), 0, 255)
    return ArrayDataset("squares", base.astype(np.uint8), **{  # type: ignore[arg-type]
        "labels": (level * 3).astype(np.int64), "factors": {"level": level, "side": draw.integers(2, size=n)},
        **known,
    })  # fmt: skip


def evaluate(snapshot: Path, dataset: ArrayDataset | None = None, **options: object) -> Evaluation:
    return Evaluation(snapshot, dataset or data(), tiny_extractor, **options)  # type: ignore[arg-type]


# ---- names ---------------------------------------------------------------------------------------------


def test_a_number_in_the_name_is_the_sample_count_and_fid_alone_is_50k_against_all_reals() -> None:
    names = {r.name: (r.samples, r.full) for r in parse("fid,fid5k,fid5k_full,fid300,kid,pr2k,mig")}
    assert names == {
        "fid50k_full": (50_000, True), "fid5k": (5000, False), "fid5k_full": (5000, True),
        "fid300": (300, False), "kid10k": (10_000, False), "pr2k": (2000, False), "mig": (0, False),
    }  # fmt: skip
    assert [r.name for r in parse("fid,kid", samples=500)] == ["fid500_full", "kid500"]
    assert [r.name for r in parse("kid", samples=50_000)] == ["kid10k"]
    assert {r.kind for r in parse("all")} == set(MEASURES)
    assert len(parse("mig,mig")) == 1


@pytest.mark.parametrize("word", ["fad", "fid5kk", "mig5k", "kid5k_full", "kid20k", "fid1", "", "Fid"])
def test_a_name_there_is_none_of_is_told_with_those_there_are(word: str) -> None:
    with pytest.raises(MetricError, match=r"metric"):
        parse(word)


# ---- what is measured ----------------------------------------------------------------------------------


def test_fid_is_the_distance_of_the_two_sets_features_and_says_how_it_was_taken(snapshot: Path) -> None:
    ev = evaluate(snapshot, estimates=3)
    (item,) = measure(ev, parse("fid64_full"), snapshot.parent)
    record = item.record
    real = tiny_extractor()(torch.from_numpy(data().array)).numpy()
    expected = []
    for estimate in range(3):
        fakes = torch.cat(list(ev.generated(64, estimate)))
        expected.append(frechet_distance(real, tiny_extractor()(fakes).numpy()).value)
    assert record["results"]["fid64_full@tiny"] == pytest.approx(np.mean(expected), rel=1e-6)
    assert record["results"]["fid64_full@tiny_std"] == pytest.approx(np.std(expected, ddof=1), rel=1e-5)
    low, high = record["interval"]["fid64_full@tiny"]
    assert low < np.mean(expected) < high
    protocol = record["protocol"]
    told = (
        "extractor extractor_digest resize dataset_digest model_digest seed samples truncation version commit"
    )
    assert set(told.split()) <= set(protocol)
    assert protocol["estimates"] == pytest.approx(expected)
    assert protocol["real_images"] == 120
    assert protocol["comparable_with_published"] is False
    assert read_jsonl(snapshot.parent / "metric-fid64_full.jsonl") == [json.loads(json.dumps(record))]


def test_estimates_draw_different_images_and_the_same_seed_the_same_ones(snapshot: Path) -> None:
    ev = evaluate(snapshot)
    first = torch.cat(list(ev.generated(20)))
    assert first.shape == (20, 3, 16, 16)
    assert torch.equal(first, torch.cat(list(evaluate(snapshot).generated(20))))
    assert torch.equal(first[:5], torch.cat(list(ev.generated(5))))
    assert not torch.equal(first, torch.cat(list(ev.generated(20, 1))))
    assert not torch.equal(first, torch.cat(list(evaluate(snapshot, seed=1).generated(20))))
    np.testing.assert_array_equal(ev.pictures(np.array([17, 3])), first[[17, 3]].permute(0, 2, 3, 1).numpy())


def test_measuring_leaves_the_random_state_of_the_process_alone(snapshot: Path) -> None:
    ev = evaluate(snapshot, estimates=1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    measure(ev, parse("fid32,kid32,ppl8,acm4,mig"), snapshot.parent)
    assert torch.equal(torch.rand(3), expected)


def test_real_features_are_cached_by_content_and_never_by_name(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(snapshot).real_features()

    def none(*args: object) -> None:
        raise AssertionError("computed anew")

    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "real", none)
        again = evaluate(snapshot).real_features()
    np.testing.assert_array_equal(again.moments.covariance, first.moments.covariance)
    np.testing.assert_array_equal(again.kept, first.kept)
    # Another set under the same name, the same set through another extractor, and a part of the set.
    other = data()
    other.array[0] = 0
    changed = evaluate(snapshot, ArrayDataset("squares", other.array)).real_features()
    assert not np.array_equal(changed.moments.mean, first.moments.mean)
    wide = Evaluation(snapshot, data(), lambda: Extractor(**{**vars(tiny_extractor()), "digest": "1" * 64}))
    assert wide._cache_path(None) != evaluate(snapshot)._cache_path(None)
    assert evaluate(snapshot).real_features(50).moments.count == 50


def test_a_damaged_cache_is_told_and_computed_anew(snapshot: Path) -> None:
    ev = evaluate(snapshot)
    first = ev.real_features()
    path = ev._cache_path(None)
    path.write_bytes(path.read_bytes()[:-100])
    said: list[str] = []
    again = evaluate(snapshot, say=said.append).real_features()
    np.testing.assert_array_equal(again.kept, first.kept)
    assert any("is damaged" in line for line in said)


def test_memory_for_features_ends_at_what_is_kept(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_module, "KEPT", 24)
    found = evaluate(snapshot).generated_features(100)
    assert found.moments.count == 100
    assert len(found.kept) == 24
    np.testing.assert_array_equal(evaluate(snapshot).generated_features(20).kept, found.kept[:20])
    assert CHUNK < 24  # so that a chunk has been cut


def test_every_metric_that_applies_gives_finite_numbers_and_its_pictures(snapshot: Path) -> None:
    wanted = "fid32,kid32,pr32,memorisation32,ppl8,acm5,tc300,mig,mig_chen,mig_locatello,match,probe,sap"
    measured = measure(evaluate(snapshot, estimates=2), parse(wanted), snapshot.parent)
    assert [item.failure for item in measured if item.failure] == []
    for item in measured:
        assert item.record["results"]
        assert all(np.isfinite(v) for v in item.record["results"].values()), item.record["results"]
        for name, (low, high) in item.record["interval"].items():
            assert low <= item.record["results"][name] <= high
    pictures = {path.name for path in snapshot.parent.glob("metric-*.png")}
    assert {"metric-pr32.png", "metric-memorisation32.png", "metric-mig.png", "metric-acm5.png"} <= pictures
    mig = next(item.record for item in measured if item.name == "mig")
    assert "unif1 (glow)" in mig["protocol"]["best_code"].values() or set(
        mig["protocol"]["best_code"].values()
    ) <= {"cat0", "bern0", "unif0", "unif1 (glow)"}
    ppl = next(item.record["results"] for item in measured if item.name == "ppl8")
    assert set(ppl) == {f"ppl_{p}@tiny" for p in ("z", "w", "cat0_jump", "bern0_jump", "unif0", "unif1")}


def test_what_cannot_be_measured_is_told_and_the_rest_is_measured(snapshot: Path) -> None:
    bare = data(labels=None, factors=None)
    found = measure(evaluate(snapshot, bare), parse("mig,fid32"), snapshot.parent)
    assert "labels, factors or attributes" in found[0].failure
    assert found[1].record["results"]
    same = data(labels=np.zeros(120, np.int64), factors=None)
    (item,) = measure(evaluate(snapshot, same), parse("mig"), snapshot.parent)
    assert "no attribute varies" in item.failure
    half = data(factors={"level": np.r_[np.nan, np.arange(119.0)], "side": np.arange(120) % 2})
    (item,) = measure(evaluate(snapshot, half), parse("mig"), snapshot.parent)
    assert item.record["protocol"]["attributes"] == ["label", "side"]
    assert item.notes == ["level is left out: it is unknown of 1 images"]


def test_fewer_images_than_dimensions_is_a_warning_and_an_answer(snapshot: Path) -> None:
    (item,) = measure(evaluate(snapshot, estimates=1), parse("fid10"), snapshot.parent)
    assert item.record["results"]["fid10@tiny"] > 0
    assert any("10 generated samples in 16 dimensions" in note for note in item.notes)


# ---- the command ---------------------------------------------------------------------------------------


def invoke(*args: object):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_the_command_prints_a_table_with_intervals_and_says_where_the_rest_is(
    snapshot: Path, make_images
) -> None:
    folder = make_images(Path("images"))
    result = invoke("fid32,kid24", "--network", snapshot.parent, "--data", folder, "--extractor", "tiny")
    assert result.exit_code == 0, result.output
    table = result.stdout.splitlines()
    assert table[0].endswith("network-snapshot-000003.pkl, 3 kimg, on images")
    assert table[1].split() == ["result", "value", "95", "%", "interval"]
    assert table[2].startswith("fid32@tiny ")
    assert "…" in table[2]
    assert (snapshot.parent / "metric-kid24.jsonl").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("fad --network SNAP --data IMG", "metric 'fad': there is none of that name"),
        ("fid32 --network nowhere.pkl --data IMG", "nowhere.pkl: no such file"),
        ("fid32 --network empty --data IMG", "empty: holds no network-snapshot"),
        ("fid32 --network SNAP --data nowhere", "nowhere: no such folder or zip"),
        ("fid32 --network SNAP", "does not tell what it was trained on; give --data"),
        ("fid32 --network SNAP --data IMG --extractor vgg", "extractor 'vgg'"),
        ("fid32 --network SNAP --data IMG --inception-weights none.pth", "none.pth: no such file"),
        ("fid32 --network SNAP --data IMG --device cuda:99", "cuda:99: cannot be used here"),
        ("mig --network SNAP --data IMG", "mig needs labels, factors or attributes"),
        ("kid20k --network SNAP --data IMG --extractor tiny", "ask for 10000 at most"),
        ("fid32 --network SNAP --data IMG --extractor tiny --outdir IMG/000.png", "000.png"),
    ],
)
def test_bad_input_gets_one_clear_line(args: str, message: str, snapshot: Path, make_images) -> None:
    folder = make_images(Path("images"))
    Path("empty").mkdir()
    words = [w.replace("SNAP", str(snapshot)).replace("IMG", str(folder)) for w in args.split()]
    result = invoke(*words)
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    error = result.stderr.split("Error: ")[1].strip()
    assert message in error
    assert "\n" not in error


# ---- while training ------------------------------------------------------------------------------------

TINY = shlex.split(
    "--data images --fmap-base 64 --fmap-max 8 --latent-dim 16 --codes cat:3,bern:1,unif:1 --kimg 0.048 "
    "--batch 8 --start-resolution 16 --tick 0.008 --snap 3 --threads 1 --precision fp32 --device cpu "
    "--beta 0.3"
)


def train_once(outdir: str, *args: str) -> tuple[Path, str]:
    result = CliRunner().invoke(train.main, [*TINY, "--outdir", outdir, *args])
    assert result.exit_code == 0, result.output
    return next(Path(outdir).iterdir()), result.output


def test_metrics_at_snapshots_are_logged_everywhere_and_change_nothing_of_the_run(make_images) -> None:
    make_images(Path("images"))
    measured, output = train_once("with", "--metrics", "fid16,acm3", "--extractor", "tiny")
    plain, _ = train_once("without")
    assert output.count("fid16@tiny") == 2
    assert [r["images"] for r in read_jsonl(measured / "metric-fid16.jsonl")] == [24, 48]
    assert read_jsonl(measured / "metric-fid16.jsonl")[0]["protocol"]["during"] == "training"
    logged = [r["metrics"] for r in read_jsonl(measured / "stats.jsonl") if "metrics" in r]
    assert sum("fid16@tiny" in record for record in logged) == 2
    events = EventAccumulator(str(measured)).Reload()
    assert [event.step for event in events.Scalars("metrics/fid16@tiny")] == [24, 48]
    one, two = (sorted(folder.glob("checkpoint-*.pt"))[-1] for folder in (measured, plain))
    content = [torch.load(path, weights_only=True) for path in (one, two)]
    for name in ("G", "D", "G_ema"):
        for key, value in content[0][name].items():
            assert torch.equal(value, content[1][name][key]), f"{name}.{key}"


def test_a_metric_that_fails_is_a_warning_and_the_run_goes_on(
    make_images, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(Path("images"))

    def broken(*args: object) -> None:
        raise RuntimeError("out of luck,\nand of memory")

    monkeypatch.setitem(MEASURES, "kid", MEASURES["kid"].__class__("", broken, samples=10))  # type: ignore[arg-type]
    folder, _ = train_once("runs", "--metrics", "kid10,mig,fid16", "--extractor", "tiny")
    log = (folder / "log.txt").read_text()
    assert "RuntimeError: out of luck, and of memory" in log
    assert "mig needs labels" in log
    assert len(read_jsonl(folder / "metric-fid16.jsonl")) == 2


def test_a_snapshot_that_is_measured_again_after_a_kill_is_recorded_once(make_images) -> None:
    make_images(Path("images"))
    folder, _ = train_once("runs", "--metrics", "fid16", "--extractor", "tiny")
    sorted(folder.glob("checkpoint-*.pt"))[-1].unlink()
    (folder / "result.jsonl").unlink()
    again, _ = train_once("runs", "--metrics", "fid16", "--extractor", "tiny")
    assert again == folder
    records = read_jsonl(folder / "metric-fid16.jsonl")
    assert [r["images"] for r in records] == [24, 48]
    stats = [r["images"] for r in read_jsonl(folder / "stats.jsonl") if "metrics" in r]
    assert stats == [24, 48]


def test_a_finished_run_says_so_without_its_extractor(make_images) -> None:
    make_images(Path("images"))
    folder, _ = train_once("runs", "--metrics", "fid16", "--extractor", "tiny")
    again, output = train_once("runs", "--metrics", "fid16", "--extractor", "gone")
    assert again == folder
    assert "has finished" in output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--metrics", "fod"], "metric 'fod'"),
        (["--metrics", "fid16", "--extractor", "vgg"], "extractor 'vgg'"),
    ],
)
def test_mistakes_in_the_list_are_told_before_a_run_folder_is_made(
    args: list[str], message: str, make_images
) -> None:
    make_images(Path("images"))
    result = CliRunner().invoke(train.main, [*TINY, *args])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("runs").exists()


def test_gray_images_and_a_generator_that_draws_by_label_are_measured(tmp_path: Path) -> None:
    G = Generator(16, CODES, labels=3, channels=1, latent_dim=16, fmap_base=64, fmap_max=8, mapping_layers=1)
    D = Discriminator(16, CODES, labels=3, channels=1, fmap_base=64, fmap_max=8)
    path = tmp_path / "network-snapshot-000001.pkl"
    save_snapshot(path, {"G": G, "D": D, "G_ema": G, "images": 1000})
    ev = evaluate(path, data(channels=1), estimates=1)
    measured = measure(ev, parse("fid32,pr16,memorisation16,ppl8,acm5,mig,betavae,factorvae,dci"), tmp_path)
    assert [item.failure for item in measured if item.failure] == []
    judged = next(item.record["results"] for item in measured if item.name == "acm5")
    assert "acm_brightness" in judged
    assert "acm_hue" not in judged
    # Labels are drawn as often as the data have them.
    drawn = torch.cat([ev.latents(CHUNK, number)[2] for number in range(40)])
    share = np.bincount(drawn.numpy(), minlength=3) / len(drawn)
    np.testing.assert_allclose(share, np.bincount(data().labels) / 120, atol=0.06)
    for labels, message in ((None, "draws by label"), (np.arange(120), "classes up to 119")):
        (item,) = measure(evaluate(path, data(channels=1, labels=labels)), parse("fid16"), tmp_path)
        assert message in item.failure


def test_a_network_half_way_through_its_growth_is_measured_at_the_size_it_has(snapshot: Path) -> None:
    G = Generator(16, CODES, latent_dim=16, fmap_base=64, fmap_max=8, mapping_layers=1)
    G.set_growth(8, 0.5)
    D = Discriminator(16, CODES, fmap_base=64, fmap_max=8)
    save_snapshot(snapshot, {"G": G, "D": D, "G_ema": G, "images": 500})
    measured = measure(evaluate(snapshot, estimates=1), parse("fid16,pr16,mig"), snapshot.parent)
    assert [item.failure for item in measured if item.failure] == []
    assert measured[0].record["protocol"]["resolution"] == 8


@pytest.mark.parametrize(("trained_on", "same"), [("bare", True), ("labelled", True), ("other", False)])
def test_a_model_trained_without_labels_is_known_on_its_set_read_with_labels(
    trained_on: str, same: bool, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    sets = {"bare": ArrayDataset("x", images), "labelled": ArrayDataset("x", images, np.arange(4))}
    digests = {name: data.digest for name, data in sets.items()} | {"other": "0" * 64}
    G = Generator(16, CODES, latent_dim=16, fmap_base=64, fmap_max=8, mapping_layers=2)
    path = tmp_path / "network-snapshot-000000.pkl"
    save_snapshot(
        path, {"G": G, "D": None, "G_ema": G, "images": 0, "dataset": {"digest": digests[trained_on]}}
    )
    evaluation = Evaluation(path, sets["labelled"], tiny_extractor, unlabelled=lambda: digests["bare"])
    assert evaluation.protocol()["dataset_is_training_set"] is same
