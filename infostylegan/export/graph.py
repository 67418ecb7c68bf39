"""Generators as graphs for other programs: ONNX and torch.export, with the inputs z, c, label and psi.

The graph holds the convolutions' kernels ready-made, the fixed noise of each layer and, for psi, the mean of
w given the codes. All four inputs are always there: `label` is read by a generator trained with labels, `psi`
by a styled one.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnnlib.files import atomic_write
from infostylegan.export.errors import ExportError
from infostylegan.export.tensors import KEY, describe
from infostylegan.networks import Generator
from infostylegan.networks.layers import EqualizedConv2d

INPUTS = ("z", "c", "label", "psi")
OPSET = 18


class ReadyConv2d(nn.Module):
    """A convolution whose kernel was made once; what `EqualizedConv2d` of a generator gives in float32."""

    def __init__(self, layer: EqualizedConv2d) -> None:
        super().__init__()
        if layer.resample == "down":
            raise ValueError("ReadyConv2d: made for generators, whose convolutions don't halve")
        self.up, self.padding = layer.resample == "up", layer.padding
        kernel = layer.make_kernel(torch.float32).detach() * (4.0 if self.up else 1.0)  # for the mean of four
        self.kernel = nn.Parameter(kernel.contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.up:
            return F.conv2d(x, self.kernel, padding=self.padding)
        y = F.conv_transpose2d(x, self.kernel, stride=2, padding=self.padding - 1)
        return F.avg_pool2d(y, 2, stride=1)


class Picture(nn.Module):
    """z [N, noise_dim], c [N, codes], label [N] (int64), psi [] -> images [N, C, R, R], about -1 to 1."""

    def __init__(self, G: Generator, truncation: str = "codes") -> None:
        super().__init__()
        self.G = copy.deepcopy(G).cpu().float().eval().requires_grad_(False)
        self.truncation, self.resolution = truncation, int(G.grown_resolution)
        self.fade = float(G.grown_fade)
        for module in list(self.G.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, EqualizedConv2d):
                    setattr(module, name, ReadyConv2d(child))
        # Levels that growth has not reached make no pixel.
        used = [r for r in self.G.synthesis.resolutions if r <= self.resolution]
        for levels in (self.G.synthesis.blocks, self.G.synthesis.to_rgb):
            for res in list(levels):
                if int(res) not in used:
                    del levels[res]

    def forward(self, z: Tensor, c: Tensor, label: Tensor, psi: Tensor) -> Tensor:
        return self.G(
            z, c, label if self.G.labels else None, psi, truncation=self.truncation,
            resolution=self.resolution, fade=self.fade, noise="const",
        )  # fmt: skip

    def examples(self, n: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        draw = torch.Generator().manual_seed(0)
        z, c = self.G.sample_latents(n, generator=draw)
        return z, c, torch.zeros(n, dtype=torch.long), torch.tensor(0.7)

    def dynamic(self) -> tuple[Any, ...]:
        batch = torch.export.Dim("batch", min=1, max=65536)
        return {0: batch}, {0: batch}, {0: batch}, None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the exporter's notes on what it does not need (torchvision) and its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def export_program(G: Generator, truncation: str = "codes") -> torch.export.ExportedProgram:
    """The generator as a program of torch.export, for any batch size."""
    picture = Picture(G, truncation)
    with quietly():
        return torch.export.export(
            picture, picture.examples(), dynamic_shapes=picture.dynamic(), strict=False
        )


def save_program(path: str | os.PathLike[str], content: Mapping[str, Any], truncation: str = "codes") -> None:
    """Write `content["G_ema"]` as a .pt2; its facts are in the extra file `infostylegan.json`."""
    program = export_program(content["G_ema"], truncation)
    about = json.dumps(describe(content))
    with atomic_write(path) as file:
        torch.export.save(program, file, extra_files={f"{KEY}.json": about})


def tidy(model: Any) -> None:
    """Name the free dimension, and take out what tells of this machine: traces of source files."""
    graph = model.graph
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = "batch"
        value.ClearField("metadata_props")
    graph.ClearField("value_info")
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    graph.name = KEY


def require_onnx() -> None:
    """Raise ExportError unless what writes ONNX is installed."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"ONNX needs {error.name}, which is not installed: pip install '.[export]'"
        ) from None


def save_onnx(path: str | os.PathLike[str], content: Mapping[str, Any], truncation: str = "codes") -> None:
    """Write `content["G_ema"]` as one .onnx file; its facts are in the metadata, under `infostylegan`.

    Raises ExportError where the extra `export` is not installed, or the file would pass ONNX's 2 GiB.
    """
    require_onnx()
    import onnx

    program = export_program(content["G_ema"], truncation)
    with quietly():
        made = torch.onnx.export(
            program, input_names=list(INPUTS), output_names=["image"], opset_version=OPSET, dynamo=True,
            verbose=False,
        )  # fmt: skip
    assert made is not None
    model = made.model_proto
    tidy(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(describe(content))
    model.producer_name = KEY
    if model.ByteSize() >= 2**31:
        raise ExportError(f"{Path(path)}: more than the 2 GiB that an ONNX file holds: use safetensors")
    onnx.checker.check_model(model)
    with atomic_write(path) as file:
        file.write(model.SerializeToString())
