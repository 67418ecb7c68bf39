"""Randomness that depends only on where in the run we are, so that a resumed run draws what it would have."""

from __future__ import annotations

import hashlib
import random
import struct

import torch

_64_BITS = 2**64 - 1


def seed_step(seed: int, step: int, rank: int = 0, stream: int = 0) -> int:
    """A 63-bit seed for one step of one process; `stream` separates the uses within a step.

    A hash, because sums such as seed + step would make neighbouring runs share their draws.
    """
    packed = struct.pack("<4Q", *(value & _64_BITS for value in (seed, step, rank, stream)))
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def seed_everything(value: int) -> None:
    """Seed torch (every device, CUDA too) and `random`. Numpy's global generator is left alone."""
    torch.manual_seed(value)
    random.seed(value)
