"""Facts about the loop: what a run leaves behind, and that dying anywhere changes nothing of it."""

import contextlib
import math

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.files import read_digested, read_jsonl
from dnnlib.log import RunLog
from infostylegan.data import ArrayDataset, BatchStream
from infostylegan.export import load_snapshot
from infostylegan.growth import ema_decay
from infostylegan.training import loop, observer, report
from infostylegan.training import step as step_module
from infostylegan.training.loop import RunSettings, TrainingError, train
from infostylegan.training.options import TrainingOptions
from infostylegan.training.report import Reporter
from infostylegan.training.state import TrainingState

CLOCK = {
    "seconds",
    "sec_per_kimg",
    "seconds_left",
    "data_wait",
    "memory_bytes",
}  # what may differ between equal runs


def dataset(n=24, labels=False):
    draw = np.random.default_rng(0)
    array = draw.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    return ArrayDataset("noise", array, np.arange(n) % 3 if labels else None)


def make_options(**changes):
    """8² for 48 images, a fade to 16² for 64, then 16²: 24 steps of 8."""
    values = {
        "data": "noise", "data_digest": dataset().digest, "resolution": 16, "codes": "cat:3,bern:1,unif:1",
        "beta": 0.5, "latent_dim": 16, "fmap_base": 64, "fmap_max": 8, "mapping_layers": 2, "mapping_lr": 0.1,
        "kimg": 0.192, "stable_kimg": 0.048, "fade_kimg": 0.064, "batch": 8, "lr": {8: 0.002, 16: 0.003},
        "r1_interval": 2, "ema_kimg": 0.1,
    }  # fmt: skip
    return TrainingOptions(**{**values, **changes})


def run(folder, options=None, *, tick=0.032, snap=2, data=None, hooks=()):
    folder.mkdir(exist_ok=True)
    settings = RunSettings(folder, torch.device("cpu"), tick, snap)
    with RunLog(folder / "log.txt") as log:
        return train(options or make_options(), settings, data or dataset(), log, hooks)


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*.pt"))


def final_state(folder):
    """Everything in the last checkpoint but the clock."""
    import io

    path = sorted(folder.glob("checkpoint-*.pt"))[-1]
    content = torch.load(io.BytesIO(read_digested(path)), weights_only=True)
    del content["seconds"]
    return content


def rows(folder):
    return [{k: v for k, v in r.items() if k not in CLOCK} for r in read_jsonl(folder / "stats.jsonl")]


