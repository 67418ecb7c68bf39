"""Which device a program runs on."""

from __future__ import annotations

import torch

from dnnlib.errors import UserError


class DeviceError(UserError, ValueError):
    """A device that cannot be used here."""


def pick_device(name: str | None) -> torch.device:
    """The device that was asked for, else CUDA if present, else the CPU. Raises DeviceError."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"--device {name}: cannot be used here ({str(error).splitlines()[0]})") from None
    return device
