"""Facts about dying: `train.py` in a process of its own, killed, interrupted, damaged, and started again.

The same command must end with the same weights, bit for bit, and the same record, as if nothing had been.
"""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from dnnlib.files import read_jsonl
from infostylegan.export import load_snapshot

CLOCK = {"seconds", "sec_per_kimg", "seconds_left", "data_wait", "memory_bytes"}
# 8² for 48 images, a fade to 16² for 96, then 16² to the end: 36 steps of 8, a checkpoint every third.
OPTIONS = shlex.split(
    "--resolution 16 --fmap-base 64 --fmap-max 8 --latent-dim 16 --codes cat:3,bern:1,unif:1 --kimg 0.288 "
    "--batch 8 --stable-kimg 0.048 --fade-kimg 0.096 --tick 0.024 --snap 1 --threads 1 "
    "--precision fp32 --device cpu --start-resolution 8 --beta 0.3 --r1-interval 2"
)
TICKS = 12
PATIENCE = 120


class Run:
    """One training run: the same command, as often as it takes."""

    def __init__(self, outdir: Path, images: Path) -> None:
        self.outdir = outdir
        self.command = [
            sys.executable,
            train.__file__,
            "--data",
            str(images),
            "--outdir",
            str(outdir),
            *OPTIONS,
        ]

    @property
    def folder(self) -> Path:
        (folder,) = self.outdir.iterdir()
        return folder

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def rows(self) -> list[dict]:
        """The ticks so far, also while the run is writing."""
        try:
            return read_jsonl(self.folder / "stats.jsonl")
        except (OSError, ValueError):
            return []

    def wait_for(self, process: subprocess.Popen[str], condition) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, "the run does not get there"
            time.sleep(0.002)

    def hit(self, number: int, condition, delay: float = 0.0) -> tuple[int, str, str]:
        """Start, wait for the condition, and signal: exit code, output, errors."""
        process = self.start()
        try:
            self.wait_for(process, condition)
            time.sleep(delay)
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        return process.returncode, out, err

    def finish(self) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done

    def seen(self, ticks: int):
        return lambda: len(self.rows()) >= ticks

    def checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.pt"))


@pytest.fixture(scope="module")
def images(tmp_path_factory, make_images):
    return make_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def reference(tmp_path_factory, images):
    """The run that nothing disturbs, and what it printed."""
    run = Run(tmp_path_factory.mktemp("reference"), images)
    return run, run.finish()


def assert_same(run: Run, reference: Run) -> None:
    one, two = (
        [{k: v for k, v in row.items() if k not in CLOCK} for row in read_jsonl(r.folder / "stats.jsonl")]
        for r in (run, reference)
    )
    assert [row["tick"] for row in one] == list(range(1, TICKS + 1))  # none missing, none twice
    assert one == two
    a, b = (load_snapshot(sorted(r.folder.glob("network-snapshot-*.pkl"))[-1]) for r in (run, reference))
    assert a["images"] == b["images"] == 288
    for name in ("G", "D", "G_ema"):
        states = a[name].state_dict(), b[name].state_dict()
        assert list(states[0]) == list(states[1])
        for key in states[0]:
            assert torch.equal(states[0][key], states[1][key]), f"{name}.{key}"


def test_an_undisturbed_run_leaves_all_that_it_promises(reference):
    run, done = reference
    assert run.folder.name == "00000-images16-beta0.3"
    names = [path.name for path in run.folder.iterdir()]
    for name in ("training_options.json", "log.txt", "stats.jsonl", "reals.png", "information.png"):
        assert name in names
    for pattern in ("fakes*.png", "traverse-cat0.png", "traverse-bern0.png", "traverse-unif0.png",
                    "network-snapshot-*.pkl", "events.out.tfevents*"):  # fmt: skip
        assert list(run.folder.glob(pattern)), pattern
    for path in run.folder.glob("*.png"):
        with Image.open(path) as image:
            image.load()
    rows = read_jsonl(run.folder / "stats.jsonl")
    assert [row["images"] for row in rows] == [24 * tick for tick in range(1, TICKS + 1)]
    assert [row["resolution"] for row in rows] == [8] * 2 + [16] * 10
    assert done.stderr == ""
    assert "Generator: " in done.stdout


def test_killed_at_any_instant_the_same_command_ends_with_the_same_weights(reference, images, tmp_path):
    """kill -9: in the first resolution, within the fade, while a file is being written, and near the end."""
    run, draw = Run(tmp_path / "runs", images), random.Random(time.time_ns())

    def writing():
        rows = len(run.rows())
        return rows >= 8 or (rows >= 5 and any(run.folder.glob(".*.part")))

    # A tick takes a fifth of a second or more: a delay up to that lands anywhere within one.
    for condition, most in ((run.seen(1), 0.2), (run.seen(4), 0.2), (writing, 0.0), (run.seen(9), 0.2)):
        delay = draw.uniform(0, most)
        print(f"kill after {delay:.4f} s more")
        code, _, err = run.hit(signal.SIGKILL, condition, delay)
        assert code == -signal.SIGKILL
        assert err == ""
    done = run.finish()
    assert "Resuming from checkpoint-" in done.stdout
    assert not list(run.folder.glob(".*.part"))
    assert_same(run, reference[0])


def test_interrupted_terminated_and_damaged_it_ends_with_the_same_weights(reference, images, tmp_path):
    run = Run(tmp_path / "runs", images)
    for number, ticks in ((signal.SIGINT, 2), (signal.SIGTERM, 5)):
        code, out, err = run.hit(number, run.seen(ticks))
        assert code == 130
        assert "Stopping after this step" in err
        assert "the same command goes on from here" in out
        assert "Traceback" not in out + err
        assert f"checkpoint-{run.rows()[-1]['images']:010d}.pt" <= run.checkpoints()[-1].name
    newest, older = run.checkpoints()[-1], run.checkpoints()[-2]
    content = bytearray(newest.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 1
    newest.write_bytes(content)
    done = run.finish()
    assert f"{newest} is damaged" in done.stderr
    assert f"Resuming from {older.name}" in done.stdout
    assert_same(run, reference[0])


def test_a_second_process_is_kept_out_of_the_folder_of_a_run_that_is_under_way(images, tmp_path):
    run = Run(tmp_path / "runs", images)
    process = run.start()
    try:
        run.wait_for(process, run.seen(2))
        process.send_signal(signal.SIGSTOP)
        before = run.rows()
        rival = subprocess.run(run.command, capture_output=True, text=True, timeout=PATIENCE)
        assert rival.returncode == 2, "two processes trained in one folder at once"
        assert str(run.folder) in rival.stderr
        assert "Traceback" not in rival.stderr
        assert run.rows() == before
    finally:
        process.kill()
        process.communicate()


def test_the_same_command_after_the_end_says_so_and_trains_no_more(reference):
    run, _ = reference
    before = {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()}
    done = run.finish()
    assert "has finished" in done.stdout
    assert {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()} == before


def test_a_file_size_limit_ends_the_run_with_one_clear_line(images, tmp_path):
    """The system's own limit on a file's size stands for a disk that takes no more."""
    import resource

    run = Run(tmp_path / "runs", images)
    done = subprocess.run(
        run.command, capture_output=True, text=True, timeout=PATIENCE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert str(run.folder) in line
    assert os.listdir(run.folder)
    assert not list(run.folder.glob(".*.part"))
