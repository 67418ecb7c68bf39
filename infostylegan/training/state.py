"""All that a run is at one instant, and the checkpoints that hold it."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib import distributed
from dnnlib.files import DamagedFile, read_digested, write_digested
from infostylegan.growth import Phase
from infostylegan.networks import Discriminator, Generator
from infostylegan.training.options import TrainingOptions
from infostylegan.training.step import StepStats

KEPT = 2


@dataclass
class TrainingState:
    G: Generator
    D: Discriminator
    G_ema: Generator
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    images: int = 0  # images seen
    step: int = 0
    phase: int = 0  # index of the phase that the optimisers are set for
    skipped: int = 0  # updates left out for a non-finite gradient
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    tick: StepStats = field(default_factory=StepStats)  # since the last tick

    @staticmethod
    def start(options: TrainingOptions, device: torch.device) -> TrainingState:
        """A fresh run: weights drawn from the seed."""
        torch.manual_seed(options.seed)
        G, D = options.build_generator().to(device), options.build_discriminator().to(device)
        G_ema = copy.deepcopy(G).eval().requires_grad_(False)
        first = options.growth().phases()[0]
        return TrainingState(G, D, G_ema, make_optimizer(G, first), make_optimizer(D, first))

    def enter(self, phase: Phase) -> None:
        """Reset the optimisers for a new phase (growth.py says when and why)."""
        if phase.index != self.phase:
            self.g_optimizer, self.d_optimizer = make_optimizer(self.G, phase), make_optimizer(self.D, phase)
            self.phase = phase.index

    def set_lr(self, lr: float) -> None:
        for optimizer in (self.g_optimizer, self.d_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = lr

    def modules(self) -> dict[str, Any]:
        return {
            "G": self.G,
            "D": self.D,
            "G_ema": self.G_ema,
            "g_optimizer": self.g_optimizer,
            "d_optimizer": self.d_optimizer,
        }

    def save(self, folder: Path) -> Path:
        """Write a checkpoint with a digest, and keep the last two."""
        counters = ("images", "step", "phase", "skipped", "skipped_in_a_row", "seconds")
        content: dict[str, Any] = {name: module.state_dict() for name, module in self.modules().items()}
        content.update({name: getattr(self, name) for name in counters}, tick=vars(self.tick))
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path = folder / f"checkpoint-{self.images:010d}.pt"
        write_digested(path, buffer.getvalue())
        for old in sorted(folder.glob("checkpoint-*.pt"))[:-KEPT]:
            old.unlink()
        return path

    def restore(self, path: Path, options: TrainingOptions, device: torch.device) -> None:
        """Become what the checkpoint holds. Raises DamagedFile where its digest does not agree."""
        content = torch.load(io.BytesIO(read_digested(path)), map_location="cpu", weights_only=True)
        self.enter(options.growth().phases()[content["phase"]])
        for name, module in self.modules().items():
            module.load_state_dict(content.pop(name))
        tick = content.pop("tick")
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in tick.items()}
        self.tick = StepStats(**moved)
        for name, value in content.items():
            setattr(self, name, value)

    def resume(
        self, folder: Path, options: TrainingOptions, device: torch.device, warn: Callable[[str], None]
    ) -> Path | None:
        """Restore the newest sound checkpoint of a run folder; name each damaged one on the way."""
        paths = sorted(folder.glob("checkpoint-*.pt"), reverse=True)
        for path in paths:
            try:
                self.restore(path, options, device)
                return path
            except DamagedFile as error:
                warn(f"{error}; it is left out")
                if distributed.is_main():
                    path.rename(path.with_suffix(".damaged"))
        if paths:
            warn(f"{folder}: none of its checkpoints is sound; starting from the beginning")
        return None


def make_optimizer(network: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """Adam as StyleGAN sets it: no first moment, beta2 0.99."""
    return torch.optim.Adam(network.parameters(), lr=phase.lr, betas=(0.0, 0.99), eps=1e-8, fused=True)
