"""The generator G(z', c) -> image, styled (InfoStyleGAN, StyleGAN) or direct (InfoGAN)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from infostylegan.codes import CodeError, CodeSpec
from infostylegan.networks.layers import ChannelPlan, set_conv_dtype
from infostylegan.networks.mapping import LatentInput, MappingNetwork
from infostylegan.networks.synthesis import SynthesisNetwork

NOISE_MODES = ("random", "const", "none")


class Generator(nn.Module):
    """Images from noise z' [N, noise_dim], codes c [N, len(codes)] and optional labels [N].

    `styles=True` is the paper's S = 1 (mapping network and AdaIN at every layer); `False` is S = 0: the
    joined vector enters a ProGAN pyramid once. `noise_dim` defaults to latent_dim - codes.width, so that
    (z', c) has `latent_dim` numbers in all (512 in the paper). `codes` may be a CodeSpec or its text.

    Raises ValueError for impossible sizes and CodeError for codes wider than the latent.
    """

    grown_resolution: Tensor
    grown_fade: Tensor

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
        psi: float = 1.0,
        *,
        resolution: int | None = None,
        fade: float | None = None,
        noise: str = "random",
    ) -> Tensor:
        """Images [N, channels, resolution, resolution], about [-1, 1].

        `psi` < 1 pulls w towards its mean (styled generators; off in training and metrics). `noise` is
        "random", "const" (the same maps at every call) or "none". `resolution` and `fade` (the share of the
        newest block) default to how far this network has grown.
        """
        if z.ndim != 2 or z.shape[1] != self.noise_dim:
            raise ValueError(f"z must be [N, {self.noise_dim}], got {list(z.shape)}")
        return self.synthesize(self.map(z, c, label), psi=psi, resolution=resolution, fade=fade, noise=noise)

    def map(self, z: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        """w [N, latent_dim] (styled), or the joined vector (direct)."""
        joined = self.latent(z, c, label)
        return joined if self.mapping is None else self.mapping(joined)

    def synthesize(
        self,
        w: Tensor,
        *,
        psi: float = 1.0,
        resolution: int | None = None,
        fade: float | None = None,
        noise: str = "random",
    ) -> Tensor:
        """Images from w [N, latent_dim]."""
        if noise not in NOISE_MODES:
            raise ValueError(f"noise {noise!r}: choose one of {', '.join(NOISE_MODES)}")
        resolution = int(self.grown_resolution) if resolution is None else resolution
        if resolution not in self.synthesis.resolutions:
            raise ValueError(
                f"resolution {resolution}: this generator makes sizes {self.synthesis.resolutions}"
            )
        fade = float(self.grown_fade) if fade is None else fade
        if self.mapping is not None:
            w = w.unsqueeze(1).repeat(1, self.synthesis.num_layers, 1)
            if psi != 1.0:
                cut = self.truncation_layers
                w = torch.cat([self.mapping.w_avg.lerp(w[:, :cut], psi), w[:, cut:]], dim=1)
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
