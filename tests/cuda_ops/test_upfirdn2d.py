"""`upfirdn2d` and its helpers: values, gradients, types, layouts and errors, the same on each back end."""

import copy

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cuda_ops import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

IMAGE = torch.float64


pytestmark = pytest.mark.usefixtures("back_end")  # everything here holds for each back end


def _independent(x, f, up, down, padding, flip, gain):
    """The definition in numpy, on an image with so wide a margin of zeros that padding is but a slice."""
    (ux, uy), (dx, dy), (x0, x1, y0, y1) = up, down, padding
    f = np.asarray(f, dtype=np.float64)
    f = np.outer(f, f) if f.ndim == 1 else f
    f = f[::-1, ::-1] if flip else f
    n, c, h, w = x.shape
    margin = 64
    canvas = np.zeros((n, c, h * uy + 2 * margin, w * ux + 2 * margin))
    canvas[:, :, margin : margin + h * uy : uy, margin : margin + w * ux : ux] = x
    canvas = canvas[:, :, margin - y0 : margin + h * uy + y1, margin - x0 : margin + w * ux + x1]
    planes = [
        [scipy.signal.convolve2d(plane, f, mode="valid")[::dy, ::dx] for plane in image] for image in canvas
    ]
    return gain * np.array(planes)


@st.composite
def cases(draw, max_size=7):
    """Arguments that leave an output, every kind of padding (also one that leaves nothing of the image)."""
    size = st.integers(1, max_size)
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(size), draw(size))
    taps = draw(st.one_of(st.tuples(st.integers(1, 9)), st.tuples(st.integers(1, 5), st.integers(1, 5))))
    up, down = draw(pair), draw(pair)
    padding = tuple(draw(st.lists(st.integers(-6, 8), min_size=4, max_size=4)))
    fh, fw = taps[0], taps[-1]
    assume(shape[3] * up[0] + padding[0] + padding[1] >= fw)
    assume(shape[2] * up[1] + padding[2] + padding[3] >= fh)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return {
        "x": rng.standard_normal(shape),
        "f": rng.standard_normal(taps).astype(np.float32),
        "up": up,
        "down": down,
        "padding": padding,
        "flip": draw(st.booleans()),
        "gain": draw(st.sampled_from([1.0, 4.0, -0.5])),
    }


def _run(x, f, up, down, padding, flip, gain):
    return upfirdn2d(x, torch.from_numpy(f), up, down, padding, flip_filter=flip, gain=gain)


