"""The discriminator: a trunk, the score head D(x) and the head Q that reads the codes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from infostylegan.codes import CodeSpec, Posterior
from infostylegan.networks.layers import (
    Blur,
    ChannelPlan,
    EqualizedConv2d,
    EqualizedLinear,
    box_downsample,
    has_memory,
    lrelu,
    resolutions_up_to,
    set_conv_dtype,
)


@dataclass(frozen=True)
class Judgement:
    """What the discriminator says of a batch: score [N] (a logit, label-selected if conditional) and
    posterior, Q(c | image), one distribution a code."""

    score: Tensor
    posterior: list[Posterior]


def pixels_first(x: Tensor) -> Tensor:
    """x [N, C, H, W] laid out in memory as [N, H, W, C] on a CPU.

    The trunk keeps to the layout of its input, and convolutions on a CPU work in this one: they need not
    rearrange their operands, which is a fifth of the time of a small bfloat16 network.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def will_be_penalised(image: Tensor) -> bool:
    """Whether the score may be differentiated twice with respect to the image, as R1 does.

    False for a generator's image, which is no leaf, and within transforms, compilers and autocast, which take
    the plain way to the same result.
    """
    wanted = image.requires_grad and image.is_leaf and torch.is_grad_enabled() and has_memory(image)
    if not wanted or torch.compiler.is_compiling():
        return False
    kind = image.device.type
    return kind == "meta" or not torch.is_autocast_enabled(kind)  # a plan's device, which has no autocast


class FromRGB(nn.Module):
    """1×1 convolution from image channels, leaky ReLU."""

    def __init__(self, image_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = EqualizedConv2d(image_channels, out_channels, 1)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, image: Tensor) -> Tensor:
        return pixels_first(lrelu(self.conv(pixels_first(image)), self.bias))


class DownBlock(nn.Module):
    """convolution (in -> in) -> blur -> convolution and 2×2 average (in -> out)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = EqualizedConv2d(in_channels, in_channels)
        self.bias0 = nn.Parameter(torch.zeros(in_channels))
        self.blur = Blur()
        self.conv1 = EqualizedConv2d(in_channels, out_channels, resample="down")
        self.bias1 = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, penalised: bool = False) -> Tensor:
        x = lrelu(self.conv0(x, penalised), self.bias0)
        return lrelu(self.conv1(self.blur(x), penalised), self.bias1)


class Trunk(nn.Module):
    """Image [N, channels, R, R] -> features [N, nf, 4, 4], growing from any R up to `resolution`."""

    def __init__(self, resolution: int, channels: int, plan: ChannelPlan) -> None:
        super().__init__()
        self.resolutions, self.channels = resolutions_up_to(resolution), channels
        self.from_rgb = nn.ModuleDict({str(res): FromRGB(channels, plan(res)) for res in self.resolutions})
        self.blocks = nn.ModuleDict(
            {str(res): DownBlock(plan(res), plan(res // 2)) for res in self.resolutions[1:]}
        )

    def forward(self, image: Tensor, fade: float = 1.0, keep: list[Tensor] | None = None) -> Tensor:
        """`keep`, if given, receives the features after each layer, finest first."""
        resolution = image.shape[-1]
        shape = list(image.shape)
        if resolution not in self.resolutions or shape[1:] != [self.channels, resolution, resolution]:
            raise ValueError(
                f"image is {shape}: this discriminator reads {self.channels} channels of "
                f"sizes {self.resolutions}"
            )
        penalised = self.training and will_be_penalised(image)
        x = self.from_rgb[str(resolution)](image)
        if keep is not None:
            keep.append(x)
        for res in sorted((r for r in self.resolutions[1:] if r <= resolution), reverse=True):
            x = self.blocks[str(res)](x, penalised)
            if res == resolution and fade < 1.0:
                coarse = self.from_rgb[str(resolution // 2)](box_downsample(image))
                x = coarse.lerp(x, fade)
            if keep is not None:
                keep.append(x)
        return x


class ScoreHead(nn.Module):
    """Minibatch-stddev -> convolution -> dense -> one logit (or one a label)."""

    def __init__(self, channels: int, labels: int, group: int = 4) -> None:
        super().__init__()
        self.labels, self.group = labels, group
        self.conv = EqualizedConv2d(channels + 1, channels)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.dense = EqualizedLinear(channels * 16, channels, activate=True)
        self.out = EqualizedLinear(channels, max(labels, 1), gain=1.0)

    def forward(self, features: Tensor, label: Tensor | None) -> Tensor:
        x = minibatch_stddev(features, self.group)
        x = lrelu(self.conv(x), self.bias)
        logits = self.out(self.dense(x.flatten(1)))
        if not self.labels:
            return logits[:, 0]
        if label is None:
            raise ValueError(f"this discriminator was built for {self.labels} labels: give label=")
        return logits.gather(1, label.view(-1, 1))[:, 0]


class QHead(nn.Module):
    """Features -> parameters of Q(c | image). Reads the trunk before minibatch-stddev, and holds no layer
    that mixes samples: Q(x) does not depend on x's batch-mates."""

    def __init__(self, channels: int, posterior_width: int) -> None:
        super().__init__()
        self.dense = EqualizedLinear(channels * 16, channels, activate=True)
        self.out = EqualizedLinear(channels, posterior_width, gain=1.0)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(self.dense(features.flatten(1)))


