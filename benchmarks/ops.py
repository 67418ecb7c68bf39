"""Times the two ops of `cuda_ops` on the CPU, back end against back end, in one run.

    python benchmarks/ops.py                       # everything, fp32, NCHW
    python benchmarks/ops.py --ops up2 --taps 3 --dtype bfloat16 --layout nhwc

Contenders take turns, so that a busy machine hurts all of them alike; figures are medians of the rounds. On a
machine with more to do than it has cores, threads that wait for each other measure the scheduler; there
``--threads 1 --clock cpu`` still tells the kernels' own speed, and ``--quantile 0.1`` that of the calls whose
caches no other process emptied.

- ``ref``: the reference of `cuda_ops` in plain torch (upfirdn2d: its own autograd function).
- ``naive``: the definition step by step (zeros, padding, grouped convolution; bias, activation, gain) left to
  autograd, as in the implementations that people fall back to: "the reference in plain torch".
- ``cpu``: the native kernels.
- ``copy``: the limit; as many bytes copied within memory that exists already as the op must read and write.

The ratios are those of ``ref`` and ``naive`` to ``cpu`` (above 1: cpu is faster), and of ``cpu`` to ``copy``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops import bias_act, downsample2d, filter2d, setup_filter, upsample2d
from cuda_ops.backends import BACKENDS
from dnnlib.memory import tune_malloc

# [N, C, size of the larger image], the layers of a generator and discriminator at full width
SHAPES = ((8, 512, 16), (8, 512, 32), (4, 256, 64), (4, 128, 128), (2, 64, 256), (2, 32, 512))
TAPS = {3: [1.0, 2.0, 1.0], 4: [1.0, 3.0, 3.0, 1.0]}
OPS = ("up2", "down2", "blur", "bias_act")
PASSES = ("forward", "backward", "double")
Op = Callable[..., Tensor]


def naive(op: str, f: Tensor) -> Op:
    """The definition step by step, left to autograd: zeros, padding, convolution, every other pixel."""
    taps = f.shape[0]
    up, down = 2 if op == "up2" else 1, 2 if op == "down2" else 1
    before = (taps + up - 1) // 2 if up == 2 else (taps - down + 1) // 2 if down == 2 else taps // 2
    after = (taps - up) // 2 if up == 2 else (taps - down) // 2 if down == 2 else (taps - 1) // 2

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if up == 2:
            x = F.pad(x.view(n, c, h, 1, w, 1), [0, 1, 0, 0, 0, 1]).view(n, c, 2 * h, 2 * w)
        x = F.pad(x, [before, after, before, after])
        weight = (f * up**2).flip([0, 1]).to(x.dtype).expand(c, 1, taps, taps)
        y = F.conv2d(x, weight, groups=c)
        return y[:, :, ::2, ::2] if down == 2 else y

    return run


def contenders(op: str, taps: int, channels: int, act: str) -> dict[str, Op]:
    f = setup_filter(TAPS[taps])
    if op == "bias_act":
        native, ref = (
            lambda x, b, impl=impl: bias_act(x, b, act=act, impl=impl)  # type: ignore[misc]
            for impl in ("cpu", "ref")
        )
        if act != "lrelu":
            return {"ref": ref, "cpu": native}

        def step_by_step(x: Tensor, b: Tensor) -> Tensor:
            return F.leaky_relu(x + b.view(1, -1, 1, 1).to(x.dtype), 0.2) * 2**0.5

        return {"ref": ref, "naive": step_by_step, "cpu": native}
    func = {"up2": upsample2d, "down2": downsample2d, "blur": filter2d}[op]
    ours = {impl: lambda x, impl=impl: func(x, f, impl=impl) for impl in ("ref", "cpu")}  # type: ignore[misc]
    return {"ref": ours["ref"], "naive": naive(op, f), "cpu": ours["cpu"]}


def prepare(op: Op, kind: str, inputs: list[Tensor]) -> tuple[Callable[[], object], int]:
    """A call to be timed, and how many bytes it must at least read and write."""
    if kind == "forward":
        with torch.no_grad():
            y = op(*inputs)

        def forward() -> object:
            with torch.no_grad():
                return op(*inputs)

        return forward, nbytes(inputs[0], y)
    leaves = [t.detach().requires_grad_() for t in inputs]
    y = op(*leaves)
    dy = torch.randn_like(y).requires_grad_()
    biased = len(inputs) > 1
    if kind == "backward":
        dy = dy.detach()
        # bias_act reads the gradient and what tells the slope
        size = nbytes(dy, leaves[0], *([y] if biased else []))
        return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True), size
    (dx,) = torch.autograd.grad(y, leaves[:1], dy, create_graph=True)
    ddx = torch.randn_like(dx)
    size = nbytes(ddx, dy, *([y] if biased else []))
    return lambda: torch.autograd.grad(dx, dy, ddx, retain_graph=True), size


def check_naive() -> None:
    x = torch.randn(1, 2, 8, 8)
    for op in OPS[:3]:
        for taps in TAPS:
            ours = contenders(op, taps, 2, "")
            torch.testing.assert_close(ours["naive"](x), ours["ref"](x))
            torch.testing.assert_close(ours["cpu"](x), ours["ref"](x))


def nbytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def time_all(
    calls: dict[str, Callable[[], object]],
    rounds: int,
    budget: float,
    clock: Callable[[], float],
    quantile: float,
) -> dict[str, float]:
    """Seconds of each call; they take turns, for `rounds` rounds or `budget` seconds."""
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(2e-3 / max(time.perf_counter() - start, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    began = time.perf_counter()
    for i in range(rounds):
        if i >= 3 and time.perf_counter() - began > budget:
            break
        for name, call in calls.items():
            start = clock()
            for _ in range(repeats[name]):
                call()
            times[name].append((clock() - start) / repeats[name])
    return {name: float(np.quantile(t, quantile)) for name, t in times.items()}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--ops", multiple=True, type=click.Choice(OPS), default=OPS, help="May be repeated.")
@click.option("--passes", multiple=True, type=click.Choice(PASSES), default=PASSES, help="May be repeated.")
@click.option("--taps", type=click.Choice(["3", "4"]), default="4", help="[1,2,1] or [1,3,3,1].")
@click.option("--act", default="lrelu", help="Activation of bias_act.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), default="float32")
@click.option("--layout", type=click.Choice(["nchw", "nhwc"]), default="nchw")
@click.option("--size", multiple=True, type=int, help="Only these sizes of the larger image.")
@click.option("--rounds", default=25)
@click.option("--budget", default=6.0, help="Seconds for one row at most.")
@click.option("--threads", type=int, help="[default: torch's]")
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", help="cpu: for one thread.")
@click.option("--quantile", default=0.5, help="Of the rounds; 0.5 is the median.")
@click.option(
    "--simd", type=click.Choice(["avx512bf16", "avx512", "avx2", "base"]), help="[default: the best here]"
)
def main(
    ops: tuple[str, ...],
    passes: tuple[str, ...],
    taps: str,
    act: str,
    dtype: str,
    layout: str,
    size: tuple[int, ...],
    rounds: int,
    budget: float,
    threads: int | None,
    clock: str,
    quantile: float,
    simd: str | None,
) -> None:
    if clock == "cpu" and threads != 1:
        raise click.UsageError("--clock cpu counts one thread; add --threads 1")
    tune_malloc()  # as train.py does; without it each large result pays for its pages anew
    torch.manual_seed(0)
    if threads:
        torch.set_num_threads(threads)
    status = BACKENDS["cpu"].load()
    if not status.ready:
        raise SystemExit(f"no native kernels: {status.detail}; {status.remedy}")
    if simd:
        from cuda_ops.backends import use_simd

        use_simd(simd)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {simd or status.detail}, {dtype}, "
        f"{layout}, {taps} taps, {act}; milliseconds ({clock})"
    )
    check_naive()
    header = ("pass", "shape", "ref", "naive", "cpu", "copy", "ref/cpu", "naive/cpu", "cpu/copy")
    print(("{:8} {:9} {:>15} " + "{:>10} " * 7).format("op", *header))
    for op in ops:
        for kind in passes:
            for n, c, s in SHAPES:
                if size and s not in size:
                    continue
                run_row(op, kind, (n, c, s), int(taps), act, dtype, layout, rounds, budget, clock, quantile)


def run_row(
    op: str,
    kind: str,
    shape: tuple[int, int, int],
    taps: int,
    act: str,
    dtype: str,
    layout: str,
    rounds: int,
    budget: float,
    clock: str,
    quantile: float,
) -> None:
    n, c, s = shape
    side = s // 2 if op == "up2" else s
    x = torch.randn(n, c, side, side).to(getattr(torch, dtype))
    if layout == "nhwc":
        x = x.contiguous(memory_format=torch.channels_last)
    inputs = [x, torch.randn(c)] if op == "bias_act" else [x]
    calls: dict[str, Callable[[], object]] = {}
    size = 0
    for name, func in contenders(op, taps, c, act).items():
        calls[name], size = prepare(func, kind, inputs)
    source = torch.ones(size // 8)
    target = torch.ones(size // 8)
    calls["copy"] = lambda: target.copy_(source)
    t = time_all(calls, rounds, budget, time.thread_time if clock == "cpu" else time.perf_counter, quantile)
    cells = [f"{t[k] * 1e3:10.3f}" if k in t else " " * 10 for k in ("ref", "naive", "cpu", "copy")]
    ratios = [f"{t[k] / t['cpu']:10.1f}" if k in t else " " * 10 for k in ("ref", "naive")]
    ratios.append(f"{t['cpu'] / t['copy']:10.2f}")
    print(f"{op:8} {kind:9} {f'{n}x{c}x{s}x{s}':>15} " + " ".join([*cells, *ratios]), flush=True)


if __name__ == "__main__":
    main()