# ------------------------------------------------------------------------------------------------- values


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_values_equal_an_independent_implementation_for_any_arguments(case):
    want = torch.from_numpy(_independent(**case))
    got = _run(**{**case, "x": torch.from_numpy(case["x"])})
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 12),
    taps=st.integers(1, 10),
    up=st.integers(1, 4),
    down=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_one_row_equals_scipys_upfirdn(n, taps, up, down, seed):
    rng = np.random.default_rng(seed)
    row, f = rng.standard_normal(n), rng.standard_normal(taps).astype(np.float32)
    want = scipy.signal.upfirdn(f.astype(np.float64), row, up, down)
    x = torch.from_numpy(row).view(1, 1, 1, n)
    # scipy keeps every place that a pixel reaches, and puts no zeros after the last pixel.
    got = upfirdn2d(x, torch.from_numpy(f[None]), [up, 1], [down, 1], [taps - 1, taps - up, 0, 0])
    torch.testing.assert_close(got.flatten(), torch.from_numpy(want), rtol=1e-10, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_output_size_is_the_formula(case):
    y = _run(**{**case, "x": torch.from_numpy(case["x"])})
    for axis, k in ((3, 0), (2, 1)):
        taps = case["f"].shape[-1] if axis == 3 else case["f"].shape[0]
        pads = sum(case["padding"][2 * k : 2 * k + 2])
        down = case["down"][k]
        assert y.shape[axis] == (case["x"].shape[axis] * case["up"][k] + pads - taps + down) // down


def test_it_convolves_and_flip_filter_correlates():
    x = torch.zeros(1, 1, 1, 5)
    x[..., 2] = 1
    f = torch.tensor([[1.0, 2.0, 3.0]])
    assert upfirdn2d(x, f, padding=[1, 0]).flatten().tolist() == [0, 1, 2, 3, 0]
    assert upfirdn2d(x, f, padding=[1, 0], flip_filter=True).flatten().tolist() == [0, 3, 2, 1, 0]


def test_zeros_come_after_each_pixel_and_the_first_of_each_group_is_kept():
    x = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
    assert upfirdn2d(x, None, up=[3, 1]).flatten().tolist() == [1, 0, 0, 2, 0, 0, 3, 0, 0]
    assert upfirdn2d(x, None, down=[2, 1]).flatten().tolist() == [1, 3]


def test_padding_is_relative_to_the_upsampled_image_and_negative_crops():
    x = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    assert upfirdn2d(x, None, up=[2, 1], padding=[1, -1, 0, 0]).flatten().tolist() == [0, 1, 0, 2]


def test_a_crop_of_the_whole_image_leaves_the_zeros_padded_at_the_other_side():
    x = torch.ones(1, 2, 4, 4, requires_grad=True)
    y = upfirdn2d(x, setup_filter([1, 2, 1]), padding=[-6, 9, 0, 0])
    y.sum().backward()
    assert y.shape == (1, 2, 2, 5)
    assert not y.any()
    assert not x.grad.any()


def test_one_or_two_paddings_and_factors_spread_over_the_axes():
    x, f = torch.randn(1, 1, 6, 7), setup_filter([1, 2, 1])
    assert torch.equal(upfirdn2d(x, f, padding=2), upfirdn2d(x, f, padding=[2, 2, 2, 2]))
    assert torch.equal(upfirdn2d(x, f, padding=(1, 2)), upfirdn2d(x, f, padding=(1, 1, 2, 2)))
    assert upfirdn2d(x, f, up=(2, 3), padding=1).shape == (1, 1, 18, 14)
    assert upfirdn2d(x, f, down=(2, 3), padding=1).shape == (1, 1, 2, 4)


@pytest.mark.parametrize("taps", [4, 9])
def test_taps_along_both_axes_equal_their_outer_product(taps):
    x, f = torch.randn(2, 3, 12, 11, dtype=IMAGE), torch.randn(taps)
    outer = torch.outer(f.double(), f.double()).float()
    kwargs = {"up": 2, "down": [1, 3], "padding": [3, 5, 4, 4], "gain": 3}
    torch.testing.assert_close(upfirdn2d(x, f, **kwargs), upfirdn2d(x, outer, **kwargs), rtol=1e-5, atol=1e-5)


def test_no_filter_is_the_identity():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(upfirdn2d(x, None), x)


# ---------------------------------------------------------------------------------------------- gradients


@settings(max_examples=25, deadline=None)
@given(case=cases(max_size=4))
def test_first_and_second_order_gradients_are_right_for_any_arguments(case):
    x = torch.from_numpy(case.pop("x")).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: _run(x, **case), x, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: _run(x, **case), x, fast_mode=True)


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_the_gradient_is_the_transpose_of_the_op(case):
    x = torch.from_numpy(case.pop("x")).requires_grad_()
    y = _run(x, **case)
    v = torch.randn_like(y)
    (grad,) = torch.autograd.grad(y, x, v)
    torch.testing.assert_close((grad * x).sum(), (y * v).sum(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "kwargs", [{"padding": 1}, {"up": 2, "padding": [2, 1, 2, 1]}, {"down": 2, "padding": 1}]
)
def test_third_order_gradients_are_right(kwargs):
    f = setup_filter([1, 2, 3])
    x = torch.randn(1, 2, 3, 4, dtype=IMAGE, requires_grad=True)

    def second(x):
        y = upfirdn2d(x, f, **kwargs)
        (first,) = torch.autograd.grad(y.pow(4).sum(), x, create_graph=True)
        (out,) = torch.autograd.grad(first.pow(2).sum(), x, create_graph=True)
        return out

    assert torch.autograd.gradcheck(second, x, fast_mode=True)


def test_autograd_through_the_plain_convolution_agrees():
    f = setup_filter([1, 3, 3, 1])
    x = torch.randn(2, 3, 6, 6, dtype=IMAGE, requires_grad=True)
    (ours,) = torch.autograd.grad(upfirdn2d(x, f, down=2, padding=1).pow(2).sum(), x)
    y = torch.nn.functional.conv2d(x, f.double().expand(3, 1, 4, 4), padding=1, stride=2, groups=3)
    (plain,) = torch.autograd.grad(y.pow(2).sum(), x)
    torch.testing.assert_close(ours, plain)


def test_gradients_per_image_by_vmap_equal_those_one_by_one():
    f = setup_filter([1, 2, 1])
    x = torch.randn(2, 2, 4, 4, dtype=IMAGE)

    def energy(image):
        # Only the reference knows torch.func's transforms; impl="auto" picks it there by itself.
        return upfirdn2d(image[None], f, padding=1, impl="ref").pow(2).sum()

    each = torch.stack([torch.func.grad(energy)(image) for image in x])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(energy))(x), each)


