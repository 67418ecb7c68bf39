"""Snapshots: pickles of networks and plain data that are read without executing anything.

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
from infostylegan.export.building import build_network
from infostylegan.export.errors import SnapshotError
from infostylegan.export.tensors import load_tensors, save_folder, save_tensors
from infostylegan.networks import Discriminator, Generator

KINDS: dict[str, type[Generator] | type[Discriminator]] = {
    "generator": Generator,
    "discriminator": Discriminator,
}


def snapshots_of(folder: str | os.PathLike[str]) -> list[Path]:
    """The snapshots in a run folder, oldest first."""
    return sorted(Path(folder).glob("network-snapshot-*.pkl"))


def find_snapshot(path: Path) -> Path:
    """The snapshot itself, or the newest of a run folder. Raises SnapshotError where a folder has none."""
    if not path.is_dir():
        return path
    if not (found := snapshots_of(path)):
        raise SnapshotError(f"{path}: holds no network-snapshot-<kimg>.pkl; give a run folder or a snapshot")
    return found[-1]


def rebuild_network(kind: str, config: str, weights: bytes) -> Generator | Discriminator:
    """A network from its kind, its configuration (JSON) and its weights (safetensors), in eval mode."""
    return build_network(KINDS[kind], json.loads(config), safetensors.torch.load(weights))


# Files name it by this place, whatever module it lives in.
rebuild_network.__module__ = "infostylegan.export"


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

NUMBERED = ("PUT", "BINPUT", "LONG_BINPUT")


def refuse_foreign_opcodes(data: bytes) -> None:
    """Raise SnapshotError for an instruction that a snapshot never holds, before any of them runs."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in FOREIGN:
            raise SnapshotError(f"it holds the instruction {opcode.name}, which a snapshot never does")
        # The unpickler makes room for every number up to this one.
        if opcode.name in NUMBERED and (argument or 0) > len(data):
            raise SnapshotError(f"it numbers an object {argument}, in {len(data)} bytes")


# The first bytes of files that people take for a snapshot, and what to do with them.
OTHERS = {
    b"PK\x03\x04": "a zip, as torch.save and torch.export write; this program opens no weights of others",
    b"\x89HDF": "an HDF5 file of another program",
    b"\x1f\x8b": "compressed (gzip): unpack it first",
    b"\x89PNG": "a picture",
}


def refuse_other_kinds(head: bytes, suffix: str) -> None:
    """Raise SnapshotError with the reason for a file that is known to be something else."""
    for magic, what in OTHERS.items():
        if head.startswith(magic):
            raise SnapshotError(f"it is {what}")
    if suffix in (".onnx", ".pt2"):
        raise SnapshotError(
            f"a {suffix} runs in other programs and is not read back: "
            "start from the snapshot, or from --format safetensors or pkl"
        )


def save_snapshot(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Atomically write a dict of networks and plain data (numbers, texts, lists, dicts)."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=4).dump(content)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def load_snapshot(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The dict that `save_snapshot` wrote, or that of an exported folder or .safetensors file (without D).

    Raises SnapshotError for any other file; executes nothing.
    """
    path = Path(path)
    if not path.exists():
        raise SnapshotError(f"{path}: no such file")
    if path.is_dir() or path.suffix == ".safetensors":
        return load_tensors(path)
    try:
        data = path.read_bytes()
        refuse_other_kinds(data[:16], path.suffix)
        refuse_foreign_opcodes(data)
        content = _Unpickler(io.BytesIO(data)).load()
    except SnapshotError as error:
        raise SnapshotError(f"{path}: refused: {error}") from None
    except Exception as error:
        raise SnapshotError(f"{path}: damaged, or no snapshot of this project ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("G_ema"), Generator):
        raise SnapshotError(f"{path}: holds no generator under 'G_ema'")
    return content


def replace_snapshot(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write `content` over what `load_snapshot` read it from, in the same form: pickle, folder or tensors."""
    path = Path(path)
    if path.is_dir():
        save_folder(path, content)
    elif path.suffix == ".safetensors":
        save_tensors(path, content)
    else:
        save_snapshot(path, content)


def save_generator(path: str | os.PathLike[str], generator: Generator, **extra: Any) -> None:
    """Write one generator as a snapshot; `extra` is plain data to keep with it."""
    save_snapshot(path, {"G_ema": generator, **extra})


def load_generator(path: str | os.PathLike[str]) -> Generator:
    """The (moving-average) generator of a snapshot, in eval mode. Raises SnapshotError."""
    generator: Generator = load_snapshot(path)["G_ema"]
    return generator
