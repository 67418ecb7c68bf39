"""Layers shared by the generator and the discriminator.

All weights use the equalised learning rate of Karras et al. 2018: they are drawn from N(0, 1) and scaled by
gain / sqrt(fan_in) at run time. Filtering and bias-activation go through `cuda_ops`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ops import bias_act, filter2d, setup_filter, upfirdn2d
from infostylegan.networks.convolution import conv2d

if TYPE_CHECKING:
    from typing_extensions import Self

GAIN = math.sqrt(2.0)
SLOPE = 0.2


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Scale each sample's (or pixel's) feature vector along dim 1 to unit mean square."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


def lrelu(x: Tensor, bias: Tensor | None) -> Tensor:
    """Leaky ReLU of slope 0.2 after adding a bias along dim 1, without the variance-preserving gain.

    The gain sqrt(2) of these networks sits in the weights, as in the 2019 release.
    """
    return bias_act(x, bias, act="lrelu", alpha=SLOPE, gain=1.0)


def box_downsample(x: Tensor, factor: int = 2) -> Tensor:
    """Mean over factor × factor blocks."""
    return F.avg_pool2d(x, factor) if factor > 1 else x


def nearest_upsample(x: Tensor, factor: int = 2) -> Tensor:
    """Repeat each pixel factor × factor times."""
    return F.interpolate(x, scale_factor=factor, mode="nearest") if factor > 1 else x


class EqualizedLinear(nn.Module):
    """Dense layer [N, in] -> [N, out] with equalised learning rate.

    With lr_multiplier m the weights are stored 1/m larger and scaled by m when used, so that an optimiser
    with normalised steps (Adam) moves them m times slower.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        gain: float = GAIN,
        lr_multiplier: float = 1.0,
        activate: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.weight_scale = gain / math.sqrt(in_features) * lr_multiplier
        self.bias_scale = lr_multiplier
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        bias: Tensor | None = self.bias
        if bias is not None and self.bias_scale != 1.0:
            bias = bias * self.bias_scale
        # The input is scaled in place of the weights: it is the smaller of the two by far, and the weights
        # would be written anew at every call.
        x = x * self.weight_scale
        if self.activate:
            return lrelu(F.linear(x, self.weight), bias)
        return F.linear(x, self.weight, bias)


@dataclass(frozen=True)
class KeptKernel:
    """A kernel made ready from a weight, and what tells whether the weight is still the same."""

    kernel: Tensor
    weight: Tensor  # shares the memory of the weight, so that no other tensor can come to stand there
    version: int

    def is_of(self, weight: Tensor, dtype: torch.dtype) -> bool:
        same = self.weight.data_ptr() == weight.data_ptr() and self.weight.dtype == weight.dtype
        return same and self.version == weight._version and self.kernel.dtype == dtype


