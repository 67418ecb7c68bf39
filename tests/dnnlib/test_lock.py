"""A lock has one owner at a time, and none after its owner is gone."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dnnlib.lock import Taken, exclusive

pytest.importorskip("fcntl")

OWNER = """
import sys, time
from dnnlib.lock import exclusive
with exclusive(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_held_lock_is_refused_and_a_killed_owner_frees_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(Taken, match=r"\.lock"), exclusive(path, wait=False):
            pass
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    with exclusive(path, wait=False):
        pass


def test_a_lock_can_be_taken_again_after_it_is_released(tmp_path: Path) -> None:
    for _ in range(2):
        with exclusive(tmp_path / "lock", wait=False):
            pass
