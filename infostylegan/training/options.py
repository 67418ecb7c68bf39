"""Everything that decides what a run computes, as one record that can be written to JSON and read back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dnnlib.errors import UserError
from infostylegan.codes import CodeError, CodeSpec
from infostylegan.growth import R1_REFERENCES, Growth, per_resolution
from infostylegan.networks import Discriminator, Generator
from infostylegan.training.step import LossSettings

PRECISIONS = ("fp32", "bf16")
LARGEST = 1024  # resolution
# Of networks eight times the paper's: beyond, a slip would fill a machine before the plan is drawn.
MOST = {"fmap_base": 65536, "fmap_max": 4096, "latent_dim": 4096, "mapping_layers": 64, "trunk_share": 1}
Table = float | Mapping[int, float]
POSITIVE = (
    "kimg", "r1_interval", "ema_kimg", "fmap_base", "fmap_max", "latent_dim", "micro_batch", "mapping_layers",
    "mapping_lr", "code_scale", "batch", "lr", "sigma_min",
)  # fmt: skip
NUMBERS = (
    *POSITIVE, "beta", "beta_uniform", "beta_real", "beta_start", "beta_ramp_kimg", "gamma", "views",
    "margin", "information_clip", "trunk_share", "seed", "stable_kimg", "fade_kimg", "lr_decay_kimg",
)  # fmt: skip


class OptionError(UserError, ValueError):
    """An impossible option; the message says which, why, and how to mend it."""


@dataclass(frozen=True)
class TrainingOptions:
    """Two runs with equal options (and the same data) end with the same weights, bit for bit.

    Tables map a resolution to a number; a single number holds for all. Lengths are in thousands of images.
    """

    # Data
    data: str
    data_digest: str
    resolution: int
    channels: int = 3
    label_count: int = 0  # 0: labels are not used
    # Codes and losses
    codes: str = "cat:3,bern:7,unif:10"
    uniform: str = "truncnormal"
    sigma_min: float = 0.2
    beta: float = 1.0
    beta_uniform: float | None = None
    beta_real: float = 0.0
    beta_start: float | None = None  # beta at the first image, rising linearly to beta over beta_ramp_kimg
    beta_ramp_kimg: float = 0.0
    share_codes: bool = False
    margin: float = 0.0
    information_clip: float = 0.0
    trunk_share: float = 1.0
    views: float = 0.0
    gamma: float = 10.0
    r1_reference: str = "final"
    r1_interval: int = 1
    # Networks
    styles: bool = True
    latent_dim: int = 512
    fmap_base: int = 8192
    fmap_max: int = 512
    mapping_layers: int = 8
    mapping_lr: float = 0.01
    code_input: str = "standard"
    code_scale: float = 1.0
    # Schedule
    kimg: float = 1000.0
    start_resolution: int = 8
    stable_kimg: Table = 600.0
    fade_kimg: Table = 600.0
    batch: Table = 32
    lr: Table = 0.001
    lr_decay_kimg: float = 0.0
    micro_batch: int | None = None
    ema_kimg: float = 10.0
    ema_rampup: float | None = None
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise OptionError for a combination that cannot run."""

        def demand(condition: bool, text: str) -> None:
            if not condition:
                raise OptionError(text)

        def choice(option: str, value: str, choices: tuple[str, ...]) -> None:
            demand(value in choices, f"{option} {value}: choose one of {', '.join(choices)}")

        powers = (8, 16, 32, 64, 128, 256, 512, LARGEST)
        demand(
            self.resolution in powers, f"--resolution {self.resolution}: must be a power of two, 8 to 1024"
        )
        demand(
            self.start_resolution in powers and self.start_resolution <= self.resolution,
            f"--start-resolution {self.start_resolution}: must be a power of two from 8 to {self.resolution}",
        )
        choice("--r1-reference", self.r1_reference, R1_REFERENCES)
        choice("--precision", self.precision, PRECISIONS)
        choice("--code-input", self.code_input, ("standard", "plain"))
        for name in NUMBERS:
            value = getattr(self, name)
            option = f"--{name.replace('_', '-')}"
            for size in value if isinstance(value, Mapping) else ():
                demand(
                    size in powers,
                    f"{option} {size}:…: {size} is no resolution; write a power of two, 8 to 1024",
                )
            for number in value.values() if isinstance(value, Mapping) else [value]:
                if number is not None:
                    sound = math.isfinite(number) and (number > 0 or (number == 0 and name not in POSITIVE))
                    least = "greater than 0" if name in POSITIVE else "0 or more"
                    demand(sound, f"{option} {number}: must be {least}")
        for name, most in MOST.items():
            value = getattr(self, name)
            demand(value <= most, f"--{name.replace('_', '-')} {value}: must be at most {most}")
        demand(self.seed < 2**63, f"--seed {self.seed}: must be less than 2^63")
        demand(round(self.kimg * 1000) >= 1, f"--kimg {self.kimg}: less than one image")
        sizes = self.batch.values() if isinstance(self.batch, Mapping) else [self.batch]
        demand(
            all(n >= 1 and n == int(n) for n in sizes), f"--batch {self.batch}: must be whole and positive"
        )
        demand(
            self.micro_batch is None or self.micro_batch > 0,
            f"--micro-batch {self.micro_batch}: must be positive",
        )
        spec = self.spec()
        demand(
            spec.width < self.latent_dim,
            f"--codes {self.codes}: {spec.width} wide, which leaves no room for noise in --latent-dim "
            f"{self.latent_dim}; use fewer codes or a wider latent",
        )

    @property
    def informed(self) -> bool:
        """Whether the information of some code is in the loss at all; if not, Q has learned nothing."""
        return bool(self.losses(round(self.kimg * 1000)).weights(self.spec()).any())

    def spec(self) -> CodeSpec:
        try:
            return CodeSpec.parse(self.codes, uniform=self.uniform, sigma_min=self.sigma_min)
        except CodeError as error:
            raise OptionError(str(error)) from None

    def growth(self) -> Growth:
        def table(value: Table) -> dict[int, float]:
            return per_resolution(value, self.start_resolution, self.resolution)

        return Growth(
            start=self.start_resolution,
            resolution=self.resolution,
            total_kimg=self.kimg,
            stable_kimg=table(self.stable_kimg),
            fade_kimg=table(self.fade_kimg),
            batch={resolution: int(size) for resolution, size in table(self.batch).items()},
            lr=table(self.lr),
            gamma=self.gamma,
            r1_reference=self.r1_reference,
            lr_decay_kimg=self.lr_decay_kimg,
        )

    def ramp(self, images: int) -> float:
        """How far the weights of the information have risen after so many images, 0 … 1."""
        length = self.beta_ramp_kimg * 1000
        return min(1.0, images / length) if length else 1.0

    def losses(self, images: int = 0) -> LossSettings:
        """The loss of a step that starts after so many images."""
        start, ramp = self.beta if self.beta_start is None else self.beta_start, self.ramp(images)
        return LossSettings(
            beta=start + (self.beta - start) * ramp,
            beta_uniform=self.beta if self.beta_uniform is None else self.beta_uniform,
            beta_real=self.beta_real,
            share_codes=self.share_codes,
            margin=self.margin,
            information_clip=self.information_clip,
            trunk_share=self.trunk_share,
            views=self.views,
            r1_interval=self.r1_interval,
            micro_batch=self.micro_batch,
        )

    def build_generator(self) -> Generator:
        generator = Generator(
            self.resolution,
            self.spec(),
            styles=self.styles,
            labels=self.label_count,
            channels=self.channels,
            latent_dim=self.latent_dim,
            fmap_base=self.fmap_base,
            fmap_max=self.fmap_max,
            mapping_layers=self.mapping_layers,
            mapping_lr=self.mapping_lr,
            code_input=self.code_input,
            code_scale=self.code_scale,
        )
        generator.set_precision(self.precision)
        return generator

    def build_discriminator(self) -> Discriminator:
        discriminator = Discriminator(
            self.resolution,
            self.spec(),
            labels=self.label_count,
            channels=self.channels,
            fmap_base=self.fmap_base,
            fmap_max=self.fmap_max,
        )
        discriminator.set_precision(self.precision)
        return discriminator

    def describe(self) -> str:
        """Short name for the run folder: data, resolution and what sets the run apart."""
        name = "".join(ch if ch.isalnum() else "-" for ch in self.data).strip("-") or "data"
        styles = "" if self.styles else "-nostyles"
        return f"{name}{self.resolution}-beta{self.beta:g}{styles}"

    def to_json(self, run: dict[str, Any] | None = None) -> str:
        """As JSON; `run` is plain data on how the run was started, written beside the options."""
        return json.dumps({**dataclasses.asdict(self), **({"run": run} if run else {})}, indent=2)

    @staticmethod
    def from_json(text: str) -> TrainingOptions:
        values: dict[str, Any] = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
        values.pop("run", None)  # how the run was started: kept for people, and no part of what it computes
        for name in ("stable_kimg", "fade_kimg", "batch", "lr"):
            if isinstance(values.get(name), dict):
                values[name] = {int(resolution): number for resolution, number in values[name].items()}
        return TrainingOptions(**values)

    def differences(self, other: TrainingOptions) -> list[str]:
        """Names of the options in which two runs differ, with both values."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return [f"{name}: {mine[name]} / {theirs[name]}" for name in mine if mine[name] != theirs[name]]
