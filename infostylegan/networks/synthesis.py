"""Synthesis: w -> image (styled, S = 1) or (z', c) -> image (direct, S = 0)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infostylegan.networks.layers import (
    Blur,
    ChannelPlan,
    EqualizedConv2d,
    EqualizedLinear,
    lrelu,
    nearest_upsample,
    pixel_norm,
    resolutions_up_to,
)

Noise = str | Tensor  # a mode, or the map itself


def adaptive_instance_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-8) -> Tensor:
    """Each channel of each image of x [N, C, H, W] brought to mean 0 and variance 1 (biased), then times
    scale [N, C] plus shift [N, C]."""
    n, c, h, w = x.shape
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or x.numel() == 0:
        # What follows writes the batch size into the graph of an exporter.
        return F.instance_norm(x, eps=eps) * scale.view(n, c, 1, 1) + shift.view(n, c, 1, 1)
    # As one image of N·C channels with a group each, norm and style are one operation with a gradient of its
    # own, and group_norm's statistics are several times faster on a CPU than those of instance_norm.
    merged = x.reshape(1, n * c, h, w)
    return F.group_norm(merged, n * c, scale.reshape(-1), shift.reshape(-1), eps).view(n, c, h, w)


class Epilogue(nn.Module):
    """noise -> bias -> leaky ReLU -> instance norm -> style (AdaIN), the tail of each styled layer."""

    const_noise: Tensor

    def __init__(self, channels: int, w_dim: int, resolution: int, layer: int) -> None:
        super().__init__()
        self.noise_strength = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.affine = EqualizedLinear(w_dim, 2 * channels, gain=1.0)
        fixed = torch.randn(1, 1, resolution, resolution, generator=torch.Generator().manual_seed(layer))
        self.register_buffer("const_noise", fixed, persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise: Noise) -> Tensor:
        if not isinstance(noise, str) or noise != "none":
            n = noise if isinstance(noise, Tensor) else self.draw_noise(x, noise)
            x = torch.addcmul(x, n, self.noise_strength.view(1, -1, 1, 1))
        x = lrelu(x, self.bias)
        scale, shift = self.affine(w).chunk(2, dim=1)
        return adaptive_instance_norm(x, scale + 1.0, shift)

    def draw_noise(self, x: Tensor, mode: str) -> Tensor:
        if mode == "const":
            return self.const_noise
        return torch.randn((x.shape[0], 1, *x.shape[2:]), device=x.device, dtype=x.dtype)


class StyledBlock(nn.Module):
    """One resolution: (constant or up-convolution) -> epilogue -> convolution -> epilogue."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int, layer: int) -> None:
        super().__init__()
        first = resolution == 4
        self.constant = nn.Parameter(torch.ones(1, out_channels, 4, 4)) if first else None
        self.conv0 = None if first else EqualizedConv2d(in_channels, out_channels, resample="up")
        self.blur = None if first else Blur()
        self.epilogue0 = Epilogue(out_channels, w_dim, resolution, layer)
        self.conv1 = EqualizedConv2d(out_channels, out_channels)
        self.epilogue1 = Epilogue(out_channels, w_dim, resolution, layer + 1)

    def forward(self, x: Tensor | None, w: tuple[Tensor, Tensor], noise: tuple[Noise, Noise]) -> Tensor:
        if self.constant is not None:
            x = self.constant.expand(w[0].shape[0], -1, -1, -1)
        else:
            assert self.conv0 is not None
            assert self.blur is not None
            x = self.blur(self.conv0(x))
        x = self.epilogue0(x, w[0], noise[0])
        return self.epilogue1(self.conv1(x), w[1], noise[1])


class DirectBlock(nn.Module):
    """One resolution of the ProGAN generator: (dense or up-convolution), convolution, pixel norms."""

    def __init__(self, in_channels: int, out_channels: int, resolution: int) -> None:
        super().__init__()
        first = resolution == 4
        # The smaller gain of ProGAN's first layer: its 16 outputs a channel share one fan-in.
        self.dense = (
            EqualizedLinear(in_channels, out_channels * 16, gain=2**0.5 / 4, bias=False) if first else None
        )
        self.conv0 = None if first else EqualizedConv2d(in_channels, out_channels, resample="up")
        self.bias0 = nn.Parameter(torch.zeros(out_channels))
        self.conv1 = EqualizedConv2d(out_channels, out_channels)
        self.bias1 = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.dense is not None:
            x = self.dense(x).view(x.shape[0], -1, 4, 4)
        else:
            assert self.conv0 is not None
            x = self.conv0(x)
        x = pixel_norm(lrelu(x, self.bias0))
        return pixel_norm(lrelu(self.conv1(x), self.bias1))


class ToRGB(nn.Module):
    """1×1 convolution to image channels, linear."""

    def __init__(self, in_channels: int, image_channels: int) -> None:
        super().__init__()
        self.conv = EqualizedConv2d(in_channels, image_channels, 1, gain=1.0)
        self.bias = nn.Parameter(torch.zeros(image_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.bias.view(1, -1, 1, 1)


class SynthesisNetwork(nn.Module):
    """The pyramid of blocks, 4² … resolution², with one toRGB each and the fade between two.

    Styled: latent is ws [N, layers, w_dim], one w for each of the 2 log2(resolution) - 2 layers.
    Direct (`styled=False`): latent is the joined vector [N, w_dim], read once, at the start.
    """

    def __init__(
        self, resolution: int, w_dim: int, channels: int, plan: ChannelPlan, *, styled: bool = True
    ) -> None:
        super().__init__()
        self.resolutions = resolutions_up_to(resolution)
        self.styled = styled
        self.num_layers = 2 * len(self.resolutions)
        blocks: dict[str, nn.Module] = {}
        for i, res in enumerate(self.resolutions):
            if styled:
                blocks[str(res)] = StyledBlock(plan(res // 2) if i else 0, plan(res), w_dim, res, 2 * i)
            else:
                blocks[str(res)] = DirectBlock(plan(res // 2) if i else w_dim, plan(res), res)
        self.blocks = nn.ModuleDict(blocks)
        self.to_rgb = nn.ModuleDict({str(res): ToRGB(plan(res), channels) for res in self.resolutions})

    def forward(
        self,
        latent: Tensor,
        *,
        resolution: int,
        fade: float = 1.0,
        noise: str | Sequence[Tensor] = "random",
    ) -> Tensor:
        """Image [N, channels, resolution, resolution]; fade is the share of the newest block.

        `noise` is a mode, or one map [1 or N, 1, size, size] for each styled layer up to `resolution`.
        """
        x: Tensor | None = None if self.styled else latent
        previous: Tensor | None = None
        for i, res in enumerate(r for r in self.resolutions if r <= resolution):
            previous = x
            block = self.blocks[str(res)]
            if self.styled:
                pair = (noise, noise) if isinstance(noise, str) else (noise[2 * i], noise[2 * i + 1])
                x = block(x, (latent[:, 2 * i], latent[:, 2 * i + 1]), pair)
            else:
                x = block(x)
        image = self.to_rgb[str(resolution)](x)
        if fade < 1.0 and resolution > 4:
            coarse = nearest_upsample(self.to_rgb[str(resolution // 2)](previous))
            image = coarse.lerp(image, fade)
        return image