def minibatch_stddev(x: Tensor, group: int = 4) -> Tensor:
    """Append one channel: the spread over each group of samples, averaged over channels and pixels.

    Sample i belongs to group i mod (N / G), G = min(group, N) or the largest divisor of N below it.
    """
    n, channels, height, width = x.shape
    size = max(g for g in range(1, min(group, n) + 1) if n % g == 0)
    y = x.view(size, n // size, channels, height, width)
    spread = (y - y.mean(dim=0)).square().mean(dim=0).add(1e-8).sqrt()
    feature = spread.mean(dim=(1, 2, 3), keepdim=True).repeat(size, 1, height, width)
    return torch.cat([x, feature.to(x.dtype)], dim=1)


class Discriminator(nn.Module):
    """D(image, label) -> Judgement: the score and the posterior of the codes, from one trunk.

    Label conditioning selects one of `labels` logits (paper, section 4.2; StyleGAN 2019).
    """

    def __init__(
        self,
        resolution: int,
        codes: CodeSpec | str,
        *,
        labels: int = 0,
        channels: int = 3,
        fmap_base: int = 8192,
        fmap_max: int = 512,
    ) -> None:
        super().__init__()
        spec = CodeSpec.parse(codes) if isinstance(codes, str) else codes
        self.config: dict[str, Any] = {
            "resolution": resolution,
            "codes": spec.to_config(),
            "labels": labels,
            "channels": channels,
            "fmap_base": fmap_base,
            "fmap_max": fmap_max,
        }
        self.resolution, self.codes, self.labels, self.channels = resolution, spec, labels, channels
        plan = ChannelPlan(fmap_base, fmap_max)
        self.trunk = Trunk(resolution, channels, plan)
        self.score_head = ScoreHead(plan(4), labels)
        self.q_head = QHead(plan(4), spec.posterior_width) if len(spec) else None

    @staticmethod
    def from_config(config: dict[str, Any]) -> Discriminator:
        return Discriminator(**{**config, "codes": CodeSpec.from_config(config["codes"])})

    def forward(
        self, image: Tensor, label: Tensor | None = None, *, fade: float = 1.0, trunk_share: float = 1.0
    ) -> Judgement:
        """Judge images [N, channels, R, R] in [-1, 1]; R may be any size of the pyramid.

        Of the posterior's gradient the trunk, and so the image, is given the share `trunk_share`.
        """
        features = self.trunk(image, fade)
        return Judgement(self.score_head(features, label), self._read(features, trunk_share))

    def posterior(self, image: Tensor, *, fade: float = 1.0, trunk_share: float = 1.0) -> list[Posterior]:
        """Q(c | image) alone, without the score."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and trunk_share > 0.0):
            features = self.trunk(image, fade)
        return self._read(features, trunk_share)

    def _read(self, features: Tensor, trunk_share: float) -> list[Posterior]:
        if self.q_head is None:
            return []
        if trunk_share < 1.0:  # the same numbers, less of their gradient
            features = features.detach().lerp(features, trunk_share) if trunk_share else features.detach()
        return self.codes.posterior(self.q_head(features))

    def set_precision(self, precision: str) -> None:
        """`fp32`, or `bf16`: convolutions in bfloat16, everything else in float32."""
        set_conv_dtype(self, torch.bfloat16 if precision == "bf16" else None)
