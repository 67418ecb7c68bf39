"""Generators in and out of files. Reading a file never executes anything in it.

A network snapshot is a pickle whose only instruction is a call of `rebuild_network`: configuration as JSON,
weights as safetensors bytes. Where this package is installed, plain `pickle.load(f)["G_ema"]` gives a working
module; `load_snapshot` and `load_generator` read the same file through an unpickler that knows no other call.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import safetensors.torch

from dnnlib.files import atomic_write
from infostylegan.networks import Discriminator, Generator

KINDS: dict[str, type[Generator] | type[Discriminator]] = {
    "generator": Generator,
    "discriminator": Discriminator,
}


class SnapshotError(Exception):
    """A file that is no snapshot of ours, or a damaged one; the message names it and the reason."""


def rebuild_network(kind: str, config: str, weights: bytes) -> Generator | Discriminator:
    """A network from its kind, its configuration (JSON) and its weights (safetensors), in eval mode."""
    network = KINDS[kind].from_config(json.loads(config))
    network.load_state_dict(safetensors.torch.load(weights))
    return network.eval().requires_grad_(False)


class _Pickler(pickle.Pickler):
    """Writes networks as calls of `rebuild_network`, and lets nothing else but plain data through."""

    def reducer_override(self, obj: Any) -> Any:
        for kind, cls in KINDS.items():
            if isinstance(obj, cls):
                state = {name: t.detach().cpu().contiguous() for name, t in obj.state_dict().items()}
                return rebuild_network, (kind, json.dumps(obj.config), safetensors.torch.save(state))
        if obj is rebuild_network:
            return NotImplemented
        raise TypeError(f"a snapshot holds networks and plain data, not {type(obj).__name__}")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("infostylegan.export", "rebuild_network"):
            # A stand-in, so that a file that sets attributes on what it has found changes nothing that lasts.
            return lambda kind, config, weights: rebuild_network(kind, config, weights)
        raise SnapshotError(f"it asks for {module}.{name}, which a snapshot of this project never does")

    def persistent_load(self, pid: Any) -> Any:
        raise SnapshotError("it refers to data outside itself")


# Instructions that could change an object or make one of a class; save_snapshot writes none of them.
FOREIGN = {"BUILD", "OBJ", "INST", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}


def refuse_foreign_opcodes(data: bytes) -> None:
    """Raise SnapshotError for an instruction that a snapshot never holds, before any of them runs."""
    for opcode, _, _ in pickletools.genops(data):
        if opcode.name in FOREIGN:
            raise SnapshotError(f"it holds the instruction {opcode.name}, which a snapshot never does")


def save_snapshot(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Atomically write a dict of networks and plain data (numbers, texts, lists, dicts)."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=4).dump(content)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def load_snapshot(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The dict that `save_snapshot` wrote. Raises SnapshotError for any other file; executes nothing."""
    path = Path(path)
    if not path.is_file():
        raise SnapshotError(f"{path}: no such file")
    try:
        data = path.read_bytes()
        refuse_foreign_opcodes(data)
        content = _Unpickler(io.BytesIO(data)).load()
    except SnapshotError as error:
        raise SnapshotError(f"{path}: refused: {error}") from None
    except Exception as error:
        raise SnapshotError(f"{path}: damaged, or no snapshot of this project ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("G_ema"), Generator):
        raise SnapshotError(f"{path}: holds no generator under 'G_ema'")
    return content


def save_generator(path: str | os.PathLike[str], generator: Generator, **extra: Any) -> None:
    """Write one generator as a snapshot; `extra` is plain data to keep with it."""
    save_snapshot(path, {"G_ema": generator, **extra})


def load_generator(path: str | os.PathLike[str]) -> Generator:
    """The (moving-average) generator of a snapshot, in eval mode. Raises SnapshotError."""
    generator: Generator = load_snapshot(path)["G_ema"]
    return generator
