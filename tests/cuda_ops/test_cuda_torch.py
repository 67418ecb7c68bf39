"""The CUDA kernels' own source, emulated and bound into torch: every test of the two ops runs through it.

On top of those come tests of what only kernels have: fast paths by width, alignment and padding, half types,
and the order of sums.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "harness"))

import cuda_harness

from cuda_ops import bias_act, upfirdn2d
from cuda_ops.backends import BACKENDS, add_backend, default_impl
from cuda_ops.library import define_operators

NAME = "emulated"
ACTS = ["linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish"]
pytestmark = pytest.mark.skipif(cuda_harness.compiler() is None, reason="no C++ compiler")


@pytest.fixture(scope="module", autouse=True)
def back_end() -> Iterator[str]:
    """``impl="auto"`` is the emulated kernels here, also in the tests taken over below."""
    namespace = "isg_emulated"
    if NAME not in BACKENDS:
        folder = Path(torch.__file__).parent
        library = cuda_harness.Harness().torch_library(namespace, folder, cuda_harness.CSRC / "bindings.cpp")
        operators = define_operators(namespace)
        torch.ops.load_library(str(library))
        add_backend(NAME, operators)
    with default_impl(NAME):
        yield NAME


def _take_over(module: str) -> None:
    """Collect the tests of a module here as well, where `back_end` is another one."""
    path = Path(__file__).with_name(f"{module}.py")
    spec = importlib.util.spec_from_file_location(f"emulated_{module}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    for name, test in vars(loaded).items():
        if name.startswith("test_"):
            globals()[f"{module}_{name[5:]}"] = test


_take_over("test_bias_act")
_take_over("test_upfirdn2d")


def test_the_kernels_are_what_runs(back_end: str) -> None:
    x = torch.randn(2, 3)
    with torch.profiler.profile() as profile:
        bias_act(x, act="relu")
        upfirdn2d(x.view(1, 1, 2, 3), torch.ones(2, 2))
    names = {event.name for event in profile.events()}
    assert {"isg_emulated::bias_act", "isg_emulated::upfirdn2d"} <= names
    assert "aten::convolution" not in names  # the reference's


# -------------------------------------------------------------------------------------------------- upfirdn2d


@pytest.mark.parametrize("taps", [2, 3, 4])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_an_infinite_pixel_is_never_hidden_and_reaches_at_most_three_results_further(
    taps: int, up: int, down: int
) -> None:
    x = torch.ones(1, 1, 16, 16)
    x[0, 0, 7, 8] = torch.inf
    f = torch.tensor([1.0, 2.0, 3.0, 1.0][:taps])
    got = upfirdn2d(x, f, up=up, down=down, padding=2)
    want = upfirdn2d(x, f, up=up, down=down, padding=2, impl="ref")
    reached, meant = ~got.isfinite(), ~want.isfinite()
    assert (reached | ~meant).all()
    nearby = torch.nn.functional.max_pool2d(meant.float(), 7, stride=1, padding=3) > 0
    assert (nearby | ~reached).all()
    if taps == 4:
        assert torch.equal(reached, meant)


TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}


@st.composite
def images(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments around the fast paths: factors of 1 and 2, up to 5 taps, widths by whole packs or not."""
    size = st.one_of(st.integers(1, 40), st.sampled_from([8, 16, 64, 128, 136]))
    height, width = draw(st.integers(1, 24)), draw(size)
    taps = draw(st.one_of(st.tuples(st.integers(1, 5)), st.tuples(st.integers(1, 4), st.integers(1, 4))))
    up, down = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2), (4, 2), (2, 4)]))
    padding = draw(st.lists(st.integers(-3, 5), min_size=4, max_size=4))
    assume(width * up + padding[0] + padding[1] >= taps[-1])
    assume(height * up + padding[2] + padding[3] >= taps[0])
    return {
        "shape": (draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 4])), height, width),
        "taps": taps,
        "dtype": draw(st.sampled_from(list(TOLERANCE))),
        "last": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**20)),
        "arguments": {
            "up": up,
            "down": down,
            "padding": padding,
            "flip_filter": draw(st.booleans()),
            "gain": draw(st.sampled_from([1.0, 4.0])),
        },
    }


@settings(max_examples=80, deadline=None)
@given(case=images())
def test_fast_paths_equal_the_reference(case: dict[str, Any]) -> None:
    torch.manual_seed(case["seed"])
    x = torch.randn(case["shape"]).to(case["dtype"])
    x = x.to(memory_format=torch.channels_last) if case["last"] else x
    f = torch.randn(case["taps"])
    got = upfirdn2d(x, f, **case["arguments"])
    want = upfirdn2d(x.double(), f, **case["arguments"], impl="ref")
    tolerance = TOLERANCE[case["dtype"]] * (1 + want.abs().max())
    assert got.dtype == x.dtype
    assert got.shape == want.shape
    last = case["last"] and x.shape[1] > 1 and not x.is_contiguous()
    assert got.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    assert (got.double() - want).abs().max() <= tolerance


