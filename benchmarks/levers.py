"""What each piece of the networks' speed is worth: training steps with it and without, alternating.

    python benchmarks/levers.py --preset mnist --resolution 16 --batch 64 --precision bf16 --threads 1
    python benchmarks/levers.py --preset paper-celeba --resolution 64 --batch 8 --precision fp32 --rounds 3

Every lever is switched by putting another function in its place, which computes the same. Those marked "not
taken" are put in rather than out. Steps alternate within each round; the ratios are medians over rounds,
above 1 where the network as it is is the faster one.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from infostylegan.networks import discriminator, layers, synthesis


def sum_of_shifts(weight: Tensor) -> Tensor:
    """[..., k, k] -> [..., k + 1, k + 1]: the kernel convolved with a 2×2 block of ones."""
    w = F.pad(weight, (1, 1, 1, 1))
    return w[..., 1:, 1:] + w[..., :-1, 1:] + w[..., 1:, :-1] + w[..., :-1, :-1]


@functools.cache
def shift_matrix(resample: str) -> Tensor:
    """[9, 16]: what takes a flat 3×3 kernel to the flat 4×4 one that has the box in it."""
    each = torch.eye(9).view(-1, 3, 3)
    summed = sum_of_shifts(each.flip((1, 2))) if resample == "up" else sum_of_shifts(each) * 0.25
    return summed.flatten(1)


convolution_as_it_is = layers.EqualizedConv2d.forward


def convolution_by_4x4(self: layers.EqualizedConv2d, x: Tensor, penalised: bool = False) -> Tensor:
    if not self.resample:
        return convolution_as_it_is(self, x, penalised)
    out_type, x = x.dtype, x.to(self.dtype or x.dtype)
    summed = self.weight.reshape(-1, 9) @ (shift_matrix(self.resample) * self.weight_scale)
    kernel = summed.to(x.dtype).view(*self.weight.shape[:2], 4, 4)
    if self.resample == "up":
        y = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2, padding=1)
    else:
        y = (layers.conv2d if penalised else F.conv2d)(x, kernel, stride=2, padding=1)
    return y.to(out_type)


def instance_norm_then_style(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-8) -> Tensor:
    return F.instance_norm(x, eps=eps) * scale[:, :, None, None] + shift[:, :, None, None]


def scaled_weights(self: layers.EqualizedLinear, x: Tensor) -> Tensor:
    bias = None if self.bias is None else self.bias * self.bias_scale
    weight = self.weight * self.weight_scale
    return layers.lrelu(F.linear(x, weight), bias) if self.activate else F.linear(x, weight, bias)


trunk_as_it_is = discriminator.Trunk.forward


def trunk_in_bf16(self: discriminator.Trunk, image: Tensor, fade: float = 1.0) -> Tensor:
    dtype = next(m.dtype for m in self.modules() if isinstance(m, layers.EqualizedConv2d))
    return trunk_as_it_is(self, image.to(dtype or image.dtype), fade).float()


block_as_it_is = synthesis.StyledBlock.forward


def generator_pixels_first(self: Any, x: Tensor | None, *rest: Any) -> Tensor:
    return block_as_it_is(self, None if x is None else discriminator.pixels_first(x), *rest)


Patch = tuple[Any, str, Any]
LEVERS: dict[str, list[Patch]] = {
    "native bias_act and filters": [
        (layers, "bias_act", functools.partial(layers.bias_act, impl="ref")),
        (layers, "filter2d", functools.partial(layers.filter2d, impl="ref")),
        (layers, "upfirdn2d", functools.partial(layers.upfirdn2d, impl="ref")),
    ],
    "the box outside of the kernel": [(layers.EqualizedConv2d, "forward", convolution_by_4x4)],
    "norm and style as one operation": [(synthesis, "adaptive_instance_norm", instance_norm_then_style)],
    "trunk channels-last": [(discriminator, "pixels_first", lambda x: x)],
    "own second derivatives": [(discriminator, "will_be_penalised", lambda image: False)],
    "dense layers scale their input": [(layers.EqualizedLinear, "forward", scaled_weights)],
    "not taken: activations of the trunk in bf16": [(discriminator.Trunk, "forward", trunk_in_bf16)],
    "not taken: generator channels-last": [(synthesis.StyledBlock, "forward", generator_pixels_first)],
}


@contextmanager
def patched(patches: list[Patch]) -> Iterator[None]:
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    try:
        for owner, name, value in patches:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


def make_step(preset: str, resolution: int, batch: int, precision: str) -> Callable[[int], None]:
    from infostylegan.growth import Phase
    from infostylegan.presets import PRESETS
    from infostylegan.training.options import TrainingOptions
    from infostylegan.training.state import TrainingState
    from infostylegan.training.step import train_step

    values = {k: v for k, v in PRESETS[preset].items() if k not in ("labels", "resolution", "precision")}
    options = TrainingOptions(
        data="noise", data_digest="", resolution=resolution, precision=precision, **values
    )
    state = TrainingState.start(options, torch.device("cpu"))
    phase = Phase(0, resolution, False, 0, 10**9, batch, 1e-3, 1.0)
    real = torch.rand(batch, state.G.channels, resolution, resolution) * 2 - 1

    def step(number: int) -> None:
        train_step(
            state.G, state.D, state.G_ema, state.g_optimizer, state.d_optimizer, real, None, phase, 1.0,
            number, 0.999, options.losses(),
        )  # fmt: skip

    return step


@click.command()
@click.option("--preset", default="mnist", show_default=True)
@click.option("--resolution", type=int, default=16, show_default=True)
@click.option("--batch", type=int, default=64, show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="bf16", show_default=True)
@click.option("--rounds", type=int, default=8, show_default=True)
@click.option("--steps", type=int, default=4, show_default=True, help="Consecutive steps timed as one.")
@click.option("--threads", type=int)
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True)
@click.option("--lever", "chosen", multiple=True, help="Part of a lever's name; repeatable. [default: all]")
def main(
    preset: str, resolution: int, batch: int, precision: str, rounds: int, steps: int, threads: int | None,
    clock: str, chosen: tuple[str, ...],
) -> None:  # fmt: skip
    """Print a Markdown table."""
    from dnnlib.memory import tune_malloc

    tune_malloc()
    if threads:
        torch.set_num_threads(threads)
    now = time.process_time if clock == "cpu" else time.perf_counter
    names = [name for name in LEVERS if not chosen or any(part in name for part in chosen)]
    every_lever = [patch for name in names if not name.startswith("not taken") for patch in LEVERS[name]]
    cases: dict[str, list[Patch]] = {"as it is": [], **{name: LEVERS[name] for name in names}}
    cases["all of the former"] = every_lever
    step = make_step(preset, resolution, batch, precision)
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, patches in cases.items():
            with patched(patches):
                started = now()
                for i in range(steps):
                    step(i)
                if number:  # the first round warms up
                    found[name].append((now() - started) / steps)
    click.echo(
        f"{preset}, {resolution}², {batch} images, {precision}, {torch.get_num_threads()} threads, {clock}"
    )
    click.echo(
        "\n| without (or with what was not taken) | s/step | img/s | times slower |\n|---|---|---|---|"
    )
    for name, seconds in found.items():
        ratios = [b / a for a, b in zip(found["as it is"], seconds)]
        middle = statistics.median(seconds)
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.2f}–{max(ratios):.2f})"
        click.echo(f"| {name} | {middle:.3f} | {batch / middle:.2f} | {spread} |")


if __name__ == "__main__":
    main()
