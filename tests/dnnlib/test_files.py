"""Facts about dnnlib.files: a file is whole or absent, and damage never passes for content."""

import errno
import hashlib
import json
import math
import os
import pickle
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dnnlib
from dnnlib.files import (
    DamagedFile,
    DiskFull,
    append_jsonl,
    atomic_write,
    read_digested,
    read_jsonl,
    remove_parts,
    sha256_file,
    truncate_jsonl,
    write_digested,
)

ROOT = Path(dnnlib.__file__).parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


def start(script: str, *args: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_the_final_name_appears_only_with_the_whole_content(tmp_path):
    path = tmp_path / "a.bin"
    with atomic_write(path) as file:
        file.write(b"half")
        assert not path.exists()
        assert [p.name for p in tmp_path.iterdir()] == [f".a.bin.{os.getpid()}.part"]
        file.write(b"-whole")
    assert path.read_bytes() == b"half-whole"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_with_plain_newlines_on_every_system(tmp_path):
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("γ\n")
    assert (tmp_path / "a.txt").read_bytes() == "γ\n".encode()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_while_writing_keeps_the_old_file_and_leaves_no_other(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as file:  # noqa: PT012
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_modes_that_cannot_be_atomic_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'ab'"), atomic_write(tmp_path / "a", "ab"):
        pass


def test_permissions_are_those_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "atomic"):
        pass
    plain, atomic = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic"))
    assert atomic == plain


@posix
def test_kill_9_in_the_middle_of_a_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    script = """
import sys, time
from dnnlib.files import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"new" * 100_000)
    file.flush()
    print("written", flush=True)
    time.sleep(60)
"""
    with start(script, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old"
    parts = remove_parts(tmp_path)
    assert [p.name for p in parts] == [f".a.bin.{process.pid}.part"]
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_kill_9_at_any_instant_leaves_one_whole_version(tmp_path):
    path = tmp_path / "a.bin"
    write_digested(path, b"-1")
    script = """
import sys
from dnnlib.files import write_digested
for i in range(10**9):
    write_digested(sys.argv[1], (str(i) + "\\n").encode() * 20_000)
    if i == 0:
        print("started", flush=True)
"""
    for delay in (0.0, 0.003, 0.011, 0.027, 0.05):
        with start(script, path) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(timeout=delay)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        lines = set(read_digested(path).split())
        assert len(lines) == 1


def test_sha256_of_a_file_longer_than_a_block(tmp_path):
    content = os.urandom((1 << 20) + 7)
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("payload", [b"", b"x", os.urandom(5000)], ids=["empty", "one", "many"])
def test_a_digested_file_gives_back_its_payload(tmp_path, payload):
    write_digested(tmp_path / "a", payload)
    assert read_digested(tmp_path / "a") == payload
    assert (tmp_path / "a").read_bytes().startswith(payload)


def test_each_single_flipped_bit_is_detected_and_the_file_named(tmp_path):
    path = tmp_path / "network.pkl"
    write_digested(path, bytes(range(40)))
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile, match=r"network\.pkl is damaged: "):
            read_digested(path)


def test_each_shorter_or_longer_file_is_detected(tmp_path):
    path = tmp_path / "a"
    write_digested(path, bytes(range(40)))
    whole = path.read_bytes()
    for other in [whole[:n] for n in range(len(whole))] + [whole[n:] for n in range(1, 41)] + [whole + b"\0"]:
        path.write_bytes(other)
        with pytest.raises(DamagedFile):
            read_digested(path)


def test_a_missing_digested_file_is_missing_and_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_digested(tmp_path / "none")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_with_file_and_sizes_and_keeps_the_old_file(tmp_path, monkeypatch, code):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull) as caught:
        write_digested(path, b"12345")
    assert caught.value.needed == 53
    assert caught.value.free is not None
    assert caught.value.errno == code
    assert "\n" not in str(caught.value)
    for part in (str(path), "53 bytes", "free"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_reported_when_appending():
    with pytest.raises(DiskFull, match="/dev/full"):
        append_jsonl("/dev/full", {"a": 1})


def test_other_system_errors_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "no" / "such" / "folder"):
        pass


def test_records_come_back_in_order_with_null_for_what_is_not_finite(tmp_path):
    path = tmp_path / "stats.jsonl"
    append_jsonl(path, {"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": None, "e": True})
    append_jsonl(path, {"f": np.float32(0.5), "g": np.array([1.0, np.nan]), "h": np.int64(3)})
    assert read_jsonl(path) == [
        {"a": None, "b": [None, {"c": None}], "d": None, "e": True},
        {"f": 0.5, "g": [1.0, None], "h": 3},
    ]


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="object"):
        append_jsonl(tmp_path / "a.jsonl", {"a": object()})
    assert not (tmp_path / "a.jsonl").exists()


def test_a_line_torn_anywhere_costs_only_itself(tmp_path):
    path = tmp_path / "a.jsonl"
    append_jsonl(path, {"n": 1, "long": "x" * 9000})
    append_jsonl(path, {"n": 2})
    first, second = path.read_bytes().splitlines(keepends=True)
    for cut in range(len(second)):
        path.write_bytes(first + second[:cut])
        assert [r["n"] for r in read_jsonl(path)] == [1]
        append_jsonl(path, {"n": 3})
        assert [r["n"] for r in read_jsonl(path)] == [1, 3]
    path.write_bytes(first[:6000])  # torn longer than one block that is looked through
    append_jsonl(path, {"n": 3})
    assert [r["n"] for r in read_jsonl(path)] == [3]


def test_damage_before_the_last_line_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n{"n":\n{"n": 3}\n')
    with pytest.raises(DamagedFile, match="line 2"):
        read_jsonl(path)
    path.write_text("[1]\n")
    with pytest.raises(DamagedFile, match="line 1 is not a JSON object"):
        read_jsonl(path)


def test_truncation_keeps_what_is_wanted_byte_for_byte(tmp_path):
    path = tmp_path / "a.jsonl"
    for n in range(5):
        append_jsonl(path, {"kimg": n / 3, "text": "γ"})
    lines = path.read_bytes().splitlines(keepends=True)
    with open(path, "ab") as file:
        file.write(b'{"kimg": 9')
    assert truncate_jsonl(path, lambda r: r["kimg"] <= 1.0) == 1
    assert path.read_bytes() == b"".join(lines[:4])
    assert truncate_jsonl(tmp_path / "none.jsonl", lambda r: True) == 0
    assert not (tmp_path / "none.jsonl").exists()


def test_every_line_is_strict_json(tmp_path):
    append_jsonl(tmp_path / "a.jsonl", {"a": math.nan, 1: "text\nwith a newline"})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    (line,) = (tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {"a": None, "1": "text\nwith a newline"}
