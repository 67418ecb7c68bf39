"""Training steps and generation side by side with a peer from PyPI, alternating in one run.

    pip install --no-deps --target PEERS stylegan2-pytorch einops kornia kornia_rs
    python benchmarks/peers.py --peers PEERS --task step --resolution 32 --batch 16
    python benchmarks/peers.py --peers PEERS --task generate --resolution 128 --batch 8

Full-width networks on both sides: 512 latent numbers, 8 mapping layers, min(8192 / 2^(r-1), 512) channels
at 2^r pixels. What is counted:

- `step`: one update of D and one of G on the same number of images, with R1 (gamma 10), both Adams and the
  moving average. Ours is `train_step` with the paper's codes and beta 1, so it also trains Q. The peer's is
  its mapping network, generator and discriminator with the hinge losses and gradient penalty that it ships,
  without path-length regularisation, augmentation or contrastive loss; its fakes for D are made without a
  graph, its Adams are fused and its average is one call, all of which is faster than what it ships.
- `--lazy`: a second table, R1 at every 16th of our steps and at every 4th of the peer's (as it ships).
- `generate`: latents to images without gradients, in eval mode, random noise, no truncation.

The `network_capacity` of the peer's generator and discriminator is set so that each resolution has as many
channels as ours; the last column shows the arithmetic of each.

Contenders take turns within each round, so that a change of the machine's speed meets all of them; the
ratios are medians over rounds. On a machine that does other work, `--threads 1 --clock cpu` counts the
processor's time instead of the wall's, which preemption does not touch.
"""

from __future__ import annotations

import dataclasses
import importlib
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

LATENT = 512
GAMMA = 10.0
OURS_LAZY, PEER_LAZY = 16, 4

# A step with R1 (True) or without, or one batch of images.
Work = Callable[[bool], None]


class FlopCounter(TorchDispatchMode):
    """Floating-point operations of convolutions and matrix products."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        op = func._overloadpacket
        if op is torch.ops.aten.convolution:
            x, w, transposed = args[0], args[1], args[6]
            self.total += products(x if transposed else out, w)
        elif op is torch.ops.aten.convolution_backward:
            # torch's own count takes no notice of groups here, which the peer has one of for each image.
            grad, x, w, transposed, wanted = *args[:3], args[7], args[10]
            self.total += products(x if transposed else grad, w) * sum(wanted[:2])
        elif op in flop_registry:
            self.total += flop_registry[op](*args, **(kwargs or {}), out_val=out)
        return out


def products(pixels: Tensor, w: Tensor) -> int:
    """Multiplications and additions of a kernel [from, to / groups, k, k] met by each number of `pixels`."""
    return 2 * pixels.numel() * w[0].numel()


# ---- ours ----------------------------------------------------------------------------------------------


def our_step(resolution: int, batch: int, precision: str) -> Work:
    from infostylegan.growth import Phase
    from infostylegan.presets import PRESETS
    from infostylegan.training.options import TrainingOptions
    from infostylegan.training.state import TrainingState
    from infostylegan.training.step import train_step

    values = {k: v for k, v in PRESETS["paper-celeba"].items() if k not in ("labels", "resolution")}
    options = TrainingOptions(
        data="noise", data_digest="", resolution=resolution, **{**values, "precision": precision}
    )
    state = TrainingState.start(options, torch.device("cpu"))
    phase = Phase(0, resolution, False, 0, 10**9, batch, 1e-3, GAMMA)
    # R1 falls on the steps whose number the interval divides, weighted by the interval.
    every, lazy = (dataclasses.replace(options.losses(), r1_interval=n) for n in (1, OURS_LAZY))
    real = torch.rand(batch, 3, resolution, resolution) * 2 - 1

    def step(penalised: bool) -> None:
        train_step(
            state.G, state.D, state.G_ema, state.g_optimizer, state.d_optimizer, real, None, phase, 1.0, 1,
            0.999, every if penalised else lazy,
        )  # fmt: skip

    return step


def our_generation(resolution: int, batch: int, precision: str) -> Work:
    from infostylegan import Generator

    G = Generator(resolution, "cat:3,bern:7,unif:10").eval().requires_grad_(False)
    G.set_precision(precision)
    z, c = G.sample_latents(batch)

    @torch.no_grad()
    def generate(_: bool) -> None:
        G(z, c)

    return generate


# ---- the peer ------------------------------------------------------------------------------------------


class Absent(types.ModuleType):
    """Stands in for what the peer imports and its networks never call: data, logging, command line."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(name)


def import_stylegan2_pytorch() -> types.ModuleType:
    """Raises ImportError where it, einops or kornia is not installed."""
    for name in ("aim", "fire", "torchvision", "vector_quantize_pytorch", "retry"):
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = Absent(name)
    # It refuses to be imported without a GPU; its networks run without one.
    truth, torch.cuda.is_available = torch.cuda.is_available, lambda: True
    try:
        return importlib.import_module("stylegan2_pytorch.stylegan2_pytorch")
    finally:
        torch.cuda.is_available = truth


