"""Mapping network: (z', c, label) -> w."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from infostylegan.codes import CodeSpec
from infostylegan.networks.layers import EqualizedLinear, pixel_norm


class LatentInput(nn.Module):
    """Joins noise z', codes c and an optional label into one vector.

    `code_input="standard"`: z' alone is pixel-normalised and each code is standardised, so that moving z'
    leaves the code's input unchanged. `"plain"` is the paper's concatenation z = (z', c), one-hots and
    {0, 1} as they are, pixel-normalised as a whole, which couples each code to the length of z'.
    """

    def __init__(
        self, codes: CodeSpec, noise_dim: int, labels: int, label_dim: int, code_input: str, code_scale: float
    ) -> None:
        super().__init__()
        if code_input not in ("standard", "plain"):
            raise ValueError(f"code_input {code_input!r}: choose standard or plain")
        self.codes, self.code_input, self.code_scale = codes, code_input, code_scale
        self.label_embedding = nn.Parameter(torch.randn(labels, label_dim)) if labels else None
        self.out_features = noise_dim + codes.width + (label_dim if labels else 0)

    def forward(self, z: Tensor, c: Tensor, label: Tensor | None) -> Tensor:
        plain = self.code_input == "plain"
        parts = [z if plain else pixel_norm(z), self.codes.encode(c, plain=plain) * self.code_scale]
        if self.label_embedding is not None:
            if label is None:
                raise ValueError(
                    f"this generator was trained with {len(self.label_embedding)} labels: give label="
                )
            embedded = self.label_embedding[label]
            parts.append(embedded if plain else pixel_norm(embedded))
        x = torch.cat(parts, dim=1)
        return pixel_norm(x) if plain else x


class MappingNetwork(nn.Module):
    """`layers` dense layers with leaky ReLU from the joined latent to w [N, w_dim]; keeps the mean of w.

    StyleGAN uses 8 layers at lr multiplier 0.01.
    """

    w_avg: Tensor

    def __init__(self, in_features: int, w_dim: int, *, layers: int = 8, lr_multiplier: float = 0.01) -> None:
        super().__init__()
        widths = [in_features] + [w_dim] * layers
        self.layers = nn.ModuleList(
            EqualizedLinear(a, b, lr_multiplier=lr_multiplier, activate=True) for a, b in pairwise(widths)
        )
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    @torch.no_grad()
    def update_average(self, w: Tensor, decay: float = 0.995) -> None:
        """Move w_avg towards the batch's mean: the centre that truncation pulls to."""
        self.w_avg.lerp_(w.float().mean(dim=0), 1.0 - decay)
