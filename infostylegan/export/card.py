"""The model card of a generator: what it is, what it learned from, how to use it and what for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from infostylegan.codes import Categorical, Code, Uniform


def code_range(code: Code) -> str:
    if isinstance(code, Uniform):
        return "−1 … 1"
    return f"0 … {code.k - 1}" if isinstance(code, Categorical) else "0 or 1"


def record(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What a snapshot says under `key`, where that is a record: a file of somebody else may say anything."""
    found = content.get(key)
    return found if isinstance(found, Mapping) else {}


def listed(content: Mapping[str, Any], key: str) -> list[str]:
    """What a snapshot lists under `key`, as texts; nothing where that is no list."""
    found = content.get(key)
    return [str(value) for value in found] if isinstance(found, (list, tuple)) else []


def _cell(text: Any) -> str:
    """Text that stays within its cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def model_card(content: Mapping[str, Any], name: str = "") -> str:
    """Markdown with the header that the Hugging Face hub reads; facts from the snapshot, nothing else."""
    G = content["G_ema"]
    names, dataset, options = (record(content, key) for key in ("code_names", "dataset", "training_options"))
    size = int(G.grown_resolution)
    parameters = sum(p.numel() for p in G.parameters())
    data_name = _cell(dataset.get("name", "unknown data"))
    header = ["library_name: infostylegan", "pipeline_tag: unconditional-image-generation"]
    header += ["tags:", "- gan", "- infostylegan", "- image-generation", "- disentanglement"]
    lines = ["---", *header, "---", "", f"# {_cell(name) or f'InfoStyleGAN, {data_name}, {size}×{size}'}", ""]
    lines += [
        f"A generator of {size}×{size} images ({'gray' if G.channels == 1 else 'RGB'}), with "
        f"{len(G.codes)} codes whose meaning it found without labels. "
        f"{'Styled (S = 1)' if G.mapping is not None else 'Direct (S = 0)'}, {parameters:,} parameters.",
        "",
    ]
    if len(G.codes):
        lines += ["| code | name | values |", "|---|---|---|"]
        lines += [f"| {c.name} | {_cell(names.get(c.name, '')) or '–'} | {code_range(c)} |" for c in G.codes]
        lines += [
            "",
            "A dash means that nobody has named the code; what it does is to be seen in a traversal.",
        ]
    if G.labels:
        labels = listed(content, "label_names")
        told = ", ".join(f"{i}: {_cell(n)}" for i, n in enumerate(labels)) or f"0 to {G.labels - 1}"
        lines += ["", f"Labels: {told}."]
    lines += ["", "## Use", "", "```python", "from infostylegan import load_generator", ""]
    lines += ['G = load_generator(".")  # this folder, or its model.safetensors; nothing in it is executed']
    lines += ["z, c = G.sample_latents(8)"]
    if len(G.codes):
        lines += [f"c[:, 0] = 0  # {G.codes[0].name}: {code_range(G.codes[0])}"]
    label = ", label=label" if G.labels else ""
    if G.labels:
        lines += ["label = torch.zeros(8, dtype=torch.long)  # after: import torch"]
    psi = ", psi=0.7" if G.mapping is not None else ""
    lines += [f"images = G(z, c{label}{psi})  # [8, {G.channels}, {size}, {size}], about -1 to 1", "```", ""]
    lines += ["## Training", ""]
    count = dataset.get("images")
    lines += [f"- Data: {data_name}" + (f", {count:,} images" if isinstance(count, int) else "")]
    if dataset.get("digest"):
        lines += [f"- Digest of the data: `{_cell(dataset['digest'])}`"]
    if isinstance(content.get("images"), int):
        lines += [f"- Seen in training: {content['images']:,} images"]
    known = [k for k in ("beta", "gamma", "seed", "kimg", "precision") if options.get(k) is not None]
    lines += [f"- {key}: {_cell(json.dumps(options[key], ensure_ascii=False))}" for key in known]
    if content.get("version"):
        commit = f", commit {_cell(content['commit'])}" if content.get("commit") else ""
        lines += [f"- infostylegan {_cell(content['version'])}{commit}"]
    lines += [
        "",
        "## Limits",
        "",
        "- Images are generated. They depict no one and nothing, and are no evidence of anything: not for "
        "diagnosis, and not for training or testing a medical device without a study of its own.",
        "- A code controls what it came to control in training: several things at once, it may be, or none.",
        "- The generator may repeat, and will reflect, the images that it was trained on, with their gaps "
        "and bias; the terms of that data hold for it too.",
        "",
    ]
    return "\n".join(lines)