@settings(max_examples=25, deadline=None)
@given(
    up_down=st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2)]),
    taps=st.sampled_from([(4, 4), (3, 4), (4,), (2,)]),
    width=st.sampled_from([3, 4, 8]),
    padding=st.lists(st.integers(-1, 4), min_size=4, max_size=4),
    last=st.booleans(),
    flip=st.booleans(),
)
def test_gradients_of_fast_paths_to_second_order(
    up_down: tuple[int, int], taps: tuple[int, ...], width: int, padding: list[int], last: bool, flip: bool
) -> None:
    up, down = up_down
    assume(width * up + padding[0] + padding[1] >= taps[-1])
    assume(4 * up + padding[2] + padding[3] >= taps[0])
    x = torch.randn(1, 4, 4, width, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last) if last else x
    f = torch.randn(taps)

    def op(x: torch.Tensor) -> torch.Tensor:
        return upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip)

    assert torch.autograd.gradcheck(op, x.requires_grad_(), fast_mode=True)
    assert torch.autograd.gradgradcheck(op, x, fast_mode=True)


# --------------------------------------------------------------------------------------------------- bias_act


@settings(max_examples=80, deadline=None)
@given(
    act=st.sampled_from(ACTS),
    shape=st.sampled_from(
        [(3, 4, 5, 7), (2, 8, 4, 4), (2, 3, 9, 16), (40, 12), (7, 3), (2, 4, 6), (70, 3, 4, 8)]
    ),
    dtype=st.sampled_from(list(TOLERANCE)),
    last=st.booleans(),
    with_bias=st.booleans(),
    clamp=st.sampled_from([None, 0.5]),
    seed=st.integers(0, 2**20),
)
def test_values_and_gradients_equal_the_reference(
    act: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    last: bool,
    with_bias: bool,
    clamp: float | None,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    # Multiples of 1/16 that are no multiples of 1/8: away from kinks, and exact in every type.
    x = ((torch.randint(-16, 16, shape) * 2 + 1) / 16).to(dtype)
    if last and x.ndim == 4:
        x = x.to(memory_format=torch.channels_last)
    b = torch.randint(-4, 5, (shape[1],)) / 8
    dy = torch.randn(shape).to(dtype)
    results = []
    for impl, kind in ((NAME, dtype), ("ref", torch.float64)):
        xi = x.detach().clone().to(kind).requires_grad_()
        bi = b.to(torch.float32 if kind != torch.float64 else kind).requires_grad_() if with_bias else None
        y = bias_act(xi, bi, act=act, clamp=clamp, impl=impl)
        wanted = [xi] if bi is None else [xi, bi]
        grads = torch.autograd.grad(y, wanted, dy.to(kind), create_graph=True)
        second: tuple[torch.Tensor | None, ...] = (None,) * len(wanted)
        if grads[0].requires_grad:  # that of a linear one is constant
            second = torch.autograd.grad(grads[0].float().pow(2).sum(), wanted, allow_unused=True)
        second = tuple(torch.zeros_like(t) if g is None else g for g, t in zip(second, wanted))
        results.append([y, *grads, *second])
    sums = shape[0] * max(1, x[0, 0].numel())
    for got, want in zip(*results):
        scale = 1 + want.abs().max() + (sums**0.5 if want.ndim == 1 else 0)
        assert got.shape == want.shape
        assert (got.double() - want).abs().max() <= 4 * TOLERANCE[dtype] * scale


@settings(max_examples=20, deadline=None)
@given(
    act=st.sampled_from(ACTS),
    shape=st.sampled_from([(2, 3, 2, 4), (2, 3), (3, 4, 3), (2, 4, 1, 2)]),
    last=st.booleans(),
    clamp=st.sampled_from([None, 0.6]),
)
def test_gradients_to_second_order(act: str, shape: tuple[int, ...], last: bool, clamp: float | None) -> None:
    torch.manual_seed(0)
    x = (torch.randint(-16, 16, shape) * 2 + 1).double() / 16
    if last and x.ndim == 4:
        x = x.to(memory_format=torch.channels_last)
    b = torch.randint(-4, 5, (shape[1],)).double() / 8

    def op(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return bias_act(x, b, act=act, clamp=clamp)

    inputs = (x.requires_grad_(), b.requires_grad_())
    assert torch.autograd.gradcheck(op, inputs)
    assert torch.autograd.gradgradcheck(op, inputs)


def test_bias_gradients_are_the_same_at_each_run() -> None:
    x = torch.randn(9, 8, 20, 20).requires_grad_()
    b = torch.randn(8, requires_grad=True)
    y = bias_act(x, b, act="lrelu")
    dy = torch.randn_like(y)
    first, *others = (torch.autograd.grad(y, b, dy, retain_graph=True)[0] for _ in range(3))
    assert all(torch.equal(first, other) for other in others)
