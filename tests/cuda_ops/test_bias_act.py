"""`bias_act`: values, gradients, types, layouts and errors, the same on the reference and the CPU kernels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cuda_ops import bias_act

ACTS = ["linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish"]
SQRT2 = math.sqrt(2)

# act -> (value at -1, value at 2), with the default gain; worked out from the definitions, not with torch.
GOLDEN = {
    "linear": (-1.0, 2.0),
    "relu": (0.0, 2 * SQRT2),
    "lrelu": (-0.2 * SQRT2, 2 * SQRT2),
    "tanh": (-0.7615941559557649, 0.9640275800758169),
    "sigmoid": (0.2689414213699951, 0.8807970779778823),
    "elu": (-0.6321205588285577, 2.0),
    "selu": (-1.1113307378125625, 2.1014019747104554),
    "softplus": (0.31326168751822286, 2.1269280110429727),
    "swish": (-0.2689414213699951 * SQRT2, 1.7615941559557646 * SQRT2),
}


pytestmark = pytest.mark.usefixtures("back_end")  # everything here holds for each back end


def _definition(x: float, act: str, alpha: float) -> float:
    return {
        "linear": lambda: x,
        "relu": lambda: max(x, 0.0),
        "lrelu": lambda: x if x > 0 else alpha * x,
        "tanh": lambda: math.tanh(x),
        "sigmoid": lambda: 1 / (1 + math.exp(-x)),
        "elu": lambda: x if x > 0 else math.expm1(x),
        "selu": lambda: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x)),
        "softplus": lambda: math.log1p(math.exp(-abs(x))) + max(x, 0.0),
        "swish": lambda: x / (1 + math.exp(-x)),
    }[act]()


@pytest.mark.parametrize("act", ACTS)
def test_each_activation_with_default_gain_gives_its_golden_numbers(act):
    y = bias_act(torch.tensor([[-1.0], [2.0]], dtype=torch.float64), act=act)
    torch.testing.assert_close(y.flatten().tolist(), list(GOLDEN[act]), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    act=st.sampled_from(ACTS),
    values=st.lists(st.floats(-8, 8), min_size=6, max_size=6),
    bias=st.lists(st.floats(-3, 3), min_size=3, max_size=3) | st.none(),
    dim=st.sampled_from([0, 1, -1, -2]),
    alpha=st.floats(0, 2),
    gain=st.sampled_from([-1.5, 0.0, 0.5, 1.0, 3.0]),
    clamp=st.none() | st.floats(0, 4),
)
def test_every_element_is_what_the_definition_says(act, values, bias, dim, alpha, gain, clamp):
    x = torch.tensor(values, dtype=torch.float64).view(3, 2) if dim in (0, -2) else None
    x = torch.tensor(values, dtype=torch.float64).view(2, 3) if x is None else x
    b = None if bias is None else torch.tensor(bias, dtype=torch.float64)
    y = bias_act(x, b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)
    for i, j in ((i, j) for i in range(x.shape[0]) for j in range(x.shape[1])):
        shift = 0.0 if bias is None else bias[i if dim in (0, -2) else j]
        want = gain * _definition(float(x[i, j]) + shift, act, alpha)
        want = want if clamp is None else min(max(want, -clamp), clamp)
        assert float(y[i, j]) == pytest.approx(
            want, rel=1e-7, abs=1e-7
        )  # torch's softplus is linear from 20 on


@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("act", ACTS)
def test_first_and_second_order_gradients_in_x_and_b_are_right(act, clamp):
    x = torch.linspace(-2.3, 2.6, 18, dtype=torch.float64).view(2, 3, 3).requires_grad_()
    b = torch.tensor([-0.3, 0.1, 0.4], dtype=torch.float64, requires_grad=True)

    def op(x, b):
        return bias_act(x, b, act=act, clamp=clamp)

    assert torch.autograd.gradcheck(op, (x, b))
    assert torch.autograd.gradgradcheck(op, (x, b))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("act", ACTS)
def test_arguments_are_never_written_to(act, grad):
    x, b = torch.randn(4, 3), torch.randn(3)
    before = x.clone(), b.clone()
    for bias in (None, b):
        for gain in (None, 0.5, -1.0):
            bias_act(x.requires_grad_(grad), bias, act=act, gain=gain, clamp=0.5)
    assert torch.equal(x, before[0])
    assert torch.equal(b, before[1])


@pytest.mark.parametrize("act", ACTS)
def test_recording_a_gradient_changes_no_value(act):
    x, b = torch.randn(4, 3), torch.randn(3)
    plain = bias_act(x, b, act=act, gain=0.7, clamp=0.5)
    recorded = bias_act(x.clone().requires_grad_(), b, act=act, gain=0.7, clamp=0.5)
    torch.testing.assert_close(recorded, plain, rtol=0, atol=0, check_stride=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("act", ACTS)
def test_nan_passes_through_every_activation_and_the_clamp(act, dtype):
    y = bias_act(torch.tensor([[float("nan"), 100.0, -100.0]], dtype=dtype), act=act, clamp=0.25)
    assert torch.isnan(y[0, 0])
    assert (y[0, 1:].abs() <= 0.25).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_gradient_that_is_no_number_is_never_hidden_by_a_slope_of_zero(bad, clamp, layout):
    x = torch.full([1, 3, 4, 4], -1.0).to(memory_format=layout).requires_grad_()
    b = torch.zeros(3, requires_grad=True)
    y = bias_act(x, b, act="relu", gain=1, clamp=clamp)
    far = bias_act(x + 3, b, act="linear", clamp=0.5)  # beyond the clamp
    for result in (y, far):
        dy = torch.ones_like(y)
        dy[0, 1, 2, 3] = bad
        dx, db = torch.autograd.grad(result, (x, b), dy)
        want = torch.zeros_like(x, dtype=torch.bool)
        want[0, 1, 2, 3] = True
        assert torch.equal(dx.isnan(), want)
        assert db.isnan().tolist() == [False, True, False]
        assert (dx[~want] == 0).all()


@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("act", ["linear", "relu", "lrelu"])
def test_the_second_derivative_of_a_piecewise_linear_activation_is_absent(act, clamp):
    x = torch.randn(2, 3, requires_grad=True)
    b = torch.randn(3, requires_grad=True)
    dy = torch.randn(2, 3, requires_grad=True)
    dx, db = torch.autograd.grad(bias_act(x, b, act=act, gain=2, clamp=clamp), (x, b), dy, create_graph=True)
    second = torch.autograd.grad([dx.sum(), db.sum()], (x, b, dy), allow_unused=True)
    assert second[:2] == (None, None)
    assert second[2] is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("act", ACTS)
def test_halves_round_once_at_the_end(act, dtype):
    x, b = torch.randn(64, 8).to(dtype), torch.randn(8).to(dtype)
    want = bias_act(x.double(), b.double(), act=act).to(dtype)
    got = bias_act(x, b, act=act)
    assert got.dtype == dtype
    # The last bit may differ where the float64 result lies next to the middle of two halves.
    torch.testing.assert_close(got, want, rtol=torch.finfo(dtype).eps, atol=1e-6)
    assert (got != want).float().mean() < 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_of_halves_come_back_in_the_type_of_each_argument(dtype):
    x = torch.randn(4, 3).to(dtype).requires_grad_()
    b = torch.randn(3, requires_grad=True)
    bias_act(x, b, act="lrelu", clamp=1).sum().backward()
    assert x.grad is not None
    assert b.grad is not None
    assert (x.grad.dtype, b.grad.dtype) == (dtype, torch.float32)


def test_gradient_is_passed_at_the_clamp_and_stopped_beyond_it():
    x = torch.tensor([[-3.0, -2.0, 1.0, 2.0, 3.0]], requires_grad=True)
    bias_act(x, clamp=2).sum().backward()
    assert x.grad.tolist() == [[0, 1, 1, 1, 0]]


@pytest.mark.parametrize(
    "shape", [(3,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 2, 2), (1, 3, 1, 1, 1, 2)]
)
def test_bias_runs_along_dim_whatever_the_rank(shape):
    dim = shape.index(3)
    y = bias_act(torch.zeros(shape), torch.tensor([1.0, 2.0, 3.0]), dim=dim)
    assert y.shape == shape
    for i in range(3):
        assert (y.select(dim, i) == i + 1).all()


def test_a_scalar_needs_no_axis_without_a_bias():
    assert bias_act(torch.tensor(-1.0), act="relu").item() == 0


@pytest.mark.parametrize("act", ACTS)
def test_channels_last_stays_channels_last(act):
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    y = bias_act(x, torch.randn(3), act=act, clamp=1)
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0), (0,)])
@pytest.mark.parametrize("act", ACTS)
def test_empty_tensors_give_empty_tensors_and_gradients(act, shape):
    x = torch.zeros(shape, requires_grad=True)
    dim = min(1, len(shape) - 1)
    b = torch.zeros(shape[dim], requires_grad=True)
    y = bias_act(x, b, dim=dim, act=act, clamp=1)
    y.sum().backward()
    assert y.shape == shape
    assert x.grad.shape == shape
    assert (b.grad == 0).all()


def test_nothing_to_do_hands_back_x_itself():
    x = torch.randn(2, 3)
    assert bias_act(x) is x


def test_a_gain_folded_into_the_bias_pass_leaves_one_tensor_for_the_backward_pass():
    kept = []
    x, b = torch.randn(2, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        bias_act(x, b, act="lrelu")
    assert sum(t.numel() == x.numel() for t in kept) == 1


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"act": "gelu"}, ValueError, "unknown act 'gelu'; choose one of linear, relu"),
        ({"impl": "gpu"}, ValueError, "unknown impl 'gpu'; choose one of 'auto'"),
        ({"act": "lrelu", "alpha": -0.1}, ValueError, "alpha must be at least 0, got -0.1"),
        ({"act": "lrelu", "alpha": math.nan}, ValueError, "alpha must be at least 0, got nan"),
        ({"clamp": -1}, ValueError, "clamp must be at least 0, or None for none, got -1"),
        (
            {"b": torch.zeros(4)},
            ValueError,
            r"b must have shape \[3\] to fit x of shape \(2, 3\) along dim 1",
        ),
        ({"b": torch.zeros(3, 1)}, ValueError, r"b must have shape \[3\].*got \(3, 1\)"),
        ({"b": torch.zeros(3), "dim": 2}, ValueError, "dim 2 is out of range"),
        ({"b": torch.zeros(3, dtype=torch.int64)}, TypeError, "b must be float32.*got torch.int64"),
        ({"b": [0.0] * 3}, TypeError, "b must be a torch.Tensor, got list"),
        ({"x": torch.zeros(2, 3, dtype=torch.int32)}, TypeError, "x must be float32.*got torch.int32"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(kwargs, error, message):
    with pytest.raises(error, match=f"^bias_act: {message}"):
        bias_act(**{"x": torch.zeros(2, 3), **kwargs})
