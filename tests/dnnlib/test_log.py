"""Facts about dnnlib.log."""

import io
import sys

import pytest
from tqdm import tqdm

from dnnlib.log import RunLog, format_bytes, format_time


def test_lines_reach_the_terminal_and_the_file_at_once(tmp_path, capsys):
    path = tmp_path / "log.txt"
    path.write_text("earlier\n")
    with RunLog(path) as log:
        log.line("one γ")
        log.warn("two")
        assert path.read_text(encoding="utf-8") == "earlier\none γ\nwarning: two\n"
    shown = capsys.readouterr()
    assert shown.out == "one γ\n"
    assert shown.err == "warning: two\n"


def test_without_a_path_no_file_and_when_quiet_no_print(tmp_path, capsys):
    with RunLog(None) as log:
        log.line("shown")
    with RunLog(tmp_path / "log.txt", quiet=True) as log:
        log.line("kept")
        log.warn("kept")
    assert capsys.readouterr() == ("shown\n", "")
    assert (tmp_path / "log.txt").read_text() == "kept\nwarning: kept\n"


def test_a_line_does_not_tear_an_active_progress_bar(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    with tqdm(total=2, file=terminal, ncols=60, mininterval=0) as bar, RunLog(None) as log:
        bar.update()
        log.line("hello")
    drawn = [line.split("\r")[-1] for line in terminal.getvalue().split("\n")]
    assert "hello" in drawn
    assert all("hello" not in line or line == "hello" for line in drawn)


def test_the_log_tells_how_a_run_ended(tmp_path):
    path = tmp_path / "log.txt"
    with pytest.raises(RuntimeError), RunLog(path, quiet=True):
        raise RuntimeError("out of luck")
    assert "Traceback" in path.read_text()
    assert path.read_text().endswith("RuntimeError: out of luck\n")
    with pytest.raises(KeyboardInterrupt), RunLog(path, quiet=True):
        raise KeyboardInterrupt
    assert path.read_text().endswith("interrupted\n")


def test_a_reader_that_left_does_not_end_the_run(tmp_path, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with RunLog(tmp_path / "log.txt") as log:
        log.line("one")
        log.line("two")
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"


def test_a_terminal_without_greek_still_gets_the_line(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", newline="\n"))
    RunLog(None).line("γ = 10")
    assert raw.getvalue() == b"? = 10\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m 00s"), (185, "3m 05s"),
        (3599.7, "1h 00m 00s"), (3723, "1h 02m 03s"), (183900, "2d 03h 05m"), (-5, "-5.0s"),
    ],
)  # fmt: skip
def test_times(seconds, text):
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (2**30, "1.0 GiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_sizes(n, text):
    assert format_bytes(n) == text
