"""`python -m infostylegan COMMAND`."""

from __future__ import annotations

import click

from dnnlib.cli import Commands

# Each is a module of infostylegan.commands.
COMMANDS = (
    "atlas",
    "data",
    "doctor",
    "export",
    "generate",
    "hub",
    "name",
    "project",
    "report",
    "studio",
    "traverse",
    "walk",
)


@click.group(
    cls=Commands,
    package="infostylegan.commands",
    names=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def main() -> None:
    """InfoStyleGAN: images whose semantic controls were found without labels."""


if __name__ == "__main__":
    main(prog_name="python -m infostylegan")
