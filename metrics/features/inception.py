"""Inception-v3 as FID uses it: the network of 2015-12-05, from the state dict that PyTorch programs share.

The weights are those of TensorFlow's inception-2015-12-05.tgz. They give that graph's features only where its
pooling is kept: averages over what lies within the image (A, C and the first E block), and a maximum before
the last block's pooled branch. The input is (x - 128) / 128 of pixels resized to 299² without rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnnlib.files import DamagedFile

NAME = "inception-v3-2015-12-05"
FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
SHA256_PREFIX = "6726825d"
SIZE = 299
DIMENSIONS = 2048
CLASSES = 1008
EPSILON = 1e-3  # of the batch norms


@dataclass(frozen=True)
class Layer:
    """A convolution without bias, batch norm and ReLU."""

    name: str
    inputs: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Branch:
    """Layers one after the other, perhaps after a 3×3 pooling ("avg", "max", or "down": maximum, stride 2);
    where `ends` is given, its layers all read the last of `layers`, and are joined."""

    layers: tuple[Layer, ...] = ()
    pool: str = ""
    ends: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class Block:
    name: str
    branches: tuple[Branch, ...]


def _chain(prefix: str, inputs: int, *steps: tuple[int, tuple[int, int], int]) -> tuple[Layer, ...]:
    """Layers prefix1, prefix2, … of (outputs, kernel, stride); a stride of 1 keeps the size."""
    layers = []
    for number, (outputs, kernel, stride) in enumerate(steps, start=1):
        padding = (kernel[0] // 2, kernel[1] // 2) if stride == 1 else (0, 0)
        layers.append(Layer(f"{prefix}{number}", inputs, outputs, kernel, stride, padding))
        inputs = outputs
    return tuple(layers)


ONE, THREE, FIVE, WIDE, HIGH = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)


def _block_a(name: str, inputs: int, pooled: int) -> Block:
    return Block(
        name,
        (
            Branch((Layer("branch1x1", inputs, 64),)),
            Branch(_chain("branch5x5_", inputs, (48, ONE, 1), (64, FIVE, 1))),
            Branch(_chain("branch3x3dbl_", inputs, (64, ONE, 1), (96, THREE, 1), (96, THREE, 1))),
            Branch((Layer("branch_pool", inputs, pooled),), "avg"),
        ),
    )


def _block_b(name: str, inputs: int) -> Block:
    return Block(
        name,
        (
            Branch((Layer("branch3x3", inputs, 384, THREE, 2),)),
            Branch(_chain("branch3x3dbl_", inputs, (64, ONE, 1), (96, THREE, 1), (96, THREE, 2))),
            Branch(pool="down"),
        ),
    )


def _block_c(name: str, inputs: int, c: int) -> Block:
    long = ((c, ONE, 1), (c, HIGH, 1), (c, WIDE, 1), (c, HIGH, 1), (192, WIDE, 1))
    return Block(
        name,
        (
            Branch((Layer("branch1x1", inputs, 192),)),
            Branch(_chain("branch7x7_", inputs, (c, ONE, 1), (c, WIDE, 1), (192, HIGH, 1))),
            Branch(_chain("branch7x7dbl_", inputs, *long)),
            Branch((Layer("branch_pool", inputs, 192),), "avg"),
        ),
    )


def _block_d(name: str, inputs: int) -> Block:
    long = ((192, ONE, 1), (192, WIDE, 1), (192, HIGH, 1), (192, THREE, 2))
    return Block(
        name,
        (
            Branch(_chain("branch3x3_", inputs, (192, ONE, 1), (320, THREE, 2))),
            Branch(_chain("branch7x7x3_", inputs, *long)),
            Branch(pool="down"),
        ),
    )


def _block_e(name: str, inputs: int, pool: str) -> Block:
    def ends(prefix: str) -> tuple[Layer, ...]:
        a = Layer(f"{prefix}a", 384, 384, (1, 3), 1, (0, 1))
        return a, Layer(f"{prefix}b", 384, 384, (3, 1), 1, (1, 0))

    double = _chain("branch3x3dbl_", inputs, (448, ONE, 1), (384, THREE, 1))
    return Block(
        name,
        (
            Branch((Layer("branch1x1", inputs, 320),)),
            Branch(_chain("branch3x3_", inputs, (384, ONE, 1)), ends=ends("branch3x3_2")),
            Branch(double, ends=ends("branch3x3dbl_3")),
            Branch((Layer("branch_pool", inputs, 192),), pool),
        ),
    )


# "pool" is a 3×3 maximum of stride 2.
STEM: tuple[Layer | str, ...] = (
    Layer("Conv2d_1a_3x3", 3, 32, THREE, 2),
    Layer("Conv2d_2a_3x3", 32, 32, THREE),
    Layer("Conv2d_2b_3x3", 32, 64, THREE, 1, (1, 1)),
    "pool",
    Layer("Conv2d_3b_1x1", 64, 80),
    Layer("Conv2d_4a_3x3", 80, 192, THREE),
    "pool",
)
BLOCKS = (
    _block_a("Mixed_5b", 192, 32),
    _block_a("Mixed_5c", 256, 64),
    _block_a("Mixed_5d", 288, 64),
    _block_b("Mixed_6a", 288),
    _block_c("Mixed_6b", 768, 128),
    _block_c("Mixed_6c", 768, 160),
    _block_c("Mixed_6d", 768, 160),
    _block_c("Mixed_6e", 768, 192),
    _block_d("Mixed_7a", 768),
    _block_e("Mixed_7b", 1280, "avg"),
    _block_e("Mixed_7c", 2048, "max"),
)


def layers() -> Iterator[tuple[str, Layer]]:
    """Every convolution under its full name, as in `Mixed_5b.branch1x1`."""
    for layer in STEM:
        if isinstance(layer, Layer):
            yield layer.name, layer
    for block in BLOCKS:
        for branch in block.branches:
            for layer in (*branch.layers, *branch.ends):
                yield f"{block.name}.{layer.name}", layer


def parameter_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in layers():
        shapes[f"{name}.conv.weight"] = (layer.outputs, layer.inputs, *layer.kernel)
        for norm in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{norm}"] = (layer.outputs,)
    return {**shapes, "fc.weight": (CLASSES, DIMENSIONS), "fc.bias": (CLASSES,)}


def check_state(state: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict that is this network's. Raises DamagedFile for any other."""
    if not isinstance(state, Mapping):
        raise DamagedFile(path, f"it holds a {type(state).__name__}, not the weights of {NAME}")
    expected = parameter_shapes()
    kept = {k: v for k, v in state.items() if isinstance(v, Tensor) and not k.endswith("num_batches_tracked")}
    for name, shape in expected.items():
        if name not in kept:
            raise DamagedFile(path, f"it lacks {name}; it holds no {NAME}")
        if tuple(kept[name].shape) != shape:
            raise DamagedFile(path, f"{name} is {list(kept[name].shape)}, not {list(shape)}")
        if not torch.isfinite(kept[name]).all():
            raise DamagedFile(path, f"{name} holds NaN or infinities")
    if extra := sorted(set(kept) - set(expected)):
        raise DamagedFile(path, f"it holds {extra[0]}, which {NAME} has not")
    return kept


