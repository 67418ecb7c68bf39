"""Facts about dnnlib.memory."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import dnnlib
from dnnlib import memory

ROOT = Path(dnnlib.__file__).parents[1]

# Page faults of allocating and freeing large blocks again and again, after a first round.
FAULTS = """
import json, resource, sys
from dnnlib.memory import tune_malloc
tuned = tune_malloc() if sys.argv[1] == "tune" else None
def step():
    block = b"x" * (40 << 20)  # larger than any threshold that glibc chooses by itself
    del block
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(json.dumps([tuned, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def faults(how: str) -> list:
    command = [sys.executable, "-c", FAULTS, how]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a Linux setting")
def test_tuned_malloc_reuses_large_blocks_without_page_faults():
    tuned, after = faults("tune")
    if not tuned:
        pytest.skip("not glibc")
    _, before = faults("leave")
    if before < 100:
        pytest.skip("this system does not fault on large blocks to begin with")
    assert after < before / 20


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_is_done(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert memory.tune_malloc() is False


def test_on_linux_without_glibc_nothing_is_done(monkeypatch):
    class Musl:
        def __getattr__(self, name):
            raise AttributeError(name)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Musl())
    assert memory.tune_malloc() is False


@pytest.mark.skipif(sys.platform == "win32", reason="unknown on Windows")
def test_peak_memory_counts_what_was_held_even_after_it_is_freed():
    before = memory.peak_memory_bytes()
    assert before > 1 << 20
    block = bytearray(b"x" * (1 << 20)) * 64
    del block
    assert memory.peak_memory_bytes("cpu") >= before


def test_running_out_of_memory_is_told_from_other_errors_of_torch_and_numpy():
    for too_much in (lambda: torch.empty(1 << 60), lambda: np.empty(1 << 60, dtype=np.uint8)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            too_much()
        assert memory.is_out_of_memory(caught.value)
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2) + torch.zeros(3)
    assert not memory.is_out_of_memory(caught.value)
