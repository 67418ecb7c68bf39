"""What the CPU kernels and the operators promise beyond the contract that each back end is tested for.

Agreement with the reference at every instruction set, third order, the same bits with any number of threads,
compilers, exports, autocast.
"""

from __future__ import annotations

import contextlib
import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cuda_ops import bias_act, build, filter2d, reference, setup_filter, upfirdn2d, upsample2d
from cuda_ops.backends import BACKENDS, OPERATORS, use_simd
from cuda_ops.library import define_operators
from cuda_ops.reference import PIECEWISE_LINEAR, Axis

ACTS = list(reference.ACTIVATIONS)
SMOOTH = [act for act in ACTS if act not in PIECEWISE_LINEAR]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
SIMD = ["avx512bf16", "avx512", "avx2", "base"]
PLAIN = define_operators("infostylegan_without_kernels")


@pytest.fixture(scope="module", autouse=True)
def _native():
    if not BACKENDS["cpu"].load().ready:
        pytest.skip(f"no native CPU kernels: {BACKENDS['cpu'].load().detail}")


@contextlib.contextmanager
def kernels_for(simd):
    try:
        use_simd(simd)
    except build.BuildError as error:
        pytest.skip(str(error))
    try:
        yield
    finally:
        use_simd(None)


def assert_equal_but_for_rounding(got, want, dtype, scale=1.0):
    """`want` is computed in float64; `scale` is that of the numbers that were added up to it."""
    assert got.dtype == dtype
    assert got.shape == want.shape
    eps = torch.finfo(dtype).eps
    half = dtype in (torch.float16, torch.bfloat16)
    torch.testing.assert_close(
        got.double(), want, rtol=0.51 * eps if half else 16 * eps, atol=16 * scale * min(eps, 2.0**-23)
    )


def images(dtype, shape, layout, seed):
    """Random numbers in the layout "nchw", "nhwc", or as a "slice" or "transpose" of another tensor."""
    generator = torch.Generator().manual_seed(seed)
    n, c, h, w = shape
    if layout == "slice":
        return torch.randn(n, c + 1, h + 1, w + 3, generator=generator).to(dtype)[:, 1:, 1:, 2 : w + 2]
    if layout == "transpose":
        return torch.randn(n, c, w, h, generator=generator).to(dtype).transpose(2, 3)
    x = torch.randn(shape, generator=generator).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if layout == "nhwc" else x


LAYOUTS = st.sampled_from(["nchw", "nhwc", "slice", "transpose"])


# -------------------------------------------------------------------------------------- against the reference


@pytest.mark.parametrize("simd", SIMD)
@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 12), st.integers(1, 40))
    | st.tuples(st.just(1), st.integers(1, 2), st.integers(1, 12), st.integers(30, 140)),  # several vectors
    dtype=st.sampled_from(DTYPES),
    layout=LAYOUTS,
    taps=st.one_of(st.tuples(st.integers(1, 9)), st.tuples(st.integers(1, 5), st.integers(1, 5))),
    separable=st.booleans(),
    up=st.tuples(st.integers(1, 4), st.integers(1, 4)) | st.sampled_from([(1, 1), (2, 2)]),
    down=st.tuples(st.integers(1, 4), st.integers(1, 4)) | st.sampled_from([(1, 1), (2, 2)]),
    padding=st.lists(st.integers(-6, 8), min_size=4, max_size=4),
    flip=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_upfirdn2d_is_the_reference(
    simd, shape, dtype, layout, taps, separable, up, down, padding, flip, seed
):
    generator = torch.Generator().manual_seed(seed)
    f = torch.randn(taps, generator=generator)
    if separable and len(taps) == 2:
        f = torch.outer(torch.randn(taps[0], generator=generator), torch.randn(taps[1], generator=generator))
    axes = Axis(up[0], down[0], *padding[:2]), Axis(up[1], down[1], *padding[2:])
    assume(axes[0].out_size(shape[3], f.shape[-1]) > 0)
    assume(axes[1].out_size(shape[2], f.shape[0]) > 0)
    x = images(dtype, shape, layout, seed)
    with kernels_for(simd):
        got = upfirdn2d(x, f, up, down, padding, flip_filter=flip, gain=1.5, impl="cpu")
    want = reference.upfirdn2d(x.double(), f, *axes, flip, 1.5)
    scale = 5 * float(f.abs().sum()) ** (3 - f.ndim)
    assert_equal_but_for_rounding(got, want, dtype, max(scale, 1.0))


