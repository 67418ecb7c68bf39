"""Progress in a log: how far, how fast, and how long still, without counting what an earlier run has done."""

from __future__ import annotations

import pytest

from infostylegan.commands.data import shared


def test_a_log_is_told_the_time_left_from_the_speed_of_this_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(shared.time, "monotonic", lambda: now)
    bar = shared.Bar("preparing")
    bar(1000, 2000)  # done by an earlier run
    now = 20.0
    bar(1010, 2000)
    assert capsys.readouterr().err == ""  # a line every 30 seconds at most
    now = 40.0
    bar(1040, 2000)
    assert capsys.readouterr().err == "preparing: 1040 of 2000, 1.0 a second, 16 minutes left\n"
    now = 100.0
    bar(1050, 2000)
    assert capsys.readouterr().err == "preparing: 1050 of 2000, 0.5 a second, 32 minutes left\n"


@pytest.mark.parametrize(
    ("text", "shown"), [("Łódź.png", "Łódź.png"), ("a\x1b[2Jb\n", "a\\x1b[2Jb\\n"), ("\udcff", "\\udcff")]
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert shared.printable(text) == shown
