"""`python -m infostylegan hub`: generators to and from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import click

from infostylegan.commands.common import snapshot_argument


@click.group()
def hub() -> None:
    """Upload a generator to the Hugging Face hub, or download one (needs the extra hub)."""


@hub.command("upload")
@snapshot_argument
@click.argument("repo", metavar="USER/NAME")
@click.option("--public", is_flag=True, help="Let everyone see it.  [default: you alone]")
@click.option("--message", default="Generator", show_default=True, help="Of the commit.")
def upload_generator(snapshot: Path, repo: str, public: bool, message: str) -> None:
    """Upload the generator of SNAPSHOT as safetensors, with its model card, to USER/NAME."""
    from infostylegan.export import load_snapshot

    content = load_snapshot(snapshot)
    from infostylegan.export.hub import upload

    address = upload(content, repo, private=not public, message=message)
    click.echo(f"{repo}: {'public' if public else 'private'}, {address}")


@hub.command("download")
@click.argument("repo", metavar="USER/NAME")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--revision", help="Branch, tag or commit.  [default: main]")
def download_generator(repo: str, folder: Path | None, revision: str | None) -> None:
    """Download a generator of this project into FOLDER (default: NAME). Nothing in it is executed."""
    from dnnlib.cli import Failure
    from infostylegan.export.hub import download

    folder = Path(repo.rpartition("/")[2]) if folder is None else folder
    if folder.exists():
        raise Failure(f"{folder} is there already: give another FOLDER")
    content = download(repo, folder, revision)
    G = content["G_ema"]
    size = int(G.grown_resolution)
    click.echo(f"{folder}: a generator of {size}x{size} images with {len(G.codes)} codes")