def identical(one, two, where="state"):
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert list(one) == list(two), where
        for key in one:
            identical(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), where
        for i, (a, b) in enumerate(zip(one, two)):
            identical(a, b, f"{where}[{i}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    else:
        assert one == two, where


def same_run(folder, reference):
    identical(final_state(folder), final_state(reference))
    assert rows(folder) == rows(reference)
    one, two = (load_snapshot(sorted(f.glob("network-snapshot-*.pkl"))[-1]) for f in (folder, reference))
    for name in ("G", "D", "G_ema"):
        identical(dict(one[name].state_dict()), dict(two[name].state_dict()), name)
    assert one["images"] == two["images"] == 192


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """The two slow parts of a run, made quick: the measurement at its end, and the plot (another PNG)."""
    measure = observer.measure_information

    def plot(records, ceilings, path):
        Image.new("RGB", (8, 8)).save(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observer, "measure_information", lambda *a, **k: measure(*a, **{**k, "samples": 32}))
        patch.setattr(report, "plot_information", plot)
        yield


@pytest.fixture(scope="module")
def reference(_quick, tmp_path_factory):
    """A run that nothing has disturbed."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("reference")
    result = run(folder)
    assert result.finished
    return folder


@pytest.fixture
def stop_after(monkeypatch):
    """stop_after(k): the next run is asked to stop, as by Ctrl-C, after k steps."""

    def arrange(steps):
        left = [steps]

        @contextlib.contextmanager
        def interruptible():
            def asked():
                left[0] -= 1
                return left[0] <= 0

            yield asked

        monkeypatch.setattr(loop, "interruptible", interruptible)

    return arrange


class Killed(BaseException):
    """Stands for the power cut: nothing in the program catches it."""


# ---- what a run leaves ---------------------------------------------------------------------------------


def test_a_finished_run_leaves_all_that_it_promises(reference):
    names = {path.name for path in reference.iterdir()}
    assert {"log.txt", "stats.jsonl", "reals.png", "information.png", "network-snapshot-000000.pkl"} <= names
    assert {f"traverse-{code}.png" for code in ("cat0", "bern0", "unif0")} <= names
    assert any(name.startswith("fakes") and name.endswith(".png") for name in names)
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any(name.endswith(".part") for name in names)
    for name in names:
        if name.endswith(".png"):
            with Image.open(reference / name) as image:
                image.load()


def test_the_statistics_say_where_the_run_was_and_what_it_lost(reference):
    found = read_jsonl(reference / "stats.jsonl")
    assert [r["images"] for r in found] == [32, 64, 96, 128, 160, 192]
    assert [r["tick"] for r in found] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in found] == [4, 8, 12, 16, 20, 24]
    assert [r["resolution"] for r in found] == [8, 16, 16, 16, 16, 16]
    np.testing.assert_allclose([r["fade"] for r in found], [1, 0.25, 0.75, 1, 1, 1])
    assert [r["lr"] for r in found] == [0.002] + [0.003] * 5
    assert [r["gamma"] for r in found] == [2.5] + [10.0] * 5
    for r in found:
        assert r["kimg"] == r["images"] / 1000
        assert set(r["information"]) == {"cat0", "bern0", "unif0"}
        for name in ("loss_g", "loss_d", "r1", "spread", "spread_overall", "seconds", "memory_bytes"):
            assert math.isfinite(r[name]), name
        assert r["skipped"] == 0
        assert 0 < r["data_wait"] < 1
    assert [r["seconds"] for r in found] == sorted(r["seconds"] for r in found)
    assert found[-1]["seconds_left"] == 0


def test_a_snapshot_carries_where_it_comes_from(reference):
    content = load_snapshot(reference / "network-snapshot-000000.pkl")
    assert content["images"] == 192
    assert TrainingOptions(**{**content["training_options"], "lr": {8: 0.002, 16: 0.003}}) == make_options()
    assert content["dataset"] == {"name": "noise", "digest": dataset().digest, "images": 24}
    assert int(content["G_ema"].grown_resolution) == 16


def test_the_last_two_checkpoints_are_kept(reference):
    assert checkpoints(reference) == ["checkpoint-0000000128.pt", "checkpoint-0000000192.pt"]


def test_the_average_of_g_is_neither_g_nor_where_it_began(reference):
    state = final_state(reference)
    began = TrainingState.start(make_options(), torch.device("cpu")).G
    weight = "synthesis.blocks.4.conv1.weight"
    assert not torch.equal(state["G_ema"][weight], state["G"][weight])
    assert not torch.equal(state["G_ema"][weight], began.state_dict()[weight])
    for buffer in ("mapping.w_avg", "grown_resolution", "grown_fade"):
        assert torch.equal(state["G_ema"][buffer], state["G"][buffer])


def test_the_same_options_give_the_same_run_and_another_seed_another(reference, tmp_path):
    run(tmp_path / "again")
    same_run(tmp_path / "again", reference)
    run(tmp_path / "other", make_options(seed=1))
    weight = "synthesis.blocks.4.conv1.weight"
    assert not torch.equal(final_state(tmp_path / "other")["G"][weight], final_state(reference)["G"][weight])


def test_how_often_a_run_reports_does_not_change_what_it_computes(reference, tmp_path):
    run(tmp_path / "run", tick=0.05, snap=1)
    one, two = final_state(tmp_path / "run"), final_state(reference)
    assert len(rows(tmp_path / "run")) != len(rows(reference))
    for name in ("G", "D", "G_ema", "g_optimizer", "d_optimizer"):
        identical(one[name], two[name], name)


@pytest.mark.parametrize(("tick", "batch", "kimg"), [(0.02, 8, 0.05), (0.008, 32, 0.16), (9, 8, 0.04)])
def test_tick_numbers_and_images_only_ever_grow_and_the_last_row_is_the_end(tmp_path, tick, batch, kimg):
    options = make_options(kimg=kimg, batch=batch, resolution=8)
    run(tmp_path / "run", options, tick=tick, snap=3)
    found = rows(tmp_path / "run")
    for key in ("tick", "images", "step"):
        values = [r[key] for r in found]
        assert values == sorted(set(values)), key
    assert found[-1]["images"] == -(-round(kimg * 1000) // batch) * batch
    assert found[0]["tick"] >= 1


def test_a_checkpoint_is_written_at_least_every_snap_ticks(tmp_path, monkeypatch):
    """Also where one step is longer than a tick, so that tick numbers are passed over."""
    written = []
    original = TrainingState.save
    monkeypatch.setattr(TrainingState, "save", lambda s, f: (written.append(s.images), original(s, f))[1])
    run(tmp_path / "run", make_options(kimg=0.32, batch=16, resolution=8), tick=0.012, snap=5)
    gaps = np.diff([0, *written])
    assert max(gaps) <= 5 * 12 + 16  # snap × tick images, and the step that crosses it


def test_a_checkpoint_is_also_written_once_the_last_one_is_ten_minutes_old(tmp_path, monkeypatch):
    assert loop.CHECKPOINT_SECONDS == 600
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    written, original = [], TrainingState.save
    monkeypatch.setattr(TrainingState, "save", lambda s, f: (written.append(s.images), original(s, f))[1])
    run(tmp_path / "run", make_options(kimg=0.032), tick=9)
    assert written == [8, 16, 24, 32]


def test_every_step_is_handed_the_images_that_follow_and_what_belongs_to_its_place(tmp_path, monkeypatch):
    options, original, seen = make_options(batch={8: 8, 16: 4}, ema_rampup=0.5), loop.train_step, []

    def watched(*args):
        seen.append(args)
        return original(*args)

    monkeypatch.setattr(loop, "train_step", watched)
    run(tmp_path / "run", options)
    stream, images = BatchStream(dataset(), options.seed), 0
    for number, (*_, real, label, phase, fade, step, decay, losses) in enumerate(seen):
        assert label is None
        assert phase == options.growth().phase_at(images)
        expected, _ = stream.batch(images, phase.batch, phase.resolution)
        assert torch.equal(real, expected)
        assert (step, fade) == (number, phase.fade_at(images))
        assert decay == ema_decay(phase.batch, 100, images, 0.5)
        assert losses == options.losses(images)
        images += phase.batch
    assert [args[-5].resolution for args in seen] == [8] * 6 + [16] * 36
    assert images == 192


def test_the_rate_of_each_step_falls_to_zero_over_the_end_of_the_run_and_is_what_the_record_says(
    tmp_path, monkeypatch
):
    options, original, seen = make_options(lr=0.002, lr_decay_kimg=0.064), loop.train_step, []

    def watched(G, D, ema, g_optimizer, d_optimizer, *rest):
        seen.append([o.param_groups[0]["lr"] for o in (g_optimizer, d_optimizer)])
        return original(G, D, ema, g_optimizer, d_optimizer, *rest)

    monkeypatch.setattr(loop, "train_step", watched)
    run(tmp_path / "run", options, tick=0.008)
    expected = [0.002 * min(1, (192 - 8 * step) / 64) for step in range(24)]
    np.testing.assert_allclose(seen, np.stack([expected, expected], axis=1), rtol=1e-12)
    np.testing.assert_allclose([r["lr"] for r in rows(tmp_path / "run")], expected, rtol=1e-12)


def test_statistics_are_means_over_the_images_of_their_own_tick(tmp_path, monkeypatch):
    original, seen = loop.train_step, []

    def watched(*args):
        seen.append(original(*args))
        return seen[-1]

    monkeypatch.setattr(loop, "train_step", watched)
    run(tmp_path / "run")
    for number, row in enumerate(rows(tmp_path / "run")):
        steps = seen[4 * number : 4 * number + 4]
        for name in ("loss_g", "loss_d", "score_real", "score_fake"):
            mean = sum(float(getattr(stats, name)) for stats in steps) / 32
            assert row[name] == pytest.approx(mean, rel=1e-5, abs=1e-6), name
        assert row["r1"] == pytest.approx(sum(float(s.r1) for s in steps) / 16, rel=1e-5)  # every other step
        nats = sum(stats.information for stats in steps) / 32
        assert list(row["information"].values()) == pytest.approx(nats.tolist(), rel=1e-5, abs=1e-6)


def test_a_hook_is_called_at_every_snapshot_with_the_file_just_written(tmp_path):
    seen = []

    def hook(snapshot):
        assert snapshot.path.is_file()
        assert load_snapshot(snapshot.path)["images"] == snapshot.images == snapshot.state.images
        seen.append(snapshot.images)

    run(tmp_path / "run", hooks=(hook,))
    assert seen == [64, 128, 192]


def test_skipped_updates_are_counted_in_the_statistics_and_fifty_in_a_row_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(step_module, "generator_logistic", lambda score: score * float("nan"))
    run(tmp_path / "run", make_options(kimg=0.064))
    assert [r["skipped"] for r in rows(tmp_path / "run")] == [4, 8]
    assert rows(tmp_path / "run")[0]["loss_g"] is None  # JSON has no NaN
    with pytest.raises(TrainingError, match="diverged"):
        run(tmp_path / "long", make_options(kimg=1.0))


# ---- resuming ------------------------------------------------------------------------------------------


def test_stopping_after_every_single_step_gives_the_same_run_bit_for_bit(reference, tmp_path, stop_after):
    folder = tmp_path / "run"
    for step in range(1, 24):
        stop_after(1)
        result = run(folder)
        assert not result.finished
        assert result.images == 8 * step
        assert checkpoints(folder)[-1] == f"checkpoint-{8 * step:010d}.pt"
        assert len(checkpoints(folder)) <= 2
    assert run(folder).finished
    same_run(folder, reference)


@pytest.mark.parametrize("steps", [6, 14, 23])  # first resolution gone, within the fade, last step
def test_dying_without_a_word_in_any_phase_gives_the_same_run(reference, tmp_path, monkeypatch, steps):
    folder, original, left = tmp_path / "run", loop.run_step, [steps]

    def dying(*args):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return original(*args)

    monkeypatch.setattr(loop, "run_step", dying)
    with pytest.raises(Killed):
        run(folder)
    left[0] = 1000
    assert run(folder).finished
    same_run(folder, reference)


@pytest.mark.parametrize(
    ("place", "when", "nth"),
    [("tick", "before", 3), ("tick", "after", 6), ("snapshot", "before", 2), ("snapshot", "after", 3),
     ("pictures", "after", 3)],
)  # fmt: skip
def test_dying_while_reporting_gives_the_same_run(reference, tmp_path, monkeypatch, place, when, nth):
    folder, original, left = tmp_path / "run", getattr(Reporter, place), [nth]

    def dying(self, *args):
        left[0] -= 1
        if left[0] == 0 and when == "before":
            raise Killed
        result = original(self, *args)
        if left[0] == 0:
            raise Killed
        return result

    monkeypatch.setattr(Reporter, place, dying)
    with pytest.raises(Killed):
        run(folder)
    left[0] = 1000
    assert run(folder).finished
    same_run(folder, reference)


def test_dying_while_a_checkpoint_is_written_falls_back_to_the_one_before(reference, tmp_path, monkeypatch):
    folder, original, calls = tmp_path / "run", TrainingState.save, []

    def dying(self, where):
        calls.append(self.images)
        if len(calls) == 2:
            (where / ".checkpoint-0000000128.pt.1.part").write_bytes(b"half")
            raise Killed
        return original(self, where)

    monkeypatch.setattr(TrainingState, "save", dying)
    with pytest.raises(Killed):
        run(folder)
    assert checkpoints(folder) == ["checkpoint-0000000064.pt"]
    assert run(folder).finished
    assert not list(folder.glob(".*.part"))
    same_run(folder, reference)


def test_dying_before_the_first_checkpoint_starts_anew(reference, tmp_path, monkeypatch):
    folder, original = tmp_path / "run", loop.run_step

    def dying(state, *args):
        if state.step > 5:
            raise Killed
        return original(state, *args)

    monkeypatch.setattr(loop, "run_step", dying)
    with pytest.raises(Killed):
        run(folder)
    assert checkpoints(folder) == []
    assert len(rows(folder)) == 1
    monkeypatch.setattr(loop, "run_step", original)
    run(folder)
    same_run(folder, reference)


def test_a_run_that_has_finished_does_not_train_again(reference, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run(folder)
    monkeypatch.setattr(loop, "run_step", lambda *a: pytest.fail("trained"))
    result = run(folder)
    assert result.finished
    same_run(folder, reference)


# ---- damage --------------------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    reference, tmp_path, stop_after, capsys, damage
):
    folder = tmp_path / "run"
    stop_after(20)
    run(folder)
    assert checkpoints(folder) == ["checkpoint-0000000128.pt", "checkpoint-0000000160.pt"]
    damage(folder / "checkpoint-0000000160.pt")
    capsys.readouterr()
    stop_after(1000)
    assert run(folder).finished
    said = capsys.readouterr()
    assert "checkpoint-0000000160.pt is damaged" in said.err
    assert "Resuming from checkpoint-0000000128.pt" in said.out
    assert "checkpoint-0000000160.pt is damaged" in (folder / "log.txt").read_text()
    assert [path.name for path in folder.glob("*.damaged")] == ["checkpoint-0000000160.damaged"]  # set aside
    same_run(folder, reference)


def test_where_every_checkpoint_is_damaged_the_run_starts_anew(reference, tmp_path, stop_after, capsys):
    folder = tmp_path / "run"
    stop_after(20)
    run(folder)
    for path in folder.glob("checkpoint-*.pt"):
        flip(path)
    capsys.readouterr()
    stop_after(1000)
    assert run(folder).finished
    said = capsys.readouterr()
    assert said.err.count("is damaged") == 2
    same_run(folder, reference)


def test_a_torn_last_line_of_the_statistics_is_mended(reference, tmp_path, stop_after):
    folder = tmp_path / "run"
    stop_after(10)
    run(folder)
    with open(folder / "stats.jsonl", "ab") as file:
        file.write(b'{"tick": 3, "images": 9')
    stop_after(1000)
    run(folder)
    same_run(folder, reference)


# ---- the family ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"beta": 0.0},
        {"beta": 0.0, "styles": False},
        {"styles": False},
        {"codes": "cat:3,bern:17", "latent_dim": 24},
        {"codes": "none"},
        {"codes": "none", "share_codes": True},
        {"label_count": 3},
        {"label_count": 3, "styles": False},
        {"uniform": "unit", "code_input": "plain", "r1_interval": 1},
        {"uniform": "gaussian", "beta_uniform": 0.1, "margin": 0.1, "share_codes": True},
        {"views": 1.0, "micro_batch": 4},
        {"beta_real": 0.5, "beta_start": 0.0, "beta_ramp_kimg": 0.016},
        {"codes": "none", "beta_real": 0.5},
        {"precision": "bf16"},
        {"batch": 3},
        {"batch": 1},
    ],
    ids=str,
)
def test_every_member_of_the_family_makes_three_steps_and_its_pictures(tmp_path, changes):
    options = make_options(**{"kimg": 0.003 * changes.get("batch", 8), "start_resolution": 16, **changes})
    result = run(tmp_path / "run", options, tick=1, data=dataset(labels=True))
    assert result.finished
    names = options.spec().names
    informed = names if options.beta or options.beta_uniform else []  # else Q has learned nothing to speak of
    assert list(rows(tmp_path / "run")[-1]["information"]) == informed
    assert {name: list(nats) for name, nats in result.information.items()} == {
        "G_ema": informed,
        "G": informed,
    }
    assert all(math.isfinite(nats) for found in result.information.values() for nats in found.values())
    assert len(list((tmp_path / "run").glob("traverse-*.png"))) == len(names)
    assert rows(tmp_path / "run")[-1]["step"] == 3
    assert rows(tmp_path / "run")[-1]["skipped"] == 0
    content = load_snapshot(result.snapshot)
    assert content["G_ema"].labels == options.label_count
    weights = [*content["G"].parameters(), *content["D"].parameters()]
    assert all(p.isfinite().all() for p in weights)
