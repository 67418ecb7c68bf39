"""What command lines share."""

from __future__ import annotations

import click


class Failure(click.ClickException):
    """A mistake in what the user gave, shown as one message without a traceback; exit code 2."""

    exit_code = 2
