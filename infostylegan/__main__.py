"""`python -m infostylegan COMMAND`."""

from __future__ import annotations

import importlib
from typing import Any

import click

from dnnlib.cli import Failure

# Command -> the module of infostylegan.commands that holds it, under its own name.
COMMANDS = {
    "atlas": "atlas",
    "data": "data",
    "doctor": "doctor",
    "export": "export",
    "generate": "generate",
    "hub": "hub",
    "name": "name",
    "project": "project",
    "report": "report",
    "studio": "studio",
    "traverse": "traverse",
    "walk": "walk",
}


class Commands(click.Group):
    """Imports a command when it is asked for, and shows the mistakes that a user can mend as messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"infostylegan.commands.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `… | head`: click ends quietly
            raise
        except Exception as error:
            from infostylegan.codes import CodeError
            from infostylegan.data.errors import DataError
            from infostylegan.export import ExportError, SnapshotError

            if isinstance(error, (CodeError, DataError, ExportError, SnapshotError, OSError)):
                raise Failure(str(error)) from error
            raise


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """InfoStyleGAN: images whose semantic controls were found without labels."""


if __name__ == "__main__":
    main(prog_name="python -m infostylegan")
