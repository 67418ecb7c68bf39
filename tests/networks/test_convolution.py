"""Facts about the convolution below a gradient penalty: PyTorch's values, without its detours."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from infostylegan import Discriminator
from infostylegan.losses import r1_penalty
from infostylegan.networks import convolution, discriminator
from infostylegan.networks.convolution import conv2d

# (size, kernel, stride, padding), as the discriminator uses them, and others.
PLANS = [(5, 3, 1, 1), (6, 4, 2, 1), (4, 1, 1, 0), (5, 3, 2, 0), (7, 4, 3, 2)]


def normal(*shape, seed=0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_()


@pytest.fixture
def products(monkeypatch):
    """The products that are computed, in order."""
    calls, compute = [], convolution.compute
    monkeypatch.setattr(convolution, "compute", lambda op, *rest: calls.append(op) or compute(op, *rest))
    return calls


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from(PLANS), st.booleans())
def test_its_values_and_gradients_are_those_of_pytorch(n, cin, cout, plan, last):
    size, k, stride, padding = plan
    x, w = normal(n, cin, size, size), normal(cout, cin, k, k, seed=1)
    image = x.contiguous(memory_format=torch.channels_last) if last else x
    results = []
    for conv in (conv2d, F.conv2d):
        y = conv(image, w, stride=stride, padding=padding)
        first = torch.autograd.grad(y.square().sum(), (x, w), create_graph=True)
        second = torch.autograd.grad(first[0].pow(3).sum() + first[1].pow(3).sum(), (x, w))
        results.append((y, *first, *second))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10 * theirs.abs().max().item())


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("live", ["xw", "x", "w"])
def test_its_gradients_are_right_to_the_third_order(plan, live):
    size, k, stride, padding = plan
    x, w = normal(1, 2, size, size), normal(2, 2, k, k, seed=1)
    for name, value in (("x", x), ("w", w)):
        value.requires_grad_(name in live)

    def conv(a, b):
        return conv2d(a, b, stride, padding)

    assert torch.autograd.gradcheck(conv, (x, w))
    assert torch.autograd.gradgradcheck(conv, (x, w))

    def slope(a, b):
        loss = conv(a, b).pow(3).sum()
        return torch.autograd.grad(loss, [v for v in (a, b) if v.requires_grad], create_graph=True)

    assert torch.autograd.gradgradcheck(slope, (x, w))


def test_the_gradient_of_the_image_alone_computes_none_of_the_kernel(products):
    x, w = normal(2, 3, 6, 6), normal(4, 3, 3, 3, seed=1)
    y = conv2d(conv2d(x, w, 1, 1), normal(2, 4, 3, 3, seed=2), 1, 1)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert products == ["forward", "forward", "transposed", "transposed"]
    products.clear()
    slope.square().sum().backward()
    assert products.count("kernel") == 2
    assert w.grad is not None


def test_without_gradients_it_is_one_convolution_and_no_graph(products):
    x, w = normal(2, 3, 6, 6), normal(4, 3, 3, 3, seed=1)
    with torch.no_grad():
        y = conv2d(x, w, 1, 1)
    assert products == ["forward"]
    assert not y.requires_grad


def penalty(D, real):
    """The penalty, its gradient for each of D's weights, and that of the logistic loss with it."""
    x = real.detach().requires_grad_()
    score = D(x).score
    r1 = r1_penalty(score, x)
    parameters = [p for name, p in D.named_parameters() if not name.startswith("q_head")]
    loss = F.softplus(-score).sum() + 5.0 * r1.sum()
    return [r1, *torch.autograd.grad(loss, parameters, allow_unused=True)]


def build():
    torch.manual_seed(0)
    return Discriminator(16, "cat:3,unif:1", fmap_base=64, fmap_max=8)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_r1_and_its_gradients_are_what_they_are_without_it(precision, monkeypatch, products):
    D, real = build(), torch.randn(8, 3, 16, 16)
    D.set_precision(precision)
    ours = penalty(D, real)
    assert products.count("kernel") == 8  # two of each of four convolutions: of the score, and of the penalty
    monkeypatch.setattr(discriminator, "will_be_penalised", lambda image: False)
    products.clear()
    theirs = penalty(D, real)
    assert not products
    tolerance = 1e-4 if precision == "fp32" else 0.05
    for a, b in zip(ours, theirs, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance * b.abs().max().item())


def test_a_generators_image_an_evaluation_and_autocast_take_the_plain_way(products):
    D = build()
    image = torch.randn(4, 3, 16, 16, requires_grad=True)
    D(image * 1.0).score.sum().backward()
    D.eval()(image).score.sum().backward()
    D.train()
    with torch.autocast("cpu", torch.bfloat16):
        D(image).score.sum().backward()
    assert not products


def test_transforms_of_functions_see_through_the_discriminator():
    D, real = build(), torch.randn(4, 3, 16, 16)
    x = real.clone().requires_grad_()
    (expected,) = torch.autograd.grad(D(x).score.sum(), x)
    slope = torch.func.grad(lambda image: D(image).score.sum())(real)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-6)
