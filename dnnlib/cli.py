"""What command lines share."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from dnnlib.errors import UserError


def printable(text: str) -> str:
    """Text out of somebody's files, safe to show: what a terminal would obey, or cannot show, is escaped."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return shown.encode(sys.stdout.encoding or "utf-8", "backslashreplace").decode(
        sys.stdout.encoding or "utf-8"
    )


class Failure(click.ClickException):
    """A mistake in what the user gave, shown as one message without a traceback; exit code 2."""

    exit_code = 2

    def format_message(self) -> str:
        return "\n".join(map(printable, self.message.split("\n")))  # it may quote names of files


def told(error: Exception) -> str:
    """The message of what a user can mend: of a system's error the file and what is wrong."""
    if not isinstance(error, OSError) or type(error).__str__ is not OSError.__str__:
        return str(error)  # it has words of its own
    if error.strerror is None or error.filename is None:
        return str(error)
    what = error.strerror[0].lower() + error.strerror[1:]
    remedy = "; choose another place" if isinstance(error, FileExistsError | NotADirectoryError) else ""
    return f"{error.filename}: {what}{remedy}"


class Commands(click.Group):
    """Commands, each imported from `package.<name>` when it is asked for, under its own name.

    What a user can mend (UserError, OSError) is shown as a message.
    """

    def __init__(self, *args: Any, package: str, names: Sequence[str], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.package, self.names = package, list(names)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self.names

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.names:
            return None
        command: click.Command = getattr(importlib.import_module(f"{self.package}.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `… | head`: click ends quietly
            raise
        except (UserError, OSError) as error:
            raise Failure(told(error)) from error
