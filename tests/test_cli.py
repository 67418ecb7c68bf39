"""Facts about `train.py`: what it runs, what it prints, and how it says no."""

import errno
import json
import os
import re
import shlex
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import train
from dnnlib.files import read_jsonl
from infostylegan.export import load_snapshot
from infostylegan.presets import PRESETS
from infostylegan.training import loop, observer, report

TINY = shlex.split(
    "--fmap-base 64 --fmap-max 8 --latent-dim 16 --codes cat:3,bern:1,unif:1 --kimg 0.024 --batch 8 "
    "--start-resolution 16 --tick 0.008 --snap 1 --threads 1 --precision fp32 --device cpu --beta 0.3"
)
PHASE = re.compile(
    r"^ *(\d+) +(\d+)² (fade|stable) +([\d,]+) +([\d,]+) +(\d+) +(\S+) +(\S+) +([\d,]+)$", re.M
)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Run in an empty folder, away from whatever data this machine has, and quickly."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INFOSTYLEGAN_DATA", raising=False)
    monkeypatch.setenv("INFOSTYLEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(train, "tune_malloc", lambda: False)
    measure = observer.measure_information
    monkeypatch.setattr(observer, "measure_information", lambda *a, **k: measure(*a, **{**k, "samples": 32}))
    monkeypatch.setattr(report, "plot_information", lambda records, ceilings, path: path.touch())
    deterministic = torch.backends.cudnn.deterministic
    yield
    torch.backends.cudnn.deterministic = deterministic


@pytest.fixture
def images(make_images):
    return make_images(Path("images"))


def invoke(*args):
    return CliRunner().invoke(train.main, [str(arg) for arg in args])


def fails(*args):
    """The message of a command that must fail for its user's mistake: exit code 2, no traceback."""
    result = invoke(*args)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert result.stderr.count("Error: ") == 1
    return result.stderr.split("Error: ")[1].strip()


def one_line(*args):
    message = fails(*args)
    assert "\n" not in message
    return message


def runs(outdir="runs"):
    return sorted(path.name for path in Path(outdir).glob("*")) if Path(outdir).is_dir() else []


# ---- a run ---------------------------------------------------------------------------------------------


def test_a_run_trains_and_ends_with_the_information_of_each_code_and_where_its_generator_is(images):
    result = invoke("--data", images, *TINY)
    assert result.exit_code == 0, result.output
    assert runs() == ["00000-images16-beta0.3"]
    folder = Path("runs", runs()[0])
    assert "images, 24 images at 16²" in result.stdout
    for code, ceiling in (("cat0", "1.099"), ("bern0", "0.693"), ("unif0", "0.945")):
        assert re.search(rf"^{code} +-?\d\.\d{{3}} +{ceiling} ", result.stdout, re.M)
    last = result.stdout.strip().splitlines()[-1]
    assert last == f"Generator: {folder}/network-snapshot-000000.pkl"
    assert load_snapshot(folder / "network-snapshot-000000.pkl")["images"] == 24
    assert [r["images"] for r in read_jsonl(folder / "stats.jsonl")] == [8, 16, 24]
    options = json.loads((folder / "training_options.json").read_text())
    assert options["codes"] == "cat:3,bern:1,unif:1"
    assert options["data"] == "images"
    log = (folder / "log.txt").read_text()
    assert "Generator: " in log
    assert "tick 3" in log


def test_the_same_command_on_a_finished_run_says_so_and_does_nothing(images):
    invoke("--data", images, *TINY)
    folder = Path("runs", runs()[0])
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    result = invoke("--data", images, *TINY)
    assert result.exit_code == 0
    assert "has finished" in result.stdout
    assert str(folder) in result.stdout
    assert runs() == [folder.name]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_new_starts_another_run_of_the_same_options(images):
    invoke("--data", images, *TINY)
    assert invoke("--data", images, *TINY, "--new").exit_code == 0
    assert runs() == ["00000-images16-beta0.3", "00001-images16-beta0.3"]


def test_other_options_or_other_images_start_another_run(images):
    invoke("--data", images, *TINY)
    invoke("--data", images, *TINY, "--beta", 0.5)
    (images / "000.png").unlink()
    invoke("--data", images, *TINY)
    assert runs() == ["00000-images16-beta0.3", "00001-images16-beta0.5", "00002-images16-beta0.3"]


def test_the_number_of_threads_ticks_or_the_place_do_not_make_another_run(images):
    invoke("--data", images, *TINY)
    result = invoke("--data", Path("images").absolute(), *TINY, "--tick", 0.024, "--snap", 3, "--threads", 2)
    assert "has finished" in result.stdout


def test_a_run_killed_after_its_last_checkpoint_is_ended_by_the_same_command(images, monkeypatch):
    """The pictures, the measurement and the closing words are still to come."""

    class Killed(BaseException):
        pass

    def dying(*args):
        raise Killed

    finish = observer.Observer.finish
    monkeypatch.setattr(observer.Observer, "finish", dying)
    with pytest.raises(Killed):
        CliRunner().invoke(train.main, ["--data", str(images), *TINY], catch_exceptions=False)
    monkeypatch.setattr(observer.Observer, "finish", finish)
    monkeypatch.setattr(loop, "run_step", lambda *a: pytest.fail("trained again"))
    result = invoke("--data", images, *TINY)
    assert result.exit_code == 0, result.output
    assert runs() == ["00000-images16-beta0.3"]
    assert Path("runs", runs()[0], "traverse-cat0.png").is_file()
    assert "cat0" in result.stdout
    assert "has finished" in invoke("--data", images, *TINY).stdout


def test_an_explicit_resume_goes_on_in_that_folder(images):
    invoke("--data", images, *TINY)
    folder = Path("runs", runs()[0])
    result = invoke("--data", images, *TINY, "--resume", folder)
    assert result.exit_code == 0
    assert runs() == [folder.name]


@pytest.mark.parametrize(
    "options",
    [["--beta", "0"], ["--no-styles"], ["--codes", "cat:3,bern:17", "--latent-dim", "24"],
     ["--codes", "none"], ["--codes", "none", "--no-styles"], ["--uniform", "unit", "--code-input", "plain"],
     ["--views", "1", "--margin", "0.1", "--beta-uniform", "0.1"], ["--share-codes"],
     ["--information-clip", "1", "--trunk-share", "0.0"],
     ["--cfg", "paper-celeba", "--no-labels", "--resolution", "16"]],
    ids=" ".join,
)  # fmt: skip
def test_every_member_of_the_family_can_be_asked_for(images, options):
    result = invoke("--data", images, *TINY, *options)
    assert result.exit_code == 0, result.output
    assert ("ceiling" in result.stdout) == ("none" not in options and "0" not in options)
    assert bool(list(Path("runs").rglob("traverse-*"))) == ("none" not in options)


def test_beta_0_leaves_nothing_of_a_preset_that_serves_the_codes_but_what_is_asked_for_stays(images):
    def left(*options):
        found = invoke("--data", images, *TINY, "--cfg", "mnist", "--resolution", 16, *options)
        assert found.exit_code == 0, found.output
        made = json.loads(Path("runs", runs()[-1], "training_options.json").read_text())
        return made["beta_real"], made["share_codes"]

    assert left() == (3.0, True)
    assert left("--beta", 0) == (0.0, False)
    assert left("--beta", 0, "--beta-real", 2, "--share-codes") == (2.0, True)


def test_without_information_none_is_told_or_drawn(images):
    result = invoke("--data", images, *TINY, "--beta", 0)
    assert "nats" not in result.stdout
    assert not list(Path("runs").rglob("information.png"))


def labelled(folder, labels):
    names = sorted(path.name for path in folder.glob("*.png"))
    document = {"labels": [[name, i % 3] for i, name in enumerate(names)] if labels is None else labels}
    (folder / "dataset.json").write_text(json.dumps(document))


def test_labels_of_the_folder_condition_both_networks_when_asked_for(images):
    labelled(images, None)
    assert invoke("--data", images, *TINY, "--labels").exit_code == 0
    content = load_snapshot(next(Path("runs").rglob("*.pkl")))
    assert (content["G_ema"].labels, content["D"].labels) == (3, 3)
    assert invoke("--data", images, *TINY).exit_code == 0
    assert [load_snapshot(p)["G_ema"].labels for p in sorted(Path("runs").rglob("*.pkl"))] == [3, 0]


def test_a_class_number_that_cannot_have_been_counted_is_refused(images):
    labelled(images, [[f"{i:03d}.png", 10**12 if i == 3 else 0] for i in range(24)])
    message = one_line("--data", images, *TINY, "--labels")
    assert "1,000,000,000,000" in message
    assert "without gaps" in message
    assert runs() == []


def test_labels_where_there_are_none_are_refused_with_the_remedy(images):
    message = one_line("--data", images, *TINY, "--labels")
    assert "--labels" in message
    assert "dataset.json" in message


def test_labels_that_cannot_be_read_do_not_matter_with_no_labels(images):
    labelled(images, [["000.png", "zero"]])
    message = one_line("--data", images, *TINY, "--labels")
    assert "--no-labels" in message
    assert invoke("--data", images, *TINY, "--no-labels").exit_code == 0


# ---- plans ---------------------------------------------------------------------------------------------


def phases(text):
    def number(word):
        return float(word.replace(",", ""))

    return [
        (int(res), kind, number(start), number(end), int(batch), float(lr), float(gamma))
        for _, res, kind, start, end, batch, lr, gamma, _ in PHASE.findall(text)
    ]


def test_a_dry_run_of_eyepacs_prints_the_papers_plan_and_needs_no_data():
    result = invoke("--data", "eyepacs", "--dry-run", "--device", "cpu")
    assert result.exit_code == 0, result.output
    found = phases(result.stdout)
    assert len(found) == 13
    assert found[0] == (8, "stable", 0, 600, 1024, 0.001, 0.002441)
    assert found[1] == (16, "fade", 600, 1200, 512, 0.001, 0.009766)
    assert found[-1] == (512, "stable", 7200, 20_000, 32, 0.003, 10)
    assert "not on this machine" in result.stdout
    # a label of 512 numbers for each of five grades, and 512 more inputs of the first layer
    assert f"{26_179_768 + 5 * 512 + 512 * 512:,}" in result.stdout
    assert f"{23_080_225 + 4 * 513 + 512 * 16 * 512 + 512 + 512 * 20 + 20:,}" in result.stdout
    assert "5 labels" in result.stdout
    assert os.listdir() == []


def test_a_dry_run_of_celeba_ends_at_128_after_55_million_images_without_labels():
    result = invoke("--data", "celeba", "--dry-run", "--device", "cpu")
    assert result.exit_code == 0, result.output
    found = phases(result.stdout)
    assert [row[0] for row in found] == [8, 16, 16, 32, 32, 64, 64, 128, 128]
    assert found[-1][2:5] == (4800, 55_000, 128)
    assert "labels not used" in result.stdout
    assert re.search(r"^Memory +about .*[GM]iB", result.stdout, re.M)
    assert os.listdir() == []


def test_a_dry_run_takes_the_options_into_account(images):
    options = (
        "--dry-run --start-resolution 8 --stable-kimg 3 --fade-kimg 16:2 --kimg 9 --batch 8:64,16:32 "
        "--lr 0.01 --gamma 4 --r1-reference final"
    )
    result = invoke("--data", images, *TINY, *options.split())
    assert result.exit_code == 0, result.output
    assert phases(result.stdout) == [
        (8, "stable", 0, 3, 64, 0.01, 1), (16, "fade", 3, 5, 32, 0.01, 4), (16, "stable", 5, 9, 32, 0.01, 4)
    ]  # fmt: skip
    assert f"{-(-3000 // 64) + -(-2000 // 32) + 4000 // 32:,} in all" in result.stdout
    assert runs() == []


@pytest.mark.parametrize(
    "options",
    [
        "--codes none", "--no-styles", "--views 1", "--micro-batch 4", "--share-codes", "--beta 0",
        "--precision bf16", *(f"--cfg {name} --resolution 16 --no-labels" for name in sorted(PRESETS)),
    ],
)  # fmt: skip
def test_every_member_of_the_family_can_be_planned(images, options):
    result = invoke("--data", images, *TINY, "--dry-run", *options.split())
    assert result.exit_code == 0, result.output
    assert phases(result.stdout)


def test_smaller_micro_batches_are_planned_to_take_less_memory(images):
    def memory(*options):
        text = invoke("--data", images, *TINY, "--dry-run", "--batch", 256, *options).stdout
        number, unit = re.search(r"^Memory +about (\S+) (\w+) ", text, re.M).groups()
        return float(number) * {"KiB": 1, "MiB": 1024}[unit]

    whole, half, tiny = memory(), memory("--micro-batch", 128), memory("--micro-batch", 4)
    assert tiny < 0.1 * whole
    assert half == pytest.approx(whole / 2, rel=0.1)


def test_help_says_what_every_option_is_for():
    result = invoke("--help")
    assert result.exit_code == 0
    for option in train.main.params:
        assert option.help, option.name
        assert option.opts[0] in result.stdout


# ---- mistakes with the data ----------------------------------------------------------------------------


def test_an_unknown_data_set_is_refused_with_the_names_there_are():
    message = one_line("--data", "nosuch", *TINY)
    assert "nosuch" in message
    assert "eyepacs" in message
    assert runs() == []


def test_a_misspelt_data_set_is_refused_with_a_guess():
    assert "did you mean eyepacs?" in one_line("--data", "eyepac", *TINY)


@pytest.mark.parametrize(("name", "site"), [("eyepacs", "kaggle.com"), ("celeba", "mmlab.ie.cuhk.edu.hk")])
def test_data_that_are_not_here_are_told_where_they_were_looked_for_and_how_to_get_them(name, site):
    message = fails("--data", name, *TINY)
    assert site in message
    assert "looked for" in message
    assert os.getcwd() in message
    assert f"python -m infostylegan data {name}" in message
    assert f"{name}.zip" in message
    assert runs() == []


def test_an_empty_folder_is_refused(tmp_path):
    Path("empty").mkdir()
    message = one_line("--data", "empty", *TINY)
    assert "empty" in message
    assert "PNG" in message


def test_a_folder_of_text_files_is_refused_with_one_of_them():
    Path("texts").mkdir()
    Path("texts/poem.txt").write_text("roses are red")
    message = one_line("--data", "texts", *TINY)
    assert "poem.txt" in message


def test_a_path_that_is_not_there_is_refused_by_name():
    assert "no/such/folder" in one_line("--data", "no/such/folder", *TINY)


def test_too_many_damaged_images_are_refused_with_names_and_a_few_are_left_out_with_a_warning(images):
    (images / "003.png").write_bytes((images / "003.png").read_bytes()[:40])
    result = invoke("--data", images, *TINY)
    assert result.exit_code == 0
    assert "left out: 003.png" in result.stderr
    assert "23 images" in result.stdout
    for i in range(8):
        (images / f"{i:03d}.png").write_bytes(b"damaged")
    message = one_line("--data", images, *TINY)
    assert "000.png" in message
    assert "--max-bad" in message


@pytest.mark.parametrize("resolution", [48, 0, -8, 4, 2048])
def test_a_resolution_that_cannot_be_trained_is_refused_with_those_that_can(images, resolution):
    message = one_line("--data", images, *TINY, "--resolution", resolution)
    assert f"--resolution {resolution}: must be a power of two, 8 to 1024" in message


@pytest.mark.parametrize("wrong", [["--codes", "cat:1"], ["--lr", "0"], ["--batch", "7:32"]], ids=" ".join)
def test_an_impossible_option_is_refused_before_the_data_are_read(images, monkeypatch, wrong):
    monkeypatch.setattr(train, "open_dataset", lambda *a, **k: pytest.fail("read the data"))
    assert wrong[0].removeprefix("--codes") in one_line("--data", images, *TINY, *wrong)


def test_running_out_of_memory_is_told_in_one_line_with_what_takes_less(images, monkeypatch):
    monkeypatch.setattr(train, "train", lambda *a: torch.empty(1 << 60))
    assert "--micro-batch" in one_line("--data", images, *TINY)


# ---- mistakes with the options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--codes", "cat:1"], ["cat:1", "at least 2"]),
        (["--codes", "nonsense"], ["nonsense", "cat:3,bern:7,unif:10"]),
        (["--codes", ""], ["--codes", "cat:3,bern:7,unif:10"]),
        (["--codes", "cat:-1"], ["cat:-1"]),
        (["--codes", "3"], ["'3'"]),
        (["--codes", "bern:16"], ["16 wide", "--latent-dim 16"]),
        (["--codes", "bern:30"], ["30 wide", "--latent-dim 16"]),
        (["--beta", "-1"], ["--beta -1"]),
        (["--beta", "nan"], ["--beta nan"]),
        (["--batch", "0"], ["--batch"]),
        (["--batch", "-4"], ["--batch"]),
        (["--batch", "16:0"], ["--batch"]),
        (["--lr", "-1"], ["--lr"]),
        (["--lr", "0"], ["--lr"]),
        (["--kimg", "0"], ["--kimg 0"]),
        (["--kimg", "0.0001"], ["--kimg"]),
        (["--kimg", "inf"], ["--kimg"]),
        (["--stable-kimg", "-3"], ["--stable-kimg"]),
        (["--gamma", "-1"], ["--gamma -1"]),
        (["--seed", "-1"], ["--seed -1"]),
        (["--micro-batch", "0"], ["--micro-batch 0"]),
        (["--mapping-lr", "0"], ["--mapping-lr"]),
        (["--start-resolution", "32"], ["--start-resolution 32", "16"]),
        (["--sigma-min", "7"], ["sigma_min 7"]),
        (["--device", "tpu"], ["--device tpu"]),
        (["--device", "cuda:99"], ["--device cuda:99"]),
        (["--tick", "-1"], ["--tick"]),
        (["--tick", "0"], ["--tick"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_an_impossible_option_is_refused_in_one_line_before_anything_is_written(images, options, words):
    message = one_line("--data", images, *TINY, *options)
    assert all(word in message for word in words), message
    assert runs() == []


@pytest.mark.parametrize(
    "options",
    [["--batch", "8:x"], ["--batch", "many"], ["--lr", "8:0.1,16"], ["--kimg", "x"], ["--snap", "0"],
     ["--nope"], ["--cfg", "huge"], ["--uniform", "laplace"], ["--precision", "fp8"], ["--max-bad", "2"]],
    ids=" ".join,
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused_by_its_options_name(images, options):
    assert options[0] in fails("--data", images, *TINY, *options)
    assert runs() == []


# ---- mistakes with the run folder ----------------------------------------------------------------------


def test_a_folder_with_a_run_of_another_configuration_is_refused_with_the_differences(images):
    invoke("--data", images, *TINY)
    folder = Path("runs", runs()[0])
    message = one_line("--data", images, *TINY, "--beta", 0.7, "--seed", 3, "--resume", folder)
    assert str(folder) in message
    assert "beta: 0.3 / 0.7" in message
    assert "seed: 0 / 3" in message


@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", '{"data": 1}'])
def test_a_folder_without_a_sound_run_is_refused_for_resuming_and_passed_over_otherwise(images, content):
    folder = Path("runs/00000-mine")
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "training_options.json").write_text(content)
    message = one_line("--data", images, *TINY, "--resume", folder)
    assert str(folder) in message
    assert "training_options.json" in message
    assert invoke("--data", images, *TINY).exit_code == 0
    assert runs() == ["00000-mine", "00001-images16-beta0.3"]


def test_a_run_folder_that_cannot_be_made_is_refused_with_its_path(images):
    Path("file").write_text("")
    assert "file" in one_line("--data", images, *TINY, "--outdir", "file/runs")
    assert "file" in fails("--data", images, *TINY, "--outdir", "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_outdir_that_may_not_be_written_is_refused_with_its_path(images):
    Path("locked").mkdir(mode=0o555)
    assert "locked" in one_line("--data", images, *TINY, "--outdir", "locked")


def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(images, monkeypatch):
    real = os.fsync

    def full(descriptor):
        if ".pt." in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        message = one_line("--data", images, *TINY)
    assert re.search(r"disk full while writing .*checkpoint-0000000008\.pt: needed [\d,]+ bytes", message)
    assert not list(Path("runs").rglob("*.part"))
    assert not list(Path("runs").rglob("checkpoint-*.pt"))
    result = invoke("--data", images, *TINY)
    assert result.exit_code == 0
    assert runs() == ["00000-images16-beta0.3"]
    assert [r["images"] for r in read_jsonl(Path("runs", runs()[0], "stats.jsonl"))] == [8, 16, 24]