class PlainInception(nn.Module):
    """The network as it is written down: convolution, batch norm and ReLU one by one, channels first.

    What `FoldedInception` is checked and timed against.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.state = {name: tensor.float() for name, tensor in state.items()}

    def _layer(self, name: str, layer: Layer, x: Tensor) -> Tensor:
        p = self.state
        x = F.conv2d(x, p[f"{name}.conv.weight"], None, layer.stride, layer.padding)
        mean, variance, scale, bias = (
            p[f"{name}.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, variance, scale, bias, training=False, eps=EPSILON))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, 3, 299, 299] in about [-1, 1] -> features [N, 2048]."""
        for step in STEM:
            x = F.max_pool2d(x, 3, 2) if isinstance(step, str) else self._layer(step.name, step, x)
        for block in BLOCKS:
            x = torch.cat([part for branch in block.branches for part in self._branch(block, branch, x)], 1)
        return x.mean(dim=(2, 3))

    def _branch(self, block: Block, branch: Branch, x: Tensor) -> list[Tensor]:
        x = pool(branch.pool, x)
        for layer in branch.layers:
            x = self._layer(f"{block.name}.{layer.name}", layer, x)
        return [self._layer(f"{block.name}.{end.name}", end, x) for end in branch.ends] or [x]


def pool(kind: str, x: Tensor) -> Tensor:
    if kind == "avg":
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    if kind == "max":
        return F.max_pool2d(x, 3, 1, 1)
    return F.max_pool2d(x, 3, 2) if kind == "down" else x


