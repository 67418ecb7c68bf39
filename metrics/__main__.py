"""`python -m metrics`: measure a model (`fid,mig,… --network SNAPSHOT --data DATA`), or a command."""

from __future__ import annotations

import importlib
from typing import Any

import click

from dnnlib.cli import Failure

# Command -> the module of metrics.commands that holds it, under its own name.
COMMANDS = {
    "run": "run",
    "acm": "acm",
    "agreement": "agreement",
    "score": "score",
    "table": "table",
}
# What stands in a command's place when the first word is a list of metrics: `python -m metrics fid,mig …`.
DEFAULT = "run"
HELP = ["-h", "--help"]


class Commands(click.Group):
    """Imports a command when it is asked for, and shows the mistakes that a user can mend as messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"metrics.commands.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # `acm` is a metric and a command: `acm --network …` measures, `acm create …` makes a rating study.
        measures = args[0] not in COMMANDS or (
            args[0] == "acm" and args[1:] and args[1].startswith("-") and args[1] not in HELP
        )
        return super().resolve_command(ctx, [DEFAULT, *args] if measures else args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException:
            raise
        except Exception as error:
            from dnnlib.files import DamagedFile
            from infostylegan.data.errors import DataError
            from infostylegan.export import SnapshotError
            from metrics.errors import MetricError

            if isinstance(error, (DataError, SnapshotError, MetricError, DamagedFile)):
                raise Failure(str(error)) from error
            raise


@click.group(cls=Commands, context_settings={"help_option_names": HELP})
def main() -> None:
    """Measure a model: `python -m metrics fid,mig,… --network SNAPSHOT --data DATA`, or a command below."""


if __name__ == "__main__":
    main(prog_name="python -m metrics")
