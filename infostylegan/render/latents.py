"""Which image: seeds, codes by name, labels, and the calls that turn them into pixels."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from infostylegan.codes import Code, CodeError, CodeSpec, Uniform

if TYPE_CHECKING:
    from infostylegan.networks.generator import Generator


def parse_seeds(text: str) -> list[int]:
    """`0-99,105` -> [0, …, 99, 105]. Raises ValueError with the part that cannot be read."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = [first, last] if dash else [first]
        if not all(n.isascii() and n.isdigit() and len(n) < 16 for n in numbers):
            raise ValueError(f"seeds {text!r}: cannot read {part.strip()!r}; write numbers such as 0-99,105")
        low, high = int(numbers[0]), int(numbers[-1])
        if high < low:
            raise ValueError(f"seeds {text!r}: {part.strip()!r} runs backwards")
        if len(seeds) + high - low >= 1_000_000:
            raise ValueError(f"seeds {text!r}: that is more than a million")
        seeds.extend(range(low, high + 1))
    return seeds


def find_code(spec: CodeSpec, name: str, names: Mapping[str, str] | None = None) -> int:
    """The index of a code, by its own name or the one that people gave it. Raises CodeError."""
    wanted = name.strip()
    if wanted in spec.names:
        return spec.names.index(wanted)
    given = [i for i, code in enumerate(spec) if (names or {}).get(code.name, "").lower() == wanted.lower()]
    if len(given) == 1 and wanted:
        return given[0]
    if len(given) > 1:
        same = ", ".join(spec.names[i] for i in given)
        raise CodeError(f"{wanted!r} is the name of several codes: say which of {same}")
    known = ", ".join(spec.names) or "none at all"
    raise CodeError(f"no code is called {wanted!r}; this generator has {known}")


def parse_settings(
    text: str, spec: CodeSpec, names: Mapping[str, str] | None = None, *, words: Sequence[str] = ()
) -> dict[str, float | str]:
    """`cat0=2,unif3=0.5` -> {"cat0": 2.0, "unif3": 0.5}; a code may go by the name that people gave it.

    `words` are values that may stand in the place of a number. Raises CodeError with the part and the remedy.
    """
    found: dict[str, float | str] = {}
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        if not equals:
            raise CodeError(f"codes {text!r}: cannot read {part!r}; write name=value, as in cat0=2,unif3=0.5")
        index = find_code(spec, name, names)
        code = spec[index]
        if code.name in found:
            raise CodeError(f"codes {text!r}: {code.name} is set twice")
        found[code.name] = value if value in words else code_value(code, value, words)
    return found


def code_value(code: Code, value: str | float, words: Sequence[str] = ()) -> float:
    """A value that `code` can take, as a number. Raises CodeError."""
    if isinstance(code, Uniform):
        low, high, allowed = -1, 1, "a number from -1 to 1"
    else:
        low, high = 0, len(code.traversal()) - 1
        allowed = f"a whole number from 0 to {high}"
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not low <= number <= high or not (isinstance(code, Uniform) or number.is_integer()):
        also = f", or one of {', '.join(words)}" if words else ""
        raise CodeError(f"{code.name}={value}: it takes {allowed}{also}")
    return number


def seeded_latents(
    G: Generator, seeds: Sequence[int], label: int | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(z', c, label) on the CPU, drawn a seed at a time: a seed means the same image in any company.

    `label` is for all; without it each seed draws its own where the generator has labels.
    """
    check_label(G, label)
    z, c, labels = [], [], []
    for seed in seeds:
        draw = torch.Generator().manual_seed(seed)
        one_z, one_c = G.sample_latents(1, generator=draw)
        z.append(one_z)
        c.append(one_c)
        if G.labels:
            drawn = int(torch.randint(G.labels, (), generator=draw))
            labels.append(drawn if label is None else label)
    return torch.cat(z), torch.cat(c), torch.tensor(labels) if labels else None


def check_label(G: Generator, label: int | None) -> None:
    """Raise ValueError for a label that this generator does not know."""
    if label is None:
        return
    if not G.labels:
        raise ValueError(f"label {label}: this generator was trained without labels")
    if not 0 <= label < G.labels:
        raise ValueError(f"label {label}: this generator knows 0 to {G.labels - 1}")


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients, and back to how it was."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


def device_of(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def render(
    G: Generator,
    z: Tensor,
    c: Tensor,
    label: Tensor | None = None,
    *,
    psi: float = 1.0,
    truncation: str = "codes",
    noise: str = "const",
    batch: int = 16,
) -> Iterator[Tensor]:
    """Images [≤ batch, C, H, W] in [-1, 1] on the CPU, a batch at a time."""
    device = device_of(G)
    for at in range(0, len(z), batch):
        part = slice(at, at + batch)
        y = label[part].to(device) if label is not None else None
        with evaluating(G):
            images = G(
                z[part].to(device), c[part].to(device), label=y, psi=psi, truncation=truncation, noise=noise
            )
        yield images.float().cpu()
