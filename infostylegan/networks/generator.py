"""The generator G(z', c) -> image, styled (InfoStyleGAN, StyleGAN) or direct (InfoGAN)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from infostylegan.codes import CodeError, CodeSpec
from infostylegan.networks.layers import ChannelPlan, has_memory, set_conv_dtype
from infostylegan.networks.mapping import LatentInput, MappingNetwork, RowCache, noise_bank
from infostylegan.networks.synthesis import SynthesisNetwork

NOISE_MODES = ("random", "const", "none")
TRUNCATIONS = ("codes", "global")


class Generator(nn.Module):
    """Images from noise z' [N, noise_dim], codes c [N, len(codes)] and optional labels [N].

    `styles=True` is the paper's S = 1 (mapping network and AdaIN at every layer); `False` is S = 0: the
    joined vector enters a ProGAN pyramid once. `noise_dim` defaults to latent_dim - codes.width, so that
    (z', c) has `latent_dim` numbers in all (512 in the paper). `codes` may be a CodeSpec or its text.

    Raises ValueError for impossible sizes and CodeError for codes wider than the latent.
    """

    grown_resolution: Tensor
    grown_fade: Tensor
    noise_bank: Tensor

    def __init__(
        self,
        resolution: int,
        codes: CodeSpec | str,
        *,
        noise_dim: int | None = None,
        styles: bool = True,
        labels: int = 0,
        channels: int = 3,
        latent_dim: int = 512,
        fmap_base: int = 8192,
        fmap_max: int = 512,
        mapping_layers: int = 8,
        mapping_lr: float = 0.01,
        code_input: str = "standard",
        code_scale: float = 1.0,
        truncation_layers: int = 8,
    ) -> None:
        super().__init__()
        spec = CodeSpec.parse(codes) if isinstance(codes, str) else codes
        if noise_dim is None:
            noise_dim = latent_dim - spec.width
        if noise_dim < 1:
            raise CodeError(
                f"codes {spec} are {spec.width} wide and leave no room for noise in a latent of "
                f"{latent_dim}: use fewer codes or a wider latent (--latent-dim)"
            )
        self.config: dict[str, Any] = {
            "resolution": resolution,
            "codes": spec.to_config(),
            "noise_dim": noise_dim,
            "styles": styles,
            "labels": labels,
            "channels": channels,
            "latent_dim": latent_dim,
            "fmap_base": fmap_base,
            "fmap_max": fmap_max,
            "mapping_layers": mapping_layers,
            "mapping_lr": mapping_lr,
            "code_input": code_input,
            "code_scale": code_scale,
            "truncation_layers": truncation_layers,
        }
        self.resolution, self.codes, self.noise_dim = resolution, spec, noise_dim
        self.labels, self.channels, self.truncation_layers = labels, channels, truncation_layers
        self.latent = LatentInput(spec, noise_dim, labels, latent_dim, code_input, code_scale)
        width = self.latent.out_features
        self.mapping = (
            MappingNetwork(width, latent_dim, layers=mapping_layers, lr_multiplier=mapping_lr)
            if styles
            else None
        )
        plan = ChannelPlan(fmap_base, fmap_max)
        self.synthesis = SynthesisNetwork(
            resolution, latent_dim if styles else width, channels, plan, styled=styles
        )
        self.register_buffer("noise_bank", noise_bank(noise_dim), persistent=False)
        self._means = RowCache()
        # How far growth has come: a snapshot taken half-way is used at the size it has learned.
        self.register_buffer("grown_resolution", torch.tensor(resolution))
        self.register_buffer("grown_fade", torch.tensor(1.0))

    @staticmethod
    def from_config(config: dict[str, Any]) -> Generator:
        return Generator(**{**config, "codes": CodeSpec.from_config(config["codes"])})

    def forward(
        self,
        z: Tensor,
        c: Tensor,
        label: Tensor | None = None,
        psi: float | Tensor = 1.0,
        *,
        truncation: str = "codes",
        resolution: int | None = None,
        fade: float | None = None,
        noise: str = "random",
    ) -> Tensor:
        """Images [N, channels, resolution, resolution], about [-1, 1].

        `psi` < 1 pulls w towards a mean (styled generators; off in training and metrics): with `truncation`
        "codes" the mean given c and the label (`mean_w`), so that only what z' adds is weakened; with
        "global" the mean over everything (StyleGAN's), which weakens what the codes do, too. `noise` is
        "random", "const" (the same maps at every call) or "none". `resolution` and `fade` (the share of the
        newest block) default to how far this network has grown.
        """
        if truncation not in TRUNCATIONS:
            raise ValueError(f"truncation {truncation!r}: choose one of {', '.join(TRUNCATIONS)}")
        if z.ndim != 2 or z.shape[1] != self.noise_dim:
            raise ValueError(f"z must be [N, {self.noise_dim}], got {list(z.shape)}")
        truncated = self.mapping is not None and (isinstance(psi, Tensor) or psi != 1.0)
        mean = self.mean_w(c, label) if truncated and truncation == "codes" else None
        w = self.map(z, c, label)
        return self.synthesize(w, psi=psi, mean=mean, resolution=resolution, fade=fade, noise=noise)

    def map(self, z: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        """w [N, latent_dim] (styled), or the joined vector (direct)."""
        joined = self.latent(z, c, label)
        return joined if self.mapping is None else self.mapping(joined)

    def mean_w(self, c: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean of w given the codes (and the label), over a fixed bank of z': [N, latent_dim].

        Without codes and labels it is the running mean of training. In eval mode with frozen weights each
        row is computed once. Raises ValueError for a direct generator, which has no w.
        """
        if self.mapping is None:
            raise ValueError("a direct generator (styles=False) has no w to take the mean of")
        if not len(self.codes) and not self.labels:
            return self.mapping.w_avg.expand(c.shape[0], -1)
        weights = [*self.latent.parameters(), *self.mapping.parameters()]
        alive = self.training or any(w.requires_grad or w.is_inference() for w in weights)
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or c.device.type == "meta"
        if alive or traced or c.requires_grad or not has_memory(c) or not len(c):
            return self._mean_w(c, label)
        rows = c if label is None else torch.cat([c, label.to(c).unsqueeze(1)], dim=1)

        def of_rows(index: Tensor) -> Tensor:
            parts = index.split(32)
            return torch.cat([self._mean_w(c[i], None if label is None else label[i]) for i in parts])

        return self._means(rows, weights, of_rows)

    def _mean_w(self, c: Tensor, label: Tensor | None) -> Tensor:
        n, k = c.shape[0], self.noise_bank.shape[0]
        z = self.noise_bank.unsqueeze(0).expand(n, -1, -1).reshape(n * k, -1)
        c = c.unsqueeze(1).expand(-1, k, -1).reshape(n * k, -1)
        if label is not None:
            label = label.unsqueeze(1).expand(-1, k).reshape(n * k)
        return self.map(z, c, label).view(n, k, -1).mean(dim=1)

    def synthesize(
        self,
        w: Tensor,
        *,
        psi: float | Tensor = 1.0,
        mean: Tensor | None = None,
        resolution: int | None = None,
        fade: float | None = None,
        noise: str = "random",
    ) -> Tensor:
        """Images from w [N, latent_dim]; `psi` pulls it towards `mean` [N, latent_dim], or the global one."""
        if noise not in NOISE_MODES:
            raise ValueError(f"noise {noise!r}: choose one of {', '.join(NOISE_MODES)}")
        resolution = int(self.grown_resolution) if resolution is None else resolution
        if resolution not in self.synthesis.resolutions:
            raise ValueError(
                f"resolution {resolution}: this generator makes sizes {self.synthesis.resolutions}"
            )
        fade = float(self.grown_fade) if fade is None else fade
        if self.mapping is not None:
            layers, cut = self.synthesis.num_layers, self.truncation_layers
            ws = w.unsqueeze(1).repeat(1, layers, 1)
            if isinstance(psi, Tensor) or psi != 1.0:
                mean = self.mapping.w_avg.expand_as(w) if mean is None else mean
                pulled = mean.lerp(w, psi).unsqueeze(1)
                ws = torch.cat([pulled.repeat(1, min(cut, layers), 1), ws[:, cut:]], dim=1)
            w = ws
        return self.synthesis(w, resolution=resolution, fade=fade, noise=noise)

    def set_growth(self, resolution: int, fade: float) -> None:
        """Record how far growth has come; later calls use it as their default."""
        self.grown_resolution.fill_(resolution)
        self.grown_fade.fill_(fade)

    def set_precision(self, precision: str) -> None:
        """`fp32`, or `bf16`: convolutions in bfloat16, everything else in float32."""
        set_conv_dtype(self, torch.bfloat16 if precision == "bf16" else None)

    def sample_latents(
        self, n: int, *, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """(z', c) drawn from their priors."""
        z = torch.randn(n, self.noise_dim, generator=generator, device=device)
        return z, self.codes.sample(n, generator=generator, device=device)
