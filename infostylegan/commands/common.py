"""What the commands that start from a snapshot share: its generator, and the options that choose an image."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dnnlib.cli import Failure

if TYPE_CHECKING:
    from infostylegan.networks import Discriminator, Generator

Command = TypeVar("Command", bound=Callable[..., Any])


class SnapshotPath(click.Path):
    """A snapshot, an exported generator, or a run folder, which stands for its newest snapshot."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if (path / "model.safetensors").is_file():
            return path
        from infostylegan.export import find_snapshot

        return find_snapshot(path)


snapshot_argument = click.argument("snapshot", type=SnapshotPath())
_OPTIONS = (
    click.option("--psi", type=float, default=1.0, show_default=True, help="Below 1: more typical images."),
    click.option(
        "--truncation", type=click.Choice(["codes", "global"]), default="codes", show_default=True,
        help="What psi pulls to: the mean given the codes, which keeps their effect, or the mean of all.",
    ),
    click.option("--label", type=int, help="Class, for a generator trained with labels.  [default: drawn]"),
    click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Images at a time."),
)  # fmt: skip


def image_options(command: Command) -> Command:
    """--psi, --truncation, --label and --batch."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What a user asked for and cannot have (ValueError) as one line."""
    try:
        yield
    except ValueError as error:
        raise Failure(str(error)) from error


def open_generator(snapshot: Path, psi: float = 1.0) -> tuple[Generator, dict[str, str]]:
    """The generator of a snapshot, on the GPU where there is one, and the names of its codes."""
    import torch

    from dnnlib.memory import tune_malloc
    from infostylegan.export import load_snapshot
    from infostylegan.naming import code_names

    tune_malloc()  # large images come and go with every batch
    content = load_snapshot(snapshot)
    G: Generator = content["G_ema"]
    if not 0.0 <= psi <= 2.0:
        raise Failure(f"--psi {psi:g}: must lie within 0 … 2")
    if psi != 1.0 and G.mapping is None:
        raise Failure(
            f"--psi {psi:g}: {snapshot} has no styles (S = 0), so that psi does nothing; leave it out"
        )
    return G.to("cuda" if torch.cuda.is_available() else "cpu"), code_names(content)


def open_networks(
    snapshot: Path,
) -> tuple[Generator, Discriminator | None, dict[str, str], dict[str, Any]]:
    """Generator, discriminator (where the snapshot holds one), the names of the codes, and the whole content;
    on the GPU where there is one."""
    import torch

    from infostylegan.export import load_snapshot
    from infostylegan.naming import code_names
    from infostylegan.networks import Discriminator

    content = load_snapshot(snapshot)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    D = content.get("D")
    D = D.to(device) if isinstance(D, Discriminator) else None
    return content["G_ema"].to(device), D, code_names(content), content