@pytest.mark.parametrize("simd", SIMD)
@settings(max_examples=120, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 6), st.integers(1, 40)),
    dtype=st.sampled_from(DTYPES),
    layout=LAYOUTS,
    dim=st.integers(0, 3),
    act=st.sampled_from(ACTS),
    biased=st.booleans(),
    gain=st.sampled_from([1.5, -0.5]),
    clamp=st.none() | st.just(0.71234567),
    seed=st.integers(0, 2**32 - 1),
)
def test_bias_act_and_its_derivatives_are_the_reference(
    simd, shape, dtype, layout, dim, act, biased, gain, clamp, seed
):
    x = images(dtype, shape, layout, seed)
    dy = images(dtype, shape, "nchw", seed + 1)
    ddx = images(dtype, shape, layout, seed + 2)
    b = torch.linspace(-1.013, 1.027, shape[dim], dtype=torch.float64) if biased else None
    ddb = torch.linspace(0.5, -0.5, shape[dim], dtype=torch.float64)
    math_of_it = (dim, act, 0.2, gain, clamp)
    with kernels_for(simd):
        y = OPERATORS.bias_act(x, b, *math_of_it)
        dx, db = OPERATORS.bias_act_backward(dy, ddb, x, b, *math_of_it, False, True)
        double = OPERATORS.bias_act_double_backward(ddx, ddb, dy, x, b, *math_of_it, True)
    wide = x.double()
    want = reference.bias_act(wide, b, *math_of_it)
    assert y.stride() == x.stride() or layout in ("slice", "transpose")
    assert_equal_but_for_rounding(y, want, dtype, 10)
    if clamp is not None:
        # Whether a gradient passes is a matter of the last bit where the result lies next to the clamp.
        free = reference.bias_act(wide, b, dim, act, 0.2, gain, None).abs()
        assume(((free - clamp).abs() > 1e-5).all())
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    elements = x.numel() // shape[dim]
    want_dx, want_db = reference.bias_act_backward(dy.double(), ddb, wide, b, *math_of_it, False)
    assert_equal_but_for_rounding(dx, want_dx, dtype, 10)
    assert_equal_but_for_rounding(db, want_db, acc, 10 * math.sqrt(elements))
    if act in SMOOTH:
        want_double = reference.bias_act_double_backward(ddx.double(), ddb, dy.double(), wide, b, *math_of_it)
        assert_equal_but_for_rounding(double[0], want_double[0], dtype, 10)
        assert_equal_but_for_rounding(double[1], want_double[1], dtype, 40)
        assert_equal_but_for_rounding(double[2], want_double[2], acc, 40 * math.sqrt(elements))


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_number_is_read_and_rounded_as_torch_does(simd, dtype):
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    # Between two neighbours, in the middle of them (ties go to the even one) and beyond the largest.
    wide = x.float()
    factor = 1.0 + torch.finfo(dtype).eps / 2
    with kernels_for(simd):
        same = OPERATORS.bias_act(x, None, 0, "linear", 0.0, 1.0, None)
        scaled = OPERATORS.bias_act(x, None, 0, "linear", 0.0, factor, None)
        tiny = OPERATORS.bias_act(x, None, 0, "linear", 0.0, 2.0**-9, None)
    for got, exact in ((same, wide), (scaled, wide * factor), (tiny, wide * 2.0**-9)):
        if simd == "avx512bf16" and dtype == torch.bfloat16:  # it has no subnormal numbers
            exact = torch.where(exact.abs() < torch.finfo(dtype).tiny, exact.sign() * 0.0, exact)
        torch.testing.assert_close(got, exact.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("act", SMOOTH)
def test_smooth_activations_are_right_over_their_whole_range(simd, act):
    x = torch.cat([torch.linspace(-120, 120, 4001), torch.logspace(-30, 0, 200), torch.tensor([math.inf])])
    x = torch.cat([x, -x])
    x = x if act != "swish" else x[x != -math.inf]  # 0 · inf, in the reference too
    with kernels_for(simd):
        got = OPERATORS.bias_act(x, None, 0, act, 0.0, 1.0, None)
        one = torch.ones_like(x)
        slope, _ = OPERATORS.bias_act_backward(one, None, x, None, 0, act, 0.0, 1.0, None, False, False)
    wide = x.double()
    want = reference.bias_act(wide, None, 0, act, 0.0, 1.0, None)
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-37)
    finite = wide[wide.isfinite()]
    want_slope, _ = reference.bias_act_backward(
        torch.ones_like(finite), None, finite, None, 0, act, 0.0, 1.0, None, False
    )
    torch.testing.assert_close(slope[wide.isfinite()].double(), want_slope, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------------------------------------- orders, edges


@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("act", ACTS)
def test_third_order_gradients_are_right(act, clamp):
    x = torch.linspace(-2.3, 2.6, 12, dtype=torch.float64).view(2, 3, 2).requires_grad_()
    b = torch.tensor([-0.3, 0.1, 0.4], dtype=torch.float64, requires_grad=True)

    def second(x, b):
        y = bias_act(x, b, act=act, gain=1.3, clamp=clamp, impl="cpu")
        gx, gb = torch.autograd.grad(y.pow(3).sum(), (x, b), create_graph=True)
        return torch.autograd.grad(gx.pow(3).sum() + gb.pow(2).sum(), (x, b), create_graph=True)

    assert torch.autograd.gradcheck(second, (x, b), fast_mode=True)


@settings(max_examples=30, deadline=None)
@given(
    act=st.sampled_from(ACTS),
    layout=LAYOUTS,
    dim=st.integers(0, 3),
    gain=st.sampled_from([1.3, -0.6]),
    clamp=st.none() | st.just(0.83),
    seed=st.integers(0, 2**32 - 1),
)
def test_first_and_second_order_gradients_of_bias_act_are_right_for_any_arguments(
    act, layout, dim, gain, clamp, seed
):
    x = images(torch.float64, (2, 3, 2, 3), layout, seed)
    b = torch.randn(x.shape[dim], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    u = x + reference.along(b, dim, 4)
    kinks = [u] if clamp is None else [u, (gain * reference._activation(u, act, 0.2)).abs() - clamp]
    assume(all((k.abs() > 1e-3).all() for k in kinks))
    x, b = x.detach().requires_grad_(), b.requires_grad_()

    def op(x, b):
        return bias_act(x, b, dim=dim, act=act, gain=gain, clamp=clamp, impl="cpu")

    assert torch.autograd.gradcheck(op, (x, b), fast_mode=True)
    assert torch.autograd.gradgradcheck(op, (x, b), fast_mode=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", ACTS)
def test_nan_is_never_hidden_in_a_gradient(act, dtype):
    x = torch.tensor([[math.nan, 1.0]], dtype=dtype, requires_grad=True)
    y = bias_act(x, None, act=act, clamp=0.5, impl="cpu")
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.isnan().tolist() == [[True, False]]


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("taps", [1, 2, 3, 4])
def test_rows_of_every_length_around_that_of_vectors_are_filtered_whole(simd, dtype, taps):
    f = torch.tensor([0.5, -1.0, 2.0, 0.25][:taps])
    with kernels_for(simd):
        for width in (1, 2, 4, 5, 7, 8, 9, 15, 16, 17, 30, 31, 32, 33, 47, 64, 65):
            x = images(dtype, (2, 3, 6, width), "nchw", width)
            for up, down, left in itertools.product((1, 2), (1, 2), (0, 1, 2, 3)):
                right = (left + 1, 20, -3)[(width + left) % 3]  # as wide, wider than a vector, cropped
                if width * up + left + right < taps:
                    continue
                padding = [left, right, left - 1, left]
                got = upfirdn2d(x, f, up=up, down=down, padding=padding, impl="cpu")
                want = upfirdn2d(x.double(), f, up=up, down=down, padding=padding, impl="ref")
                assert_equal_but_for_rounding(got, want, dtype, scale=16.0)


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("taps", [3, 4])
def test_tall_planes_have_no_seams(simd, taps):
    x, f = torch.randn(1, 1, 301, 130), torch.rand(taps)
    with kernels_for(simd):
        pairs = [(op(x, f, impl="cpu"), op(x.double(), f, impl="ref")) for op in (filter2d, upsample2d)]
    for got, want in pairs:
        assert_equal_but_for_rounding(got, want, torch.float32, 5)


@pytest.mark.parametrize("simd", SIMD)
def test_images_that_are_written_past_the_cache_are_right_in_bfloat16(simd):
    x, f = torch.randn(1, 8, 512, 512, generator=torch.Generator().manual_seed(0)).bfloat16(), torch.rand(4)
    b = torch.linspace(-1, 1, 8).double()
    with kernels_for(simd):
        blurred, larger, y = (
            filter2d(x, f, impl="cpu"),
            upsample2d(x[:, :2], f, impl="cpu"),
            bias_act(x, b.bfloat16(), act="lrelu", impl="cpu"),
        )
    wide = x.double()
    assert_equal_but_for_rounding(blurred, filter2d(wide, f, impl="ref"), torch.bfloat16, 5)
    assert_equal_but_for_rounding(larger, upsample2d(wide[:, :2], f, impl="ref"), torch.bfloat16, 5)
    want = bias_act(wide, b.bfloat16().double(), act="lrelu", impl="ref")
    assert_equal_but_for_rounding(y, want, torch.bfloat16, 5)


@pytest.mark.parametrize("simd", SIMD)
def test_a_filter_whose_taps_all_fall_between_pixels_gives_zeros(simd):
    with kernels_for(simd):
        y = upfirdn2d(torch.ones(1, 1, 1, 1), torch.ones(1), up=2, down=2, padding=[3, -3, 3, -3], impl="cpu")
        assert y.tolist() == [[[[0.0]]]]


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("width", [5, 16, 32, 40])
def test_an_infinite_pixel_reaches_just_those_results_whose_taps_meet_it(simd, width):
    with kernels_for(simd):
        for taps, padding in itertools.product((2, 3, 4), (0, 1, 2)):
            for up, down in ((2, 1), (1, 2), (1, 1)):
                for bad in (0, 3, width - 1):
                    x = torch.ones(1, 1, width, width)
                    x[0, 0, bad, bad] = math.inf
                    f = setup_filter([1.0, 2.0, 3.0, 1.0][:taps])
                    got = upfirdn2d(x, f, up=up, down=down, padding=padding, impl="cpu")
                    want = upfirdn2d(x, f, up=up, down=down, padding=padding, impl="ref")
                    assert not got.isnan().any()
                    assert torch.equal(got.isinf(), want.isinf())


def test_nothing_is_multiplied_by_pixels_that_a_filter_does_not_reach():
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = math.inf
    y = upsample2d(x, setup_filter([1, 2, 1]), impl="cpu")
    assert y.isnan().sum() == 0
    assert y.isinf().sum() == upsample2d(x, setup_filter([1, 2, 1]), impl="ref").isinf().sum() == 9


def test_a_gradient_that_is_one_number_for_all_is_taken():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    for y in (bias_act(x, None, act="lrelu", impl="cpu"), filter2d(x, setup_filter([1, 2, 1]), impl="cpu")):
        (grad,) = torch.autograd.grad(y.sum(), x)  # of stride 0
        assert grad.is_contiguous()


def test_a_penalty_on_the_gradient_of_the_bias_alone_reaches_x():
    x, b = torch.randn(2, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    found = []
    for impl in ("cpu", "ref"):
        (gb,) = torch.autograd.grad(bias_act(x, b, act="tanh", impl=impl).sum(), b, create_graph=True)
        found.append(torch.autograd.grad(gb.square().sum(), (x, b)))
    torch.testing.assert_close(found[0], found[1])


def test_lrelu_keeps_its_result_and_no_input_for_the_backward_pass():
    kept = []
    x = torch.randn(2, 3, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = bias_act(x, torch.zeros(3), act="lrelu", impl="cpu")
    assert [t.data_ptr() for t in kept] == [y.data_ptr()]


# ---------------------------------------------------------------------------------------------- determinism


def test_results_are_the_same_bits_whatever_the_number_of_threads():
    x = torch.randn(3, 40, 64, 64)
    f = setup_filter([1, 3, 3, 1])
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for layout in (torch.contiguous_format, torch.channels_last):
                image = x.contiguous(memory_format=layout)
                dx, db = OPERATORS.bias_act_backward(
                    image, None, image, None, 1, "tanh", 0.0, 1.0, None, False, True
                )
                found.append((threads, layout, dx, db, upsample2d(image, f, impl="cpu")))
    finally:
        torch.set_num_threads(before)
    for _, layout, *results in found[2:]:
        first = next(r for _, other, *r in found if other == layout)
        assert all(torch.equal(a, b) for a, b in zip(results, first))


# ---------------------------------------------------------------------------------------------- torch's tools


@pytest.mark.parametrize("operators", [OPERATORS, PLAIN], ids=["kernels", "plain torch"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_torch_finds_no_fault_with_the_operators(operators, layout):
    x = images(torch.float32, (2, 3, 4, 6), layout, 0).requires_grad_()
    other = images(torch.float32, (2, 3, 4, 6), layout, 1).requires_grad_()
    b = torch.randn(3, requires_grad=True)
    smooth, kinked = (1, "swish", 0.0, 1.4, 2.0), (1, "lrelu", 0.2, 1.4, None)
    for call, arguments in (
        (operators.bias_act, (x, b, *smooth)),
        (operators.bias_act, (x, None, *kinked)),
        (operators.bias_act_backward, (other, None, x, b, *smooth, False, True)),
        (operators.bias_act_backward, (other, b, x.detach(), None, *kinked, True, False)),
        (operators.bias_act_double_backward, (x, None, other, x, b, *smooth, True)),
        (operators.upfirdn2d, (x, torch.randn(3, 2), [2, 1], [1, 3], [1, 2, 0, -1], False, 2.0)),
        (operators.upfirdn2d, (x, torch.randn(9), [1, 1], [1, 1], [9, 9, 9, 9], True, 2.0)),
    ):
        torch.library.opcheck(call, arguments)


def test_plain_torch_and_kernels_give_one_answer():
    x, b, f = torch.randn(2, 3, 5, 5), torch.randn(3), torch.randn(4)
    arguments = (x, f, [2, 2], [1, 1], [2, 1, 2, 1], False, 4.0)
    torch.testing.assert_close(OPERATORS.upfirdn2d(*arguments), PLAIN.upfirdn2d(*arguments))
    arguments = (x, x, b, 1, "elu", 0.0, 1.0, None)
    for got, want in zip(
        OPERATORS.bias_act_backward(x, None, *arguments[1:], False, True),
        PLAIN.bias_act_backward(x, None, *arguments[1:], False, True),
    ):
        torch.testing.assert_close(got, want)


class Layer(torch.nn.Module):
    def __init__(self, impl):
        super().__init__()
        self.impl = impl
        self.bias = torch.nn.Parameter(torch.tensor([0.1, -0.2, 0.3]))
        self.register_buffer("f", setup_filter([1, 2, 1]))

    def forward(self, x):
        return bias_act(upsample2d(x, self.f, impl=self.impl), self.bias, act="swish", impl=self.impl)


@pytest.mark.parametrize("impl", ["cpu", "auto"])
def test_it_compiles_to_one_graph_with_sizes_that_vary(impl):
    layer = Layer(impl)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in (4, 6):
        x = torch.randn(2, 3, size, 5, requires_grad=True)
        y, want = compiled(x), layer(x)
        torch.testing.assert_close(y, want)
        for got, expected in zip(
            torch.autograd.grad(y.sum(), [x, layer.bias]), torch.autograd.grad(want.sum(), [x, layer.bias])
        ):
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("impl", "native"), [("cpu", True), ("auto", False)])
def test_an_export_holds_operators_if_asked_to_and_else_plain_torch(impl, native):
    layer, x = Layer(impl), torch.randn(2, 3, 4, 4)
    program = torch.export.export(layer, (x,))
    assert any("infostylegan" in str(node.target) for node in program.graph.nodes) == native
    torch.testing.assert_close(program.module()(x), layer(x))


@pytest.mark.filterwarnings("ignore")  # of what a trace can't see, and of its age
def test_a_trace_holds_plain_torch():
    layer, x = Layer("auto").eval(), torch.randn(2, 3, 4, 4)
    traced = torch.jit.trace(layer, (x,), check_trace=False)
    assert all("infostylegan" not in node.kind() for node in traced.inlined_graph.nodes())
    torch.testing.assert_close(traced(x), layer(x))


def test_autocast_changes_neither_types_nor_numbers():
    x, b = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(3, requires_grad=True)

    def run():
        y = bias_act(filter2d(x, setup_filter([1, 2, 1]), impl="cpu"), b, act="swish", impl="cpu")
        (gx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return y, gx, *torch.autograd.grad(gx.square().sum(), (x, b))

    want = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run()
    for a, e in zip(got, want):
        assert a.dtype == torch.float32
        assert torch.equal(a, e)


def test_a_transform_of_torch_func_says_that_it_cannot_go_through_the_kernels():
    x = torch.randn(2, 1, 3, 8, 8)
    for op in (
        lambda x: bias_act(x, act="tanh", impl="cpu"),
        lambda x: filter2d(x, setup_filter([1, 2, 1]), impl="cpu"),
    ):
        with pytest.raises(RuntimeError, match=r"torch.func's transforms .* use impl='auto'"):
            torch.func.vmap(op)(x)
        with pytest.raises(RuntimeError, match=r"torch.func's transforms .* use impl='auto'"):
            torch.func.grad(lambda x, op=op: op(x).sum())(x[0])


def test_transforms_of_torch_func_run_on_the_reference_by_themselves():
    f = setup_filter([1, 2, 1])
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)

    def energy(image):
        return bias_act(filter2d(image[None], f), act="tanh").square().sum()

    each = torch.stack([torch.func.grad(energy)(image) for image in x])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(energy))(x), each)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: OPERATORS.bias_act(x, torch.zeros(4), 1, "linear", 0, 1, None), "b of shape"),
        (lambda x: OPERATORS.bias_act(x, None, 1, "gelu", 0, 1, None), "unknown act 'gelu'"),
        (
            lambda x: OPERATORS.bias_act_backward(
                x[:, :2], None, x, None, 1, "relu", 0, 1, None, False, False
            ),
            "dy must have shape",
        ),
        (
            lambda x: OPERATORS.bias_act_backward(x, None, x, None, 1, "tanh", 0, 1, None, True, False),
            "the output tells the slope",
        ),
        (lambda x: OPERATORS.bias_act(x.int(), None, 1, "relu", 0, 1, None), "float32, float16"),
        (
            lambda x: OPERATORS.upfirdn2d(x, torch.ones(9), [1, 1], [1, 1], [0, 0, 0, 0], False, 1),
            "no output is left",
        ),
        (
            lambda x: OPERATORS.upfirdn2d(x, torch.ones(3).double(), [1, 1], [1, 1], [0] * 4, False, 1),
            "float32",
        ),
    ],
)
def test_the_bindings_refuse_what_would_read_beyond_a_tensor(call, message):
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        call(torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize("name", ["bias_act", "upfirdn2d"])
def test_both_ops_go_through_onnx_in_plain_operators_and_give_the_same_numbers(name, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    f = setup_filter([1, 3, 3, 1])

    class Net(torch.nn.Module):
        def forward(self, x):
            if name == "bias_act":
                return bias_act(x, torch.linspace(-1, 1, 3), act="lrelu", clamp=0.7)
            up = upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1], gain=4)
            return upfirdn2d(up, f, down=2, padding=[1, 1, 1, 1], flip_filter=True)

    x = torch.randn(2, 3, 8, 8)
    path = tmp_path / "net.onnx"
    torch.onnx.export(Net(), (x,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), Net()(x), rtol=1e-5, atol=1e-5)