def test_nothing_of_the_image_is_kept_for_the_backward_pass():
    kept = []
    x, f = torch.randn(1, 2, 8, 8, requires_grad=True), setup_filter([1, 2, 1])
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        upfirdn2d(x, f, padding=1)
    assert [t.shape for t in kept] == [f.shape]


# -------------------------------------------------------------------------------------- types and layouts


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kwargs", [{"padding": 1}, {"up": 2, "padding": [2, 1]}, {"down": 2, "padding": 1}])
def test_halves_are_computed_in_float32(dtype, kwargs):
    x, f = torch.randn(2, 3, 8, 8).to(dtype), setup_filter([1, 2, 1])
    y = upfirdn2d(x, f, **kwargs)
    assert y.dtype == dtype
    torch.testing.assert_close(y, upfirdn2d(x.float(), f, **kwargs).to(dtype), rtol=0, atol=0)


def test_autocast_does_not_lower_the_precision():
    x, f = torch.randn(2, 3, 8, 8), setup_filter([1, 2, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = upfirdn2d(x, f, padding=1)
    assert torch.equal(y, upfirdn2d(x, f, padding=1))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"padding": 1},
        {"padding": [1, 0, 2, 0]},
        {"padding": [-1, 1, -1, 1]},
        {"up": 2, "padding": [2, 1, 2, 1]},
        {"up": 2, "padding": [4, -1, 3, 5]},
        {"up": 2, "down": 2, "padding": 2},
        {"down": 2, "padding": 1},
    ],
)
@pytest.mark.parametrize("taps", [3, 9])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_is_kept_also_in_the_gradient(memory_format, taps, kwargs):
    f = setup_filter(torch.randn(taps).abs())
    x = torch.randn(2, 4, 12, 14).contiguous(memory_format=memory_format).requires_grad_()
    y = upfirdn2d(x, f, **kwargs)
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert y.is_contiguous(memory_format=memory_format)
    assert grad.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(y, upfirdn2d(x.contiguous(), f, **kwargs), check_stride=False)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_slice_of_a_larger_tensor_is_taken_as_it_is(memory_format):
    x = torch.randn(2, 4, 12, 14).contiguous(memory_format=memory_format)[:, :, 2:9, 3:]
    y = upfirdn2d(x, setup_filter([1, 2, 1]), padding=1)
    assert y.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(
        y, upfirdn2d(x.clone(), setup_filter([1, 2, 1]), padding=1), check_stride=False
    )


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
@pytest.mark.parametrize("kwargs", [{"padding": 1}, {"up": 2, "padding": [2, 1]}, {"down": 2, "padding": 1}])
def test_no_images_or_no_channels_give_empty_results_and_gradients(shape, kwargs):
    f = setup_filter([1, 2, 1])
    x = torch.zeros(shape, requires_grad=True)
    y = upfirdn2d(x, f, **kwargs)
    y.sum().backward()
    assert y.shape[:2] == shape[:2]
    assert y.shape[2:] == upfirdn2d(torch.zeros(1, 1, *shape[2:]), f, **kwargs).shape[2:]
    assert x.grad.shape == shape


