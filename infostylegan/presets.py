"""Settings as data: the paper's, and small ones chosen by measurement (docs/mnist.md, docs/results.md)."""

from __future__ import annotations

from typing import Any

# The paper, section 4, on top of StyleGAN (2019): see docs/training.md for where each number comes from.
PAPER: dict[str, Any] = {
    "codes": "cat:3,bern:7,unif:10",
    "uniform": "unit",
    "code_input": "plain",
    "beta": 1.0,
    "gamma": 10.0,
    "r1_reference": "final",
    "start_resolution": 8,
    "stable_kimg": 600.0,
    "fade_kimg": 600.0,
    "lr": {8: 0.001, 128: 0.003},
    "batch": {8: 1024, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32},
}

SMALL: dict[str, Any] = {
    "codes": "cat:3,bern:2,unif:3",
    "sigma_min": 0.4,
    "latent_dim": 64,
    "fmap_base": 512,
    "fmap_max": 64,
    "mapping_layers": 2,
    "mapping_lr": 1.0,
    "beta": 0.15,
    "information_clip": 1.0,
    "trunk_share": 0.0,
    "margin": 0.3,
    "share_codes": True,
    "gamma": 1.0,
    "r1_reference": "final",
    "r1_interval": 4,
    "start_resolution": 8,
    "stable_kimg": {8: 20.0, 16: 25.0, 32: 60.0},
    "fade_kimg": {16: 15.0, 32: 20.0},
    "batch": {8: 64, 16: 32, 32: 16},
    "lr": 0.002,
    "lr_decay_kimg": 40.0,
    "kimg": 260.0,
    "ema_rampup": 0.1,
    "precision": "auto",
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper-celeba": {**PAPER, "resolution": 128, "kimg": 55_000.0, "labels": False},
    "paper-eyepacs": {**PAPER, "resolution": 512, "kimg": 20_000.0, "labels": True},
    "full": {**PAPER, "uniform": "truncnormal", "code_input": "standard", "kimg": 25_000.0},
    "small": SMALL,
    "fundus": {
        **SMALL,
        "resolution": 32,
        "fmap_base": 256,
        "batch": {8: 64, 16: 32, 32: 32},
        "kimg": 200.0,
    },
    "mnist": {
        **SMALL,
        "codes": "cat:10,unif:2",
        "sigma_min": 0.2,
        "resolution": 32,
        "fmap_base": 256,
        "beta": 0.3,
        "information_clip": 0.0,  # measured without, as all of docs/mnist.md
        "trunk_share": 1.0,
        "beta_start": 0.15,
        "beta_ramp_kimg": 100.0,
        "beta_uniform": 0.3,
        "beta_real": 3.0,
        "views": 0.6,
        "gamma": 0.3,
        "r1_reference": "native",
        "start_resolution": 16,
        "stable_kimg": 260.0,
        "fade_kimg": 30.0,
        "batch": 64,
        "kimg": 360.0,
    },
}

# Data sets that have a preset of their own; any other starts from `small`.
DEFAULT_PRESET = {
    "fundus": "fundus",
    "mnist": "mnist",
    "fashion-mnist": "mnist",
    "eyepacs": "paper-eyepacs",
    "celeba": "paper-celeba",
}
# Where the data decide the resolution: the largest that a preset's networks and schedule are made for.
LARGEST_GUESS = {"small": 64}


def preset_for(dataset_name: str) -> str:
    """The preset that a data set starts from when --cfg is not given."""
    return DEFAULT_PRESET.get(dataset_name, "small")
