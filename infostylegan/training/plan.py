"""The plan of a run before it is paid for: phases, parameters, memory."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet, finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cuda_ops.backends import default_impl, resolve_impl
from dnnlib.log import format_bytes
from infostylegan.growth import Phase
from infostylegan.networks import Discriminator, Generator
from infostylegan.training.options import TrainingOptions
from infostylegan.training.step import LossSettings, StepStats, discriminator_step, generator_step


def describe_plan(options: TrainingOptions, data: str, device: torch.device) -> str:
    """Every phase, the networks' sizes and the memory of the largest step, as text."""
    phases = options.growth().phases()
    G, D = options.build_generator(), options.build_discriminator()
    lines = [
        f"Data     {data}"
        + (f", {options.label_count} labels" if options.label_count else ", labels not used"),
        f"Codes    {options.codes}: {options.spec().width} of {options.latent_dim} latent numbers, "
        f"H(C) = {options.spec().entropy():.3f} nats, uniform codes as {options.uniform}",
        f"Method   {'styled' if options.styles else 'direct (no styles)'}, beta {options.beta:g}, "
        f"R1 gamma {options.gamma:g} ({options.r1_reference})"
        + (f", every {options.r1_interval} steps" if options.r1_interval > 1 else ""),
        f"Networks G {count(G):,} parameters, D with Q {count(D):,}, {options.precision}",
        "",
        f"{'phase':>5} {'size':>5} {'':6} {'from kimg':>10} {'to kimg':>9} {'batch':>6} {'lr':>7} "
        f"{'eff. gamma':>11} {'steps':>8}",
    ]
    for phase in phases:
        lines.append(
            f"{phase.index:>5} {phase.resolution:>4}² {'fade' if phase.fading else 'stable':6} "
            f"{phase.start / 1000:>10,.0f} {phase.end / 1000:>9,.0f} {phase.batch:>6} {phase.lr:>7g} "
            f"{phase.gamma:>11.4g} {phase.steps:>8,}"
        )
    sizes = {phase.resolution: phase for phase in phases}.values()
    # What the operations keep depends on who computes them.
    fused = resolve_impl("plan", "auto", torch.empty(1, device=device)) is not None
    with default_impl(device.type if fused else "ref"):
        worst, memory = max(
            ((phase, estimate_memory(G, D, options, phase)) for phase in sizes), key=lambda p: p[1]
        )
    part = min(worst.batch, options.micro_batch or worst.batch)
    lines += [
        "",
        f"Steps    {sum(phase.steps for phase in phases):,} in all, {phases[-1].end / 1000:,.0f} kimg",
        f"Memory   about {format_bytes(memory)} at {worst.resolution}², {part} images a backward pass"
        + ("" if options.micro_batch else " (--micro-batch N makes it smaller)"),
    ]
    return "\n".join(lines)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def estimate_memory(G: Generator, D: Discriminator, options: TrainingOptions, phase: Phase) -> float:
    """Bytes that a step holds: weights, moments, gradients, and the most that is alive besides.

    Steps of two and of four images are taken on the meta device, where nothing is computed; the difference
    is the cost of an image.
    """
    G, D = G.to("meta"), D.to("meta")
    for p in (*G.parameters(), *D.parameters()):
        p.grad = torch.zeros_like(p)
    settings = options.losses()
    two, four = (step_bytes(G, D, options, phase, settings, n) for n in (2, 4))
    images = min(phase.batch, options.micro_batch or phase.batch)
    weights = 4 * (count(G) * 5 + count(D) * 4)  # value, gradient, two moments; and the average of G
    return weights + two + (four - two) / 2 * (images - 2)


def step_bytes(
    G: Generator, D: Discriminator, options: TrainingOptions, phase: Phase, settings: LossSettings, n: int
) -> float:
    """The most bytes alive at once in the heavier half of a step on n images, beside the networks."""
    meta = torch.device("meta")
    label = torch.zeros(n, dtype=torch.long, device=meta) if options.label_count else None
    real = torch.zeros(n, options.channels, phase.resolution, phase.resolution, device=meta)
    peaks = []
    for learner, half in (
        (D, lambda: discriminator_step(G, D, real, label, phase, 1.0, settings, phase.gamma, StepStats())),
        (G, lambda: generator_step(G, D, n, label, meta, phase, 1.0, settings, StepStats())),
    ):
        D.requires_grad_(learner is D)
        with LiveBytes() as live:
            half()
        peaks.append(float(live.peak))
    D.requires_grad_(True)
    return max(peaks)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make within it, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: WeakSet[torch.UntypedStorage] = WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in given:
                self.count(tensor.untyped_storage())
        return made

    def count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self.seen:
            self.seen.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            finalize(storage, self.release, storage.nbytes())

    def release(self, size: int) -> None:
        self.now -= size
