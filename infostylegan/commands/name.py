"""`python -m infostylegan name`: what people call the codes, kept in the snapshot."""

from __future__ import annotations

from pathlib import Path

import click

from infostylegan.commands.common import SnapshotPath


@click.command()
@click.argument("snapshot", type=SnapshotPath())
@click.argument("code", required=False)
@click.argument("text", metavar="[NAME]", required=False)
@click.option("--clear", is_flag=True, help="Take the name of CODE away, or all names.")
def name(snapshot: Path, code: str | None, text: str | None, clear: bool) -> None:
    """Give CODE of SNAPSHOT a NAME that every tool shows, as in: name SNAPSHOT unif3 "pigmentation".

    Without NAME, list the codes and their names.
    """
    from dnnlib.cli import Failure
    from infostylegan.codes import shown_name
    from infostylegan.export import load_generator, load_snapshot
    from infostylegan.naming import check_code, code_names, rename_codes

    if clear and text is not None:
        raise Failure("--clear takes a name away: give it no new one")
    if clear or text is not None:
        changes = {code: text} if code is not None else dict.fromkeys(load_generator(snapshot).codes.names)
        rename_codes(snapshot, changes)
    content = load_snapshot(snapshot)
    codes, names = content["G_ema"].codes, code_names(content)
    if code is not None:
        check_code(codes, code)
    for each in codes.names if code is None else [code]:
        click.echo(shown_name(each, names))
    if not len(codes):
        click.echo(f"{snapshot}: its generator has no codes to name")
