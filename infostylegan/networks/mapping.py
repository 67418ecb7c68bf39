"""Mapping network: (z', c, label) -> w."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from infostylegan.codes import CodeSpec
from infostylegan.networks.layers import EqualizedLinear, pixel_norm

BANK = 256


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
        self.codes.check(c)
        parts = [z if plain else pixel_norm(z)]
        if len(self.codes):
            parts.append(self.codes.encode(c, plain=plain) * self.code_scale)
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


def noise_bank(noise_dim: int) -> Tensor:
    """The z' over which the mean of w given the codes is taken: [BANK, noise_dim], the same everywhere.

    They come in pairs of opposite signs, which cancel in the mean whatever w owes to z' linearly.
    """
    half = torch.randn(BANK // 2, noise_dim, generator=torch.Generator().manual_seed(0))
    return torch.cat([half, -half])


class RowCache:
    """Results [N, …] of a function of rows, kept a row each until a weight that they come from changes."""

    def __init__(self, limit: int = 512) -> None:
        self.limit = limit
        self.rows: OrderedDict[tuple[float, ...], Tensor] = OrderedDict()
        self.weights: list[tuple[Tensor, int]] = []

    def __call__(
        self, rows: Tensor, weights: Iterable[nn.Parameter], function: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """`function` of rows [N, k]: asked for those indices alone whose rows it has not seen."""
        # The tensors are held, so that no other can come to stand at their place in memory.
        now = [(w.detach(), w._version) for w in weights]
        same = len(now) == len(self.weights) and all(
            a.data_ptr() == b.data_ptr() and a.dtype == b.dtype and v == u
            for (a, v), (b, u) in zip(now, self.weights)
        )
        if not same:
            self.rows.clear()
            self.weights = now
        keys = [tuple(row) for row in rows.tolist()]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        missing = [i for key, i in first.items() if key not in self.rows]
        if missing:
            with torch.inference_mode(False), torch.no_grad():
                made = function(torch.tensor(missing, device=rows.device))
            self.rows.update((keys[i], row) for i, row in zip(missing, made))
        result = torch.stack([self.rows[key] for key in keys])
        for key in first:
            self.rows.move_to_end(key)
        while len(self.rows) > self.limit:
            self.rows.popitem(last=False)
        return result

    def __getstate__(self) -> dict[str, Any]:
        return RowCache(self.limit).__dict__