def test_shapes_can_be_computed_without_data_on_the_meta_device():
    x = torch.empty(2, 3, 8, 8, device="meta")
    f = setup_filter([1, 2, 1], device="meta")
    assert upsample2d(x, f).shape == (2, 3, 16, 16)


def test_it_exports_and_compiles_with_its_gradient_to_one_graph():
    f = setup_filter([1, 2, 1])

    class Blur(torch.nn.Module):
        def forward(self, x):
            return upsample2d(x, f)

    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    want = upsample2d(x, f)
    torch.testing.assert_close(torch.export.export(Blur(), (x.detach(),)).module()(x.detach()), want.detach())
    y = torch.compile(Blur(), backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x), torch.autograd.grad(want.sum(), x))


# ------------------------------------------------------------------------------------------------ helpers


@pytest.mark.parametrize("taps", range(1, 7))
def test_filter2d_keeps_the_size(taps):
    f = setup_filter([1.0] * taps)
    x = torch.randn(1, 2, 9, 10)
    y = filter2d(x, f)
    assert y.shape == x.shape
    torch.testing.assert_close(y, upfirdn2d(x, f, padding=[taps // 2, (taps - 1) // 2] * 2))
    assert filter2d(x, f, padding=[1, 2]).shape == (1, 2, 13, 12)


@pytest.mark.parametrize("up", [2, 3, [2, 1], [1, 4]])
@pytest.mark.parametrize("taps", range(1, 9))
def test_upsample2d_multiplies_the_size_and_keeps_the_mean(taps, up):
    f = setup_filter([1.0] * taps)
    up_x, up_y = up if isinstance(up, list) else (up, up)
    y = upsample2d(torch.ones(1, 2, 20, 24), f, up=up)
    assert y.shape == (1, 2, 20 * up_y, 24 * up_x)
    if taps % up_x == 0 and taps % up_y == 0:  # every output then sees the same share of the taps
        torch.testing.assert_close(y[:, :, 8:-8, 8:-8], torch.ones_like(y[:, :, 8:-8, 8:-8]))


@pytest.mark.parametrize("down", [2, 3, [2, 1], [1, 4]])
@pytest.mark.parametrize("taps", range(1, 9))
def test_downsample2d_divides_the_size_and_keeps_the_mean(taps, down):
    f = setup_filter([1.0] * taps)
    down_x, down_y = down if isinstance(down, list) else (down, down)
    y = downsample2d(torch.ones(1, 2, 48, 48), f, down=down)
    assert y.shape == (1, 2, 48 // down_y, 48 // down_x)
    torch.testing.assert_close(y[:, :, 4:-4, 4:-4], torch.ones_like(y[:, :, 4:-4, 4:-4]))


def test_helpers_centre_the_filter():
    x = torch.randn(1, 1, 8, 8, dtype=IMAGE)
    f = setup_filter([1, 2, 1])
    flipped = x.flip([2, 3])
    torch.testing.assert_close(filter2d(flipped, f).flip([2, 3]), filter2d(x, f))
    even = setup_filter([1, 3, 3, 1])
    torch.testing.assert_close(upsample2d(flipped, even).flip([2, 3]), upsample2d(x, even))
    torch.testing.assert_close(downsample2d(flipped, even).flip([2, 3]), downsample2d(x, even))


def test_helpers_without_a_filter_repeat_zeros_and_pick_pixels():
    x = torch.arange(4.0).view(1, 1, 2, 2)
    assert torch.equal(filter2d(x, None), x)
    assert upsample2d(x, None).shape == (1, 1, 4, 4)
    assert downsample2d(x, None).shape == (1, 1, 1, 1)


# ------------------------------------------------------------------------------------------- setup_filter


def test_setup_filter_normalizes_and_makes_short_taps_two_dimensional():
    want = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    got = setup_filter([1, 2, 1])
    assert torch.equal(got, want)
    assert got.dtype == torch.float32


@pytest.mark.parametrize(("taps", "ndim"), [(7, 2), (8, 1)])
def test_setup_filter_keeps_taps_apart_from_eight_on(taps, ndim):
    f = setup_filter([1.0] * taps)
    assert f.ndim == ndim
    assert f.sum().item() == pytest.approx(1)


def test_setup_filter_takes_numbers_lists_arrays_tensors_and_nothing():
    assert setup_filter(None).tolist() == [[1.0]]
    assert setup_filter(3).tolist() == [[1.0]]
    for f in ([[1, 1], [1, 1]], np.ones((2, 2)), torch.ones(2, 2, dtype=torch.int64)):
        assert setup_filter(f).tolist() == [[0.25, 0.25], [0.25, 0.25]]


@pytest.mark.parametrize(
    "f", [torch.tensor([1.0, 2.0]), torch.ones(2, 2, dtype=torch.float64), np.ones(9, np.float32), [1, 2]]
)
@pytest.mark.parametrize("normalize", [True, False])
def test_setup_filter_never_changes_nor_shares_its_argument(f, normalize):
    before = copy.deepcopy(f)
    got = setup_filter(f, normalize=normalize, flip_filter=True, gain=3)
    got.fill_(7)
    assert np.array_equal(np.asarray(f), np.asarray(before))


def test_setup_filter_flips_and_scales():
    assert setup_filter([[1, 3]], normalize=False, flip_filter=True).tolist() == [[3, 1]]
    assert setup_filter([[1, 3]], gain=4).tolist() == [[1, 3]]
    f = setup_filter([1, 3], gain=4, separable=True)  # each of two passes has the root of the gain
    assert f.tolist() == [0.5, 1.5]
    assert torch.outer(f, f).sum().item() == 4


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"f": []}, r"f must have shape \[taps\] or \[fh, fw\], got \(0,\)"),
        ({"f": torch.ones(1, 1, 1)}, r"got \(1, 1, 1\)"),
        ({"f": torch.ones(2, 2), "separable": True}, "separable=True needs a 1-D f"),
        ({"f": [1, -1]}, "f sums to 0.0; it can't be normalized, pass normalize=False"),
        ({"f": [1, float("nan")]}, "f sums to nan"),
    ],
)
def test_setup_filter_names_what_is_wrong(kwargs, message):
    with pytest.raises(ValueError, match=f"^setup_filter: .*{message}"):
        setup_filter(**kwargs)


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"impl": "gpu"}, ValueError, "unknown impl 'gpu'"),
        ({"x": torch.zeros(4, 4)}, ValueError, r"x must have shape \[N, C, H, W\].*got \(4, 4\)"),
        ({"x": torch.zeros(1, 1, 0, 4)}, ValueError, r"x must have shape .* got \(1, 1, 0, 4\)"),
        ({"x": torch.zeros(1, 1, 4, 4, dtype=torch.uint8)}, TypeError, "x must be float32.*got torch.uint8"),
        (
            {"f": torch.ones(3, dtype=torch.float64)},
            TypeError,
            "f must be a float32 tensor, got torch.float64",
        ),
        ({"f": [1, 2, 1]}, TypeError, "f must be a float32 tensor, got list; setup_filter makes one"),
        (
            {"f": torch.ones(1, 1, 3)},
            ValueError,
            r"f must have shape \[taps\] or \[fh, fw\], got \(1, 1, 3\)",
        ),
        ({"f": torch.ones(3, requires_grad=True)}, ValueError, "f gets no gradient"),
        ({"f": torch.ones(3, device="meta")}, ValueError, "f is on meta, x on cpu"),
        ({"up": 0}, ValueError, r"up must be an int or \[x, y\], at least 1, got 0"),
        ({"up": [1, 2, 3]}, ValueError, r"up must be an int or \[x, y\]"),
        ({"down": 1.5}, ValueError, "down must be an int or a list of ints, got 1.5"),
        ({"down": []}, ValueError, "down must be an int or a list of ints"),
        ({"padding": [1, 2, 3]}, ValueError, r"padding must be an int, \[x, y\] or \[x0, x1, y0, y1\]"),
        ({"padding": -2}, ValueError, r"no output is left \(-2x-2\).*padding -2"),
        ({"f": torch.ones(9)}, ValueError, "no output is left"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(kwargs, error, message):
    with pytest.raises(error, match=f"^upfirdn2d: {message}"):
        upfirdn2d(**{"x": torch.zeros(1, 1, 4, 4), "f": torch.ones(3), **kwargs})