class EqualizedConv2d(nn.Module):
    """Convolution without bias, with equalised learning rate: [N, in, H, W] -> [N, out, H', W'].

    `resample="up"` is nearest-neighbour doubling followed by the convolution and `"down"` is the convolution
    followed by 2×2 averaging. The pixels of the one and the averages of the other are 2×2 boxes, which are
    filtered with apart, after the convolution or before it. What is convolved, at a stride of 2, is then the
    kernel alone: the same numbers, but for rounding, for a quarter of the work.

    `dtype` is the type in which the product is computed (torch.bfloat16 or None for that of the input);
    weights and results keep theirs. Raises ValueError for a `kernel` that is even, or 1 with `resample`.

    In eval mode with a frozen weight (`requires_grad` False, as `load_generator` gives it) the kernel is made
    ready once and kept until the weight changes. Optimisers, assignments and in-place operations are noticed;
    an in-place change through `weight.data` is not, as torch hides it: call `train()` or `eval()` after one.
    """

    box: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, *, gain: float = GAIN, resample: str = ""
    ) -> None:
        super().__init__()
        if kernel % 2 == 0 or (resample and kernel < 3):
            raise ValueError(f"EqualizedConv2d: a kernel of {kernel} with resample={resample!r}")
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.weight_scale = gain / math.sqrt(in_channels * kernel * kernel)
        self.resample = resample
        self.padding = kernel // 2
        self.dtype: torch.dtype | None = None
        self._kept: KeptKernel | None = None
        if resample:
            self.register_buffer("box", setup_filter([1.0, 1.0]), persistent=False)

    def forward(self, x: Tensor, penalised: bool = False) -> Tensor:
        """`penalised` takes a way to the same result on which second derivatives are cheap."""
        out_type, dtype = x.dtype, self.dtype or x.dtype
        kernel = self.kernel(dtype)
        if self.resample == "up":
            y = F.conv_transpose2d(x.to(dtype), kernel, stride=2, padding=self.padding - 1)
            return upfirdn2d(channels_first(y).to(out_type), self.box.float(), gain=4.0)
        stride, padding = 1, self.padding
        if self.resample == "down":
            x, stride, padding = upfirdn2d(x, self.box.float(), padding=1), 2, self.padding - 1
        convolve = conv2d if penalised else F.conv2d
        return convolve(x.to(dtype), kernel, stride=stride, padding=padding).to(out_type)

    def kernel(self, dtype: torch.dtype) -> Tensor:
        """The kernel that is convolved with: [out, in, k, k], or [in, out, k, k] for "up"."""
        weight = self.weight
        # What tracers put in the place of a parameter must not outlive them.
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(weight) is not nn.Parameter:
            return self.make_kernel(dtype)
        if self.training or weight.requires_grad or weight.is_inference():
            self._kept = None
            return self.make_kernel(dtype)
        kept = self._kept
        if kept is None or not kept.is_of(weight, dtype):
            # A tensor made in inference mode could not take part in a later call outside of it.
            with torch.inference_mode(False), torch.no_grad():
                kept = KeptKernel(self.laid_out(self.make_kernel(dtype)), weight.detach(), weight._version)
            if not has_memory(kept.kernel):
                return kept.kernel
            self._kept = kept
        return kept.kernel

    def laid_out(self, kernel: Tensor) -> Tensor:
        """The kernel in the layout that its convolution is fastest with."""
        # oneDNN's transposed convolution works with channels last. Given another layout, torch rearranges
        # kernel and result element by element, which takes as long as half of the convolution.
        last = self.resample == "up" and kernel.device.type == "cpu"
        return kernel.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def make_kernel(self, dtype: torch.dtype) -> Tensor:
        """The kernel, made anew from the weight; differentiable."""
        kernel = (self.weight * self.weight_scale).to(dtype)
        if self.resample != "up":
            return kernel
        # A transposed convolution runs through its kernel backwards. Flat, because turning small axes round
        # takes torch six times as long.
        return kernel.flatten(2).flip(2).view_as(kernel).transpose(0, 1)

    def train(self, mode: bool = True) -> Self:
        self._kept = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._kept = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


def channels_first(y: Tensor) -> Tensor:
    """y [N, C, H, W] contiguous, where it lies with channels last and no gradient is wanted.

    As a transposition of one matrix an image it is done in blocks, several times faster than `contiguous`.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not has_memory(y):
        return y
    last = y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    if not last or y.requires_grad or y.device.type != "cpu":
        return y
    out = torch.empty(y.shape, dtype=y.dtype)
    for image, result in zip(y, out):
        result.flatten(1).copy_(image.flatten(1))
    return out


def has_memory(x: Tensor) -> bool:
    """False for a tensor that stands for another within a transform of torch.func."""
    try:
        x.data_ptr()
    except RuntimeError:
        return False
    return True


class Blur(nn.Module):
    """[1, 2, 1] ⊗ [1, 2, 1] / 16 with zero padding; keeps the size."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", setup_filter([1.0, 2.0, 1.0]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return filter2d(x, self.filter.float())


def set_conv_dtype(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Choose the type in which every convolution below `module` is computed (None: as its input)."""
    for layer in module.modules():
        if isinstance(layer, EqualizedConv2d):
            layer.dtype = dtype


class ChannelPlan:
    """Feature maps of a block: nf(s) = min(fmap_base / 2^s, fmap_max); a block at 2^r has nf(r - 1).

    The defaults (8192, 512) are StyleGAN's; smaller values scale the networks down.
    """

    def __init__(self, fmap_base: int = 8192, fmap_max: int = 512) -> None:
        self.fmap_base, self.fmap_max = fmap_base, fmap_max

    def __call__(self, resolution: int) -> int:
        stage = int(math.log2(resolution)) - 1
        return max(1, min(self.fmap_base // 2**stage, self.fmap_max))


def resolutions_up_to(resolution: int) -> list[int]:
    """[4, 8, …, resolution]; raises ValueError unless it is a power of two from 8 to 1024."""
    if resolution not in (8, 16, 32, 64, 128, 256, 512, 1024):
        raise ValueError(f"resolution {resolution}: must be a power of two from 8 to 1024")
    return [2**r for r in range(2, int(math.log2(resolution)) + 1)]
