"""`python -m metrics`: measure a model (`fid,mig,… --network SNAPSHOT --data DATA`), or a command."""

from __future__ import annotations

import click

from dnnlib.cli import Commands

# Each is a module of metrics.commands.
COMMANDS = ("run", "acm", "agreement", "score", "table")
# What stands in a command's place when the first word is a list of metrics: `python -m metrics fid,mig …`.
DEFAULT = "run"
HELP = ["-h", "--help"]


class Measuring(Commands):
    """A first word that is no command is a list of metrics."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # `acm` is a metric and a command: `acm --network …` measures, `acm create …` makes a rating study.
        measures = args[0] not in COMMANDS or (
            args[0] == "acm" and args[1:] and args[1].startswith("-") and args[1] not in HELP
        )
        return super().resolve_command(ctx, [DEFAULT, *args] if measures else args)


@click.group(
    cls=Measuring, package="metrics.commands", names=COMMANDS, context_settings={"help_option_names": HELP}
)
def main() -> None:
    """Measure a model: `python -m metrics fid,mig,… --network SNAPSHOT --data DATA`, or a command below."""


if __name__ == "__main__":
    main(prog_name="python -m metrics")