@dataclasses.dataclass
class Peer:
    """stylegan2-pytorch's networks at our width, and what its trainer does with them in one step."""

    S: nn.Module
    G: nn.Module
    D: nn.Module
    resolution: int
    batch: int
    autocast: bool

    @staticmethod
    def build(resolution: int, batch: int, autocast: bool = False) -> Peer:
        made = import_stylegan2_pytorch()
        capacity = 8192 // resolution
        S = made.StyleVectorizer(LATENT, 8, lr_mul=0.01)
        G = made.Generator(resolution, LATENT, network_capacity=capacity)
        D = made.Discriminator(resolution, network_capacity=capacity // 2)
        for module in [*S.modules(), *G.modules(), *D.modules()]:
            if type(module) in (nn.Conv2d, nn.Linear):
                nn.init.kaiming_normal_(module.weight, a=0, mode="fan_in", nonlinearity="leaky_relu")
        return Peer(S, G, D, resolution, batch, autocast)

    def images(self) -> Tensor:
        w = self.S(torch.randn(self.batch, LATENT))
        styles = w[:, None].expand(-1, self.G.num_layers, -1)
        return self.G(styles, torch.rand(self.batch, self.resolution, self.resolution, 1))

    def generation(self) -> Work:
        for network in (self.S, self.G):
            network.eval().requires_grad_(False)

        @torch.no_grad()
        def generate(_: bool) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
                self.images()

        return generate

    def step(self) -> Work:
        live = [*self.S.parameters(), *self.G.parameters()]
        average = [p.detach().clone() for p in live]
        g_adam = torch.optim.Adam(live, lr=1e-4, betas=(0.5, 0.9), fused=True)
        d_adam = torch.optim.Adam(self.D.parameters(), lr=2e-4, betas=(0.5, 0.9), fused=True)
        real = torch.rand(self.batch, 3, self.resolution, self.resolution)

        def autocast() -> torch.autocast:
            return torch.autocast("cpu", torch.bfloat16, enabled=self.autocast)

        def step(penalised: bool) -> None:
            self.D.requires_grad_(True)
            d_adam.zero_grad()
            x = real.detach().requires_grad_(penalised)
            with autocast():
                with torch.no_grad():
                    fake = self.images()
                on_fake, on_real = self.D(fake)[0], self.D(x)[0]
                loss = (F.relu(1 + on_real) + F.relu(1 - on_fake)).mean()
                if penalised:
                    (slope,) = torch.autograd.grad(on_real.sum(), x, create_graph=True)
                    loss = loss + GAMMA * slope.flatten(1).norm(dim=1).square().mean()
            loss.backward()
            d_adam.step()

            self.D.requires_grad_(False)
            g_adam.zero_grad()
            with autocast():
                loss = self.D(self.images())[0].mean()
            loss.backward()
            g_adam.step()
            torch._foreach_lerp_(average, [p.detach() for p in live], 0.005)

        return step


# ---- the comparison ------------------------------------------------------------------------------------


def build(name: str, task: str, resolution: int, batch: int) -> Work:
    torch.manual_seed(0)
    if name in ("fp32", "bf16"):
        return (our_step if task == "step" else our_generation)(resolution, batch, name)
    peer = Peer.build(resolution, batch, autocast=name.endswith("autocast"))
    return peer.step() if task == "step" else peer.generation()


CONTENDERS = ("stylegan2-pytorch", "fp32", "bf16", "stylegan2-pytorch-autocast")


def table(title: str, seconds: dict[str, list[float]], batch: int, flops: dict[str, float]) -> None:
    first = next(iter(seconds))
    click.echo(f"\n{title}\n\n| | s | img/s | speed against {first} | TFLOP |\n|---|---|---|---|---|")
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(seconds[first], times)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        middle = statistics.median(times)
        click.echo(f"| {name} | {middle:.3f} | {batch / middle:.2f} | {spread} | {flops[name] / 1e12:.3f} |")


@click.command()
@click.option(
    "--peers", type=click.Path(path_type=Path, file_okay=False), help="Folder that pip installed to."
)
@click.option("--task", type=click.Choice(["step", "generate"]), default="step", show_default=True)
@click.option("--resolution", type=int, default=32, show_default=True)
@click.option("--batch", type=int, default=16, show_default=True)
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--threads", type=int)
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True)
@click.option("--lazy", is_flag=True, help="Time steps without R1, too.")
@click.option("--contenders", default="stylegan2-pytorch,fp32,bf16", show_default=True, help=str(CONTENDERS))
def main(
    peers: Path | None, task: str, resolution: int, batch: int, rounds: int, threads: int | None, clock: str,
    lazy: bool, contenders: str,
) -> None:  # fmt: skip
    """Print Markdown tables; ratios are medians over rounds, with their range."""
    from dnnlib.memory import tune_malloc

    tune_malloc()
    if threads:
        torch.set_num_threads(threads)
    if peers:
        sys.path.append(str(peers))
    works: dict[str, Work] = {}
    flops: dict[str, float] = {}
    for name in contenders.split(","):
        try:
            work = build(name, task, resolution, batch)
        except ImportError as error:
            click.echo(f"{name} is left out: {error}", err=True)
            continue
        with FlopCounter() as counter:
            work(True)
        work(False)
        works[name], flops[name] = work, counter.total
    now = time.process_time if clock == "cpu" else time.perf_counter
    kinds = (True, False) if lazy and task == "step" else (True,)
    found: dict[bool, dict[str, list[float]]] = {kind: {name: [] for name in works} for kind in kinds}
    repeats = 1 if task == "step" else max(1, 16 // batch)
    for _ in range(rounds):
        for kind in kinds:
            for name, work in works.items():
                started = now()
                for _ in range(repeats):
                    work(kind)
                found[kind][name].append((now() - started) / repeats)
    where = f"{resolution}², {batch} images, {torch.get_num_threads()} threads, {clock} time, {rounds} rounds"
    table(f"{'R1 every step' if task == 'step' else 'generation'}: {where}", found[True], batch, flops)
    if len(kinds) > 1:
        mixed = {}
        for name in works:
            interval = PEER_LAZY if name.startswith("stylegan2") else OURS_LAZY
            pairs = zip(found[True][name], found[False][name])
            mixed[name] = [(a + (interval - 1) * b) / interval for a, b in pairs]
        table(f"lazy R1 (ours 1/{OURS_LAZY}, peer 1/{PEER_LAZY}): {where}", mixed, batch, flops)


if __name__ == "__main__":
    main()
