"""The folder that a generator travels in: weights as safetensors, configuration as JSON, a model card.

`model.safetensors` carries the configuration in its header too, so that it can also travel alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from dnnlib.files import atomic_write
from infostylegan.export.building import build_network
from infostylegan.export.card import model_card
from infostylegan.export.errors import SnapshotError
from infostylegan.networks import Generator

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
KEY = "infostylegan"
FORMAT = 1
NETWORKS = ("G", "D", "G_ema")


def describe(content: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept beside the weights of `content["G_ema"]`: its configuration and the plain data."""
    plain = {key: value for key, value in content.items() if key not in NETWORKS}
    return {"format": FORMAT, "generator": content["G_ema"].config, **plain}


def save_folder(folder: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write the generator `content["G_ema"]` of a snapshot, with the snapshot's plain data, into `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, content)
    with atomic_write(folder / CONFIG, "w") as file:
        file.write(json.dumps(describe(content), indent=2, ensure_ascii=False) + "\n")
    with atomic_write(folder / CARD, "w") as file:
        file.write(model_card(content))


def save_tensors(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write the generator `content["G_ema"]` as one .safetensors file, its facts in the header."""
    weights = {k: t.detach().cpu().contiguous() for k, t in content["G_ema"].state_dict().items()}
    header = {"format": "pt", KEY: json.dumps(describe(content))}
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(weights, metadata=header))


def load_tensors(path: Path) -> dict[str, Any]:
    """The content of an exported folder, or of a .safetensors file alone. Raises SnapshotError."""
    weights = path / WEIGHTS if path.is_dir() else path
    if not weights.is_file():
        raise SnapshotError(
            f"{path}: a folder without {WEIGHTS} or a snapshot; give a snapshot, a run folder that has one, "
            "or an exported folder"
        )
    try:
        with safetensors.safe_open(weights, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no dict
    except (OSError, safetensors.SafetensorError) as error:
        raise SnapshotError(f"{weights}: damaged, or no safetensors file ({error})") from error
    config = path / CONFIG
    try:
        if path.is_dir() and config.is_file():
            source, text = config, config.read_text("utf-8")
        elif KEY in header:
            source, text = weights, header[KEY]
        else:
            raise SnapshotError(
                f"{weights}: weights of another program: no configuration of ours in its header"
            )
        about = json.loads(text)
        if not isinstance(about, dict) or not isinstance(about.get("generator"), dict):
            raise SnapshotError(f"{source}: it describes no generator of this project")
        version = about.get("format")
        if version != FORMAT:
            raise SnapshotError(
                f"{source}: format {version!r}; this version reads {FORMAT}: update infostylegan"
            )
        generator = build_network(Generator, about["generator"], tensors)
    except SnapshotError:
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        raise SnapshotError(
            f"{path}: its weights and configuration do not fit, or are damaged ({line})"
        ) from error
    plain = {key: value for key, value in about.items() if key not in ("format", "generator", *NETWORKS)}
    return {"G_ema": generator, **plain}