class FoldedInception(nn.Module):
    """The same function, faster: batch norms folded into their convolutions, channels last, and the 1×1
    convolutions that read a block's input joined into one.

    An average over what lies within the image keeps constants and commutes with a 1×1 convolution, so that
    the pooled branch convolves first and averages fewer channels.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.weights: dict[str, tuple[Tensor, Tensor]] = {}
        for name, _ in layers():
            # In float64, so that folding adds no rounding of its own.
            scale, bias, mean, variance = (
                state[f"{name}.bn.{k}"].double() for k in ("weight", "bias", "running_mean", "running_var")
            )
            factor = scale / (variance + EPSILON).sqrt()
            weight = state[f"{name}.conv.weight"].double() * factor.view(-1, 1, 1, 1)
            self.weights[name] = weight, bias - mean * factor
        for block in BLOCKS:
            names = [f"{block.name}.{b.layers[0].name}" for b in joined(block)]
            both = zip(*(self.weights.pop(name) for name in names))
            self.weights[block.name] = tuple(torch.cat(part) for part in both)  # type: ignore[assignment]
        self.weights = {name: (last(w.float()), b.float()) for name, (w, b) in self.weights.items()}

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        self.weights = {name: (fn(w), fn(b)) for name, (w, b) in self.weights.items()}
        return super()._apply(fn, recurse)

    def _layer(self, name: str, layer: Layer, x: Tensor) -> Tensor:
        weight, bias = self.weights[name]
        return F.conv2d(x, weight, bias, layer.stride, layer.padding).relu_()

    def forward(self, x: Tensor) -> Tensor:
        """x [N, 3, 299, 299] in about [-1, 1] -> features [N, 2048]."""
        x = last(x)
        for step in STEM:
            x = F.max_pool2d(x, 3, 2) if isinstance(step, str) else self._layer(step.name, step, x)
        for block in BLOCKS:
            x = self._block(block, x)
        return x.mean(dim=(2, 3))

    def _block(self, block: Block, x: Tensor) -> Tensor:
        together = joined(block)
        widths = [branch.layers[0].outputs for branch in together]
        started = dict(zip(together, F.conv2d(x, *self.weights[block.name]).split(widths, dim=1)))
        parts: list[Tensor] = []
        for branch in block.branches:
            if branch in started:
                y, rest = F.relu(pool(branch.pool, started[branch])), branch.layers[1:]
            else:
                y, rest = pool(branch.pool, x), branch.layers
            for layer in rest:
                y = self._layer(f"{block.name}.{layer.name}", layer, y)
            parts += [self._layer(f"{block.name}.{end.name}", end, y) for end in branch.ends] or [y]
        return torch.cat(parts, dim=1)


def joined(block: Block) -> list[Branch]:
    """The branches that begin with a 1×1 convolution of the block's input, or of its average."""
    return [b for b in block.branches if b.layers and b.layers[0].kernel == ONE and b.pool in ("", "avg")]


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
