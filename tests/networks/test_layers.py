"""Facts about the layers: equalised learning rate, fused resampling, normalisation, channel plan."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from infostylegan.networks.layers import (
    Blur,
    ChannelPlan,
    EqualizedConv2d,
    EqualizedLinear,
    box_downsample,
    lrelu,
    nearest_upsample,
    pixel_norm,
    resolutions_up_to,
)

SIZES = st.integers(1, 5)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- equalised learning rate ---------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "multiplier"), [(math.sqrt(2), 1.0), (1.0, 1.0), (math.sqrt(2), 0.01)])
def test_a_dense_layer_is_gain_over_root_fan_in_times_a_normal_weight(gain, multiplier):
    torch.manual_seed(0)
    layer = EqualizedLinear(300, 200, gain=gain, lr_multiplier=multiplier)
    weight = layer.weight.detach().double()
    # 60,000 draws: the standard deviation is known to 1 / sqrt(120,000) = 0.3 %.
    assert weight.std() * multiplier == pytest.approx(1, rel=0.012)
    assert weight.mean() * multiplier == pytest.approx(0, abs=0.02)
    assert (layer.bias == 0).all()
    layer.bias.data.normal_()
    x = normal(7, 300)
    expected = x @ weight.T * (gain / math.sqrt(300) * multiplier) + layer.bias.detach().double() * multiplier
    torch.testing.assert_close(layer.double()(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("resample", ["", "up", "down"])
def test_a_convolution_is_gain_over_root_fan_in_times_a_normal_weight(resample):
    torch.manual_seed(0)
    layer = EqualizedConv2d(40, 50, resample=resample)
    assert layer.weight.std().item() == pytest.approx(1, rel=0.02)
    assert layer.weight_scale == pytest.approx(math.sqrt(2) / math.sqrt(40 * 9), rel=1e-12)
    assert EqualizedConv2d(40, 3, 1, gain=1.0).weight_scale == pytest.approx(1 / math.sqrt(40), rel=1e-12)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_a_lower_lr_multiplier_slows_adam_down_by_just_that_factor():
    moved = {}
    for multiplier in (1.0, 0.01):
        torch.manual_seed(0)
        layer = EqualizedLinear(16, 8, lr_multiplier=multiplier)
        x, optimizer = torch.ones(1, 16), torch.optim.Adam(layer.parameters(), lr=0.001)
        before = layer(x).detach()
        layer(x).sum().backward()
        optimizer.step()
        moved[multiplier] = (layer(x) - before).detach()
    torch.testing.assert_close(moved[0.01], moved[1.0] * 0.01, rtol=1e-2, atol=1e-6)


def test_untrained_layers_keep_the_mean_square_of_their_input():
    torch.manual_seed(0)
    x = torch.randn(4, 64, 16, 16)
    for resample in ("", "up"):
        y = lrelu(EqualizedConv2d(64, 256, resample=resample)(x), torch.zeros(256))[:, :, 2:-2, 2:-2]
        # Nearest upsampling makes neighbours equal, which leaves the mean square of a random sum as it is.
        # Half the signal keeps its square, half a 25th of it; times the square of the gain: 1.04.
        assert y.square().mean().item() == pytest.approx(1.04, rel=0.1)


# ---- resampling ----------------------------------------------------------------------------------------

KERNELS, LAYOUTS = st.sampled_from([3, 5]), st.sampled_from([torch.contiguous_format, torch.channels_last])


@given(SIZES, SIZES, SIZES, st.integers(1, 9), st.integers(1, 9), KERNELS, LAYOUTS, st.integers(0, 99))
def test_an_up_convolution_is_nearest_upsampling_then_a_convolution(n, cin, cout, h, w, k, layout, seed):
    layer = EqualizedConv2d(cin, cout, k, resample="up").double()
    x = normal(n, cin, h, w, seed=seed).contiguous(memory_format=layout)
    upsampled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = F.conv2d(upsampled, layer.weight * layer.weight_scale, padding=k // 2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.eval().requires_grad_(False)(x), expected, rtol=1e-12, atol=1e-12)


@given(SIZES, SIZES, SIZES, st.integers(2, 13), st.integers(2, 13), KERNELS, LAYOUTS, st.integers(0, 99))
def test_a_down_convolution_is_a_convolution_then_the_mean_of_2x2(n, cin, cout, h, w, k, layout, seed):
    layer = EqualizedConv2d(cin, cout, k, resample="down").double()
    x = normal(n, cin, h, w, seed=seed).contiguous(memory_format=layout)
    full = F.conv2d(x, layer.weight * layer.weight_scale, padding=k // 2)
    expected = full[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, cout, h // 2, 2, w // 2, 2).mean((3, 5))
    for penalised in (False, True):
        torch.testing.assert_close(layer(x, penalised), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kernel", "resample"), [(2, ""), (4, "up"), (1, "down")])
def test_a_kernel_without_a_middle_or_too_small_for_its_box_is_refused(kernel, resample):
    with pytest.raises(ValueError, match=f"kernel of {kernel}"):
        EqualizedConv2d(1, 1, kernel, resample=resample)


@pytest.mark.parametrize("resample", ["", "up", "down"])
def test_the_gradients_of_a_convolution_are_right_to_the_second_order(resample):
    layer = EqualizedConv2d(2, 2, resample=resample).double()
    x = normal(1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_a_bfloat16_convolution_keeps_the_type_of_its_input_and_of_its_weights():
    layer = EqualizedConv2d(8, 8)
    x = torch.randn(2, 8, 6, 6)
    exact = layer(x)
    layer.dtype = torch.bfloat16
    rough = layer(x)
    rough.sum().backward()
    assert rough.dtype == layer.weight.dtype == layer.weight.grad.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1


@given(SIZES, SIZES, st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2, 4]))
def test_box_downsampling_undoes_nearest_upsampling(n, c, h, w, factor):
    x = normal(n, c, h, w)
    torch.testing.assert_close(box_downsample(nearest_upsample(x, factor), factor), x, rtol=1e-12, atol=0)


def test_box_downsampling_is_the_mean_of_each_block_and_nearest_upsampling_repeats_each_pixel():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert box_downsample(x)[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert nearest_upsample(torch.tensor([[[[1.0, 2.0]]]]))[0, 0].tolist() == [[1, 1, 2, 2]] * 2


def test_the_blur_is_1_2_1_by_1_2_1_over_16_with_zero_padding():
    x = torch.zeros(1, 2, 5, 5)
    x[0, 0, 2, 2], x[0, 1, 0, 0] = 16, 16
    y = Blur()(x)
    kernel = np.outer([1, 2, 1], [1, 2, 1])
    np.testing.assert_allclose(y[0, 0, 1:4, 1:4], kernel, rtol=1e-6)
    assert y[0, 0].sum() == 16
    np.testing.assert_allclose(y[0, 1, :2, :2], kernel[1:, 1:], rtol=1e-6)  # the rest has left the image
    assert Blur().state_dict() == {}


# ---- normalisation, activation -------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 99))
def test_pixel_norm_divides_by_the_root_of_the_mean_square_plus_1e_8(n, c, seed):
    x = normal(n, c, seed=seed).numpy()
    expected = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-8)
    np.testing.assert_allclose(pixel_norm(torch.tensor(x)), expected, rtol=1e-12)


def test_pixel_norm_works_along_the_channels_of_an_image_and_leaves_zeros_alone():
    x = normal(2, 6, 3, 3)
    x[0, :, 0, 0] = 0
    y = pixel_norm(x)
    assert (y[0, :, 0, 0] == 0).all()
    np.testing.assert_allclose(y.square().mean(1)[1], np.ones((3, 3)), rtol=1e-6)


def test_the_leaky_relu_has_slope_0_2_after_the_bias_and_no_gain():
    x = torch.tensor([[-2.0, 1.0], [0.5, -1.0]])
    y = lrelu(x, torch.tensor([1.0, -3.0]))
    torch.testing.assert_close(y, torch.tensor([[-0.2, -0.4], [1.5, -0.8]]), rtol=1e-6, atol=0)


# ---- sizes ---------------------------------------------------------------------------------------------


def test_the_channel_plan_is_512_up_to_32_then_halves():
    plan = ChannelPlan()
    assert [plan(2**r) for r in range(2, 11)] == [512, 512, 512, 512, 256, 128, 64, 32, 16]


@given(st.integers(1, 20000), st.integers(1, 1024))
def test_a_channel_plan_never_grows_with_resolution_and_keeps_one_channel(base, most):
    plan = [ChannelPlan(base, most)(2**r) for r in range(2, 11)]
    assert plan == sorted(plan, reverse=True)
    assert plan == [max(1, min(base // 2 ** (r - 1), most)) for r in range(2, 11)]


@pytest.mark.parametrize("resolution", [0, 4, 12, 48, 2048, -8])
def test_a_resolution_that_is_no_power_of_two_from_8_to_1024_is_refused(resolution):
    with pytest.raises(ValueError, match=rf"resolution {resolution}: .*power of two from 8 to 1024"):
        resolutions_up_to(resolution)


def test_the_pyramid_starts_at_4():
    assert resolutions_up_to(8) == [4, 8]
    assert resolutions_up_to(64) == [4, 8, 16, 32, 64]
