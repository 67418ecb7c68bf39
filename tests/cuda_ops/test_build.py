"""Builds of native kernels: what is built when, by whom, and what happens where none can be."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cuda_ops import bias_act, build, setup_filter, upfirdn2d
from cuda_ops.backends import BACKENDS, OPERATORS, Backend, Status, _load_cpu, default_impl
from dnnlib.lock import exclusive

ROOT = Path(__file__).resolve().parents[2]

COMPILER = """\
#!/bin/sh
case "$*" in *--version*) echo "pretended {version}"; exit 0;; esac
echo run >> "{log}"
{action}
while [ $# -gt 0 ]; do [ "$1" = -o ] && printf library > "$2"; shift; done
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no other to look into."""
    monkeypatch.setenv("INFOSTYLEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users-cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "prebuilt")
    return tmp_path / "cache" / "ops"


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """pretend(action, version): a compiler that does what the shell `action` says and writes its results."""

    def make(action="", version="1.0"):
        script = tmp_path / "compiler"
        script.write_text(COMPILER.format(action=action, version=version, log=tmp_path / "runs"))
        script.chmod(0o755)
        monkeypatch.setenv("CXX", str(script))
        return tmp_path / "runs"

    return make


def test_a_library_is_built_once_and_found_again(cache, pretend, capfd):
    runs = pretend()
    first = build.find_or_build("cpu")
    count = len(runs.read_text().splitlines())
    assert first.read_text() == "library"
    assert build.find_or_build("cpu") == first
    assert len(runs.read_text().splitlines()) == count
    assert capfd.readouterr().err.count("building the cpu kernels") == 1


def test_another_compiler_or_source_is_another_library(cache, pretend, tmp_path, monkeypatch):
    pretend(version="1.0")
    first = build.find_or_build("cpu")
    pretend(version="2.0")
    second = build.find_or_build("cpu")
    sources = tmp_path / "csrc"
    (sources / "cpu").mkdir(parents=True)
    for name in ("ops.h", "bindings.cpp", "cpu/kernels.cpp"):
        (sources / name).write_text("changed")
    monkeypatch.setattr(build, "SOURCES", sources)
    assert len({first, second, build.find_or_build("cpu")}) == 3


def test_a_prebuilt_library_needs_no_compiler(cache, pretend, monkeypatch, tmp_path):
    runs = pretend()
    (made,) = build.build_ahead(tmp_path / "prebuilt")
    assert runs.exists()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.find_or_build("cpu") == made


def test_a_cache_for_one_run_sees_the_users(cache, pretend, monkeypatch, tmp_path):
    pretend()
    monkeypatch.delenv("INFOSTYLEGAN_CACHE")
    made = build.find_or_build("cpu")
    assert made.is_relative_to(tmp_path / "users-cache")
    monkeypatch.setenv("INFOSTYLEGAN_CACHE", str(tmp_path / "cache"))
    assert build.find_or_build("cpu") == made


def test_a_build_changes_nothing_in_the_environment_and_leaves_no_rubbish(cache, pretend):
    pretend()
    before, folder = dict(os.environ), os.getcwd()
    library = build.find_or_build("cpu")
    assert (dict(os.environ), os.getcwd()) == (before, folder)
    assert {p.suffix for p in library.parent.iterdir()} == {".so", ".lock"}


def test_no_compiler_is_a_reason_and_a_remedy(cache, monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match=r"^no C\+\+ compiler was found; install g\+\+ "):
        build.find_or_build("cpu")


def test_a_compiler_that_is_not_there_is_named(cache, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(build.BuildError, match="named by CXX, 'no-such-compiler -m64', was not found"):
        build.find_or_build("cpu")


def test_a_broken_compiler_is_quoted_logged_and_leaves_no_library(cache, pretend):
    pretend("echo 'In file x.h:' >&2; echo 'x.h:1: fatal error: disk full' >&2; exit 1")
    with pytest.raises(
        build.BuildError, match=r"^compiler failed: x.h:1: fatal error: disk full; see "
    ) as error:
        build.find_or_build("cpu")
    log = Path(error.value.remedy.removeprefix("see "))
    assert "In file x.h:" in log.read_text()
    assert not list(cache.glob("*.so"))


def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(cache, pretend, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "COMMAND_TIMEOUT", 0.5)
    monkeypatch.setattr(build._run, "__defaults__", (0.5, None))
    pretend(f"sleep 97 & echo $! >> '{tmp_path}/sleepers'; wait")
    started = time.monotonic()
    with pytest.raises(build.BuildError, match=r"^compiler took more than 0 s"):
        build.find_or_build("cpu")
    assert time.monotonic() - started < 30
    for pid in (tmp_path / "sleepers").read_text().split():
        for _ in range(50):  # the end of a process takes a moment, and longer until somebody looks
            state = Path(f"/proc/{pid}/stat")
            if not state.exists() or ") Z " in state.read_text():
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"process {pid} outlived its compiler")


def test_a_lock_whose_owner_is_gone_is_taken_and_said_so(cache, pretend, capfd):
    pretend()
    cache.mkdir(parents=True)
    compiler = build._compiler()
    key = build._digest([build._recipe("cpu"), compiler, build._version(compiler)])
    lock = cache / f"cpu-{key}.lock"
    lock.write_text("process 4 on elsewhere")
    assert build.find_or_build("cpu").exists()
    assert "was left by process 4 on elsewhere, which is gone; building anew" in capfd.readouterr().err
    assert lock.read_text() == ""


def test_a_lock_that_is_held_too_long_names_its_owner(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "LOCK_TIMEOUT", 0.2)
    path = tmp_path / "some.lock"
    with exclusive(path):
        path.write_text("process 7 on here")
        with (
            pytest.raises(
                build.BuildError, match=r"^process 7 on here has been building .*; end it, or delete "
            ),
            build._only_builder(path),
        ):
            pass


def test_a_cache_that_cannot_be_written_is_named(cache, pretend, monkeypatch, tmp_path):
    pretend()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INFOSTYLEGAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(build.BuildError, match=r"file/ops cannot be written .*; point INFOSTYLEGAN_CACHE at"):
        build.find_or_build("cpu")


def test_processes_that_start_together_build_once(cache, pretend):
    runs = pretend("sleep 0.3")
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from cuda_ops import build
        build.PREBUILT = Path(sys.argv[1])
        print(build.find_or_build("cpu"))
    """)
    command = [sys.executable, "-c", code, str(cache)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    found = {process.communicate(timeout=120)[0] for process in started}
    assert len(found) == 1
    units = 3 if build._X86 else 1
    assert len(runs.read_text().splitlines()) == units + 2 + 1  # kernels, bindings and dispatch, linking


def test_a_damaged_library_is_a_reason_and_the_reference_runs(cache, pretend):
    pretend()
    path = build.find_or_build("cpu")  # no library at all, as the compiler was none
    status = Backend("cpu", OPERATORS, _load_cpu).load()
    assert not status.ready
    assert status.detail.startswith(f"{path} cannot be loaded (")
    assert status.remedy == "delete it, to have it built anew"


@pytest.fixture
def missing(monkeypatch):
    """The CPU back end fails to load; the list of its attempts."""
    attempts = []

    def fail():
        attempts.append(1)
        raise build.BuildError("the moon is full", "wait a week")

    monkeypatch.setitem(BACKENDS, "cpu", Backend("cpu", OPERATORS, fail))
    return attempts


def test_after_a_failure_one_warning_tells_why_and_the_reference_runs(missing):
    x, f = torch.randn(1, 2, 4, 4), setup_filter([1, 2, 1])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        y = upfirdn2d(x, f)
        threads = [threading.Thread(target=upfirdn2d, args=(x, f)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bias_act(x)
    assert len(seen) == len(missing) == 1
    assert "kernels are not in use: the moon is full; wait a week. " in str(seen[0].message)
    assert "\n" not in str(seen[0].message)
    assert seen[0].filename == __file__
    assert torch.equal(y, upfirdn2d(x, f, impl="ref"))


@pytest.mark.parametrize("call", [bias_act, lambda x, impl: upfirdn2d(x, None, impl=impl)])
def test_a_back_end_asked_for_and_missing_is_an_error_in_one_line(missing, call):
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match=r"^\w+: the 'cpu' back end isn't built \(.*impl='auto'$"
        ) as error:
            call(torch.zeros(1, 1, 4, 4), impl="cpu")
        assert "(the moon is full); wait a week, or use impl='ref'" in str(error.value)
    assert len(missing) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_asked_for_without_a_gpu_says_so():
    with pytest.raises(RuntimeError, match=r"the 'cuda' back end isn't built \(torch sees no CUDA device\)"):
        bias_act(torch.zeros(1, 1), impl="cuda")


def test_the_switch_keeps_all_on_the_reference_without_a_word(monkeypatch):
    monkeypatch.setenv("INFOSTYLEGAN_OPS", "ref")
    monkeypatch.setattr(build, "find_or_build", lambda name: pytest.fail("it was built"))
    monkeypatch.setitem(BACKENDS, "cpu", Backend("cpu", OPERATORS, _load_cpu))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bias_act(torch.zeros(1, 1))
    with pytest.raises(RuntimeError, match="INFOSTYLEGAN_OPS=ref turns it off"):
        bias_act(torch.zeros(1, 1), impl="cpu")


def test_default_impl_holds_within_its_context_only(missing):
    with default_impl("ref"):
        bias_act(torch.zeros(1, 1))
    assert not missing
    with pytest.raises(ValueError, match="default_impl: unknown impl 'gpu'"), default_impl("gpu"):
        pass


def test_setup_py_imports_no_torch():
    code = textwrap.dedent("""
        import runpy, sys
        sys.argv = ["setup.py", "--name"]
        runpy.run_path("setup.py", run_name="__main__")
        assert "torch" not in sys.modules
    """)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "infostylegan" in done.stdout


def test_doctor_tells_the_state_of_each_back_end(monkeypatch):
    from infostylegan.__main__ import main

    def loader(status):
        return lambda: status

    ready = Status("cpu", True, "avx2", path=Path("/somewhere/cpu.so"))
    monkeypatch.setitem(BACKENDS, "cpu", Backend("cpu", OPERATORS, loader(ready)))
    broken = Status("cuda", False, "nvcc was not found", "install it")
    monkeypatch.setitem(BACKENDS, "cuda", Backend("cuda", OPERATORS, loader(broken)))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "cpu ops:   ready, avx2, /somewhere/cpu.so" in result.output
    assert "cuda ops:  not in use: nvcc was not found\n           to mend it: install it" in result.output
    for word in ("torch:", "compiler:", "cache:", "threads:", "malloc:"):
        assert word in result.output
