"""Facts about `python -m metrics`: which command a line means."""

import click
import pytest

from metrics.__main__ import main


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("fid --network S --data D", "run"),
        ("fid,mig,acm --network S", "run"),
        ("acm --network S --data D", "run"),
        ("acm create --network S", "acm"),
        ("acm --help", "acm"),
        ("acm", "acm"),
        ("agreement RUN", "agreement"),
    ],
)
def test_a_line_that_begins_with_metrics_measures_and_any_other_names_a_command(monkeypatch, line, command):
    monkeypatch.setattr(type(main), "get_command", lambda self, ctx, name: click.Command(name))
    assert main.resolve_command(click.Context(main), line.split())[0] == command
