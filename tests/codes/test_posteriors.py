"""Facts about Q: its densities, and the ceilings of the bound L_info in nats."""

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from infostylegan import CodeSpec
from infostylegan.codes import (
    BernoulliPosterior,
    CategoricalPosterior,
    GaussianPosterior,
    TruncatedNormalPosterior,
    Uniform,
)
from infostylegan.losses import information

LN2 = math.log(2)
HALF_LN_2PI = 0.5 * math.log(2 * math.pi)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)  # over [-1, 1]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


# ---- densities against scipy ---------------------------------------------------------------------------


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=9))
def test_a_categorical_posterior_is_the_softmax_of_its_logits(logits):
    q = CategoricalPosterior(tensor([logits] * len(logits)))
    expected = scipy.special.log_softmax(logits)
    values = torch.arange(len(logits)).double()
    np.testing.assert_allclose(q.log_prob(values), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(q.mean[0], np.exp(expected), rtol=1e-12)


@given(st.floats(-50, 50))
def test_a_bernoulli_posterior_scores_the_target_0_or_1_with_its_logit(logit):
    q = BernoulliPosterior(tensor([logit, logit]))
    expected = -np.logaddexp(0, [logit, -logit])  # log P(0), log P(1)
    np.testing.assert_allclose(q.log_prob(tensor([0.0, 1.0])), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(q.mean, scipy.special.expit(logit), rtol=1e-12)


@given(st.floats(-3, 3), st.floats(0.05, 5), st.floats(-1, 1))
def test_a_gaussian_posterior_is_scipys_normal(loc, scale, value):
    q = GaussianPosterior(tensor([loc]), tensor([scale]))
    expected = scipy.stats.norm(loc, scale).logpdf(value)
    np.testing.assert_allclose(q.log_prob(tensor([value])), [expected], rtol=1e-11, atol=1e-12)
    assert float(q.mean) == loc


@given(st.floats(-1, 1), st.floats(0.05, 5), st.floats(-1, 1))
def test_a_truncated_normal_posterior_is_scipys_truncnorm(loc, scale, value):
    q = TruncatedNormalPosterior(tensor([loc]), tensor([scale]))
    expected = scipy.stats.truncnorm((-1 - loc) / scale, (1 - loc) / scale, loc, scale)
    np.testing.assert_allclose(q.log_prob(tensor([value])), [expected.logpdf(value)], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(q.mean, [expected.mean()], rtol=1e-7, atol=1e-9)


@given(st.floats(-1, 1), st.floats(0.2, 100))
def test_a_truncated_normal_integrates_to_one_over_the_prior(loc, scale):
    q = TruncatedNormalPosterior(tensor([loc] * len(NODES)), tensor([scale] * len(NODES)))
    assert WEIGHTS @ q.log_prob(tensor(NODES)).exp().numpy() == pytest.approx(1, rel=1e-9)


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1))
def test_a_truncated_normal_is_as_exact_in_float32_as_float32_allows(loc, where, value):
    scale = 0.2 * (100 / 0.2) ** where  # every scale that Q can state
    loc, scale, value = (np.float32(x) for x in (loc, scale, value))
    q = TruncatedNormalPosterior(*(torch.tensor([x]) for x in (loc, scale)))
    exact = TruncatedNormalPosterior(*(tensor([float(x)]) for x in (loc, scale)))
    got, expected = float(q.log_prob(torch.tensor([value]))), float(exact.log_prob(tensor([float(value)])))
    assert got == pytest.approx(expected, rel=2e-6, abs=2e-6)


@given(st.floats(-1, 1), st.floats(0, 1))
def test_the_mean_of_a_truncated_normal_is_exact_in_float32_at_every_scale_that_q_can_state(loc, where):
    scale = 0.2 * (100 / 0.2) ** where
    loc, scale = np.float32(loc), np.float32(scale)
    density = WEIGHTS * np.exp(-0.5 * ((NODES - float(loc)) / float(scale)) ** 2)
    expected = density @ NODES / density.sum()
    q = TruncatedNormalPosterior(torch.tensor([loc]), torch.tensor([scale]))
    assert float(q.mean) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("loc", [-1.0, -0.3, 0.0, 0.9])
def test_a_truncated_normal_tends_to_the_uniform_prior_as_its_scale_grows(loc):
    values = tensor(np.linspace(-1, 1, 21))
    gaps = []
    for scale in (1.0, 10.0, 100.0, 1000.0):
        q = TruncatedNormalPosterior(torch.full_like(values, loc), torch.full_like(values, scale))
        gaps.append(float((q.log_prob(values) + LN2).abs().max()))
    # The gap shrinks with the square of the scale.
    np.testing.assert_allclose(np.divide(gaps[1:-1], gaps[2:]), 100, rtol=0.02)
    assert gaps[-1] < 3e-6


# ---- ceilings of the bound -----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 10, 57])
def test_the_ceiling_of_a_category_is_ln_k(k):
    assert CodeSpec.parse(f"cat:{k}").ceilings()["cat0"] == pytest.approx(math.log(k), rel=1e-12)


def test_the_ceiling_of_a_coin_is_ln_2():
    assert CodeSpec.parse("bern:1").ceilings()["bern0"] == pytest.approx(LN2, rel=1e-12)


def test_the_discrete_ceiling_of_the_papers_codes_is_5_951_nats():
    ceilings = CodeSpec.parse("cat:3,bern:7,unif:10").ceilings()
    discrete = sum(nats for name, nats in ceilings.items() if not name.startswith("unif"))
    assert discrete == pytest.approx(math.log(3) + 7 * LN2, rel=1e-12)
    assert round(discrete, 3) == 5.951


def test_the_papers_unit_gaussian_can_never_reach_zero_nats():
    ceiling = Uniform("unit").ceiling
    assert ceiling == pytest.approx(LN2 - HALF_LN_2PI, rel=1e-12)
    assert round(ceiling, 4) == -0.2258
    assert Uniform("unit", sigma_min=0.3).ceiling == ceiling


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.5, 1.0])
def test_the_ceiling_of_a_gaussian_grows_as_its_least_scale_shrinks(sigma):
    assert Uniform("gaussian", sigma).ceiling == pytest.approx(LN2 - math.log(sigma) - HALF_LN_2PI, rel=1e-12)


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0])
def test_the_ceiling_of_a_truncated_normal_is_what_a_numerical_maximisation_finds(sigma):
    nodes, weights = np.polynomial.legendre.leggauss(40)

    def best(value):
        """The largest log density at `value` over every location in [-1, 1] and scale >= sigma."""

        def negative(point):
            loc, scale = point
            mass = scipy.special.ndtr((1 - loc) / scale) - scipy.special.ndtr((-1 - loc) / scale)
            return 0.5 * ((value - loc) / scale) ** 2 + math.log(scale) + HALF_LN_2PI + math.log(mass)

        starts = [(value, sigma), (math.copysign(1.0, value), sigma), (0.0, 2 * sigma)]
        bounds = [(-1, 1), (sigma, 50)]
        return max(-scipy.optimize.minimize(negative, x, bounds=bounds, tol=1e-12).fun for x in starts)

    expected = LN2 + weights @ np.array([best(value) for value in nodes]) / 2
    assert Uniform("truncnormal", sigma).ceiling == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("family", ["unit", "gaussian", "truncnormal"])
@given(where=st.floats(-30, 30), width=st.floats(-30, 30))
def test_a_q_that_ignores_the_image_has_no_positive_information_whatever_it_says(family, where, width):
    spec = CodeSpec.parse("unif:1", uniform=family)
    params = torch.tensor([[where, width]])[:, : spec.posterior_width]
    posterior = spec.posterior(params.expand(len(NODES), -1))
    nats = information(spec, posterior, torch.tensor(NODES, dtype=torch.float32)[:, None])[:, 0]
    assert WEIGHTS @ nats.double().numpy() / 2 <= 1e-5  # the expectation over the prior


@pytest.mark.parametrize(
    ("family", "most"),
    [("unit", LN2 - HALF_LN_2PI), ("gaussian", LN2 - HALF_LN_2PI - math.log(0.2)),
     ("truncnormal", 2 * LN2 - HALF_LN_2PI - math.log(0.2))],  # half of the mass cut off, at the edge
)  # fmt: skip
@given(where=st.floats(-30, 30), width=st.floats(-30, 30), value=st.floats(-1, 1, width=32))
def test_no_single_code_is_worth_more_than_the_peak_of_its_familys_density(family, most, where, width, value):
    spec = CodeSpec.parse("unif:1", uniform=family, sigma_min=0.2)
    posterior = spec.posterior(torch.tensor([[where, width]])[:, : spec.posterior_width])
    assert float(information(spec, posterior, torch.tensor([[value]]))) <= most + 1e-6


def test_q_that_outputs_zeros_knows_nothing_of_discrete_codes():
    spec = CodeSpec.parse("cat:3,bern:1")
    posterior = spec.posterior(torch.zeros(6, 4))
    c = torch.tensor(list(itertools.product([0.0, 1.0, 2.0], [0.0, 1.0])))
    torch.testing.assert_close(information(spec, posterior, c), torch.zeros(6, 2), rtol=0, atol=1e-6)


def test_a_truncated_normal_at_its_widest_gives_zero_nats():
    spec = CodeSpec.parse("unif:1")
    values = torch.linspace(-1, 1, 33)[:, None]
    for width in (-100.0, -12.0):
        posterior = spec.posterior(torch.tensor([[0.0, width]]).expand(33, 2))
        assert information(spec, posterior, values).abs().max() < 5e-4


@pytest.mark.parametrize("family", ["gaussian", "truncnormal"])
@pytest.mark.parametrize("where", [0.0, -300.0])
def test_the_scale_never_falls_below_its_least(family, where):
    params = torch.stack([torch.full((41,), where), torch.linspace(-1e8, 1e8, 41)], dim=1)
    (q,) = CodeSpec.parse("unif:1", uniform=family, sigma_min=0.25).posterior(params)
    assert q.scale.min() >= 0.25 * (1 - 1e-6)
    assert q.scale.min() <= 0.25 * (1 + 1e-6)
    assert q.scale.isfinite().all()


@given(tilt=st.floats(-4, 4), width=st.floats(-12, 6))
def test_a_truncated_normals_parameters_are_the_natural_ones_where_the_least_scale_does_not_matter(
    tilt, width
):
    """log q = tilt x - precision x^2 / 2 - a constant, and the location stays within the interval."""
    sigma = 0.01
    params = torch.tensor([[tilt, width]], dtype=torch.float64)
    q = Uniform("truncnormal", sigma).posterior(params)
    precision = abs(tilt) + math.log1p(math.exp(width)) + 1e-4
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)
    log_q = q.log_prob(x)
    natural = tilt * x - precision * x.square() / 2
    bound = precision**2 * sigma**2 * 2  # what the least scale takes from either
    assert float(((log_q - natural) - (log_q - natural)[4]).abs().max()) <= bound + 1e-6
    assert abs(float(q.loc)) <= 1.0


@given(tilt=st.floats(-(2.0**100), 2.0**100), width=st.floats(-200, 2.0**100))
def test_a_truncated_normals_place_is_within_its_interval_whatever_q_says(tilt, width):
    (q,) = CodeSpec.parse("unif:1").posterior(torch.tensor([[tilt, width]]))
    assert abs(float(q.loc)) <= 1.0
    assert q.log_prob(torch.tensor([0.5])).isfinite().all()


@pytest.mark.parametrize("width", [-20.0, -6.0, 0.0])
def test_a_truncated_normal_that_is_the_prior_still_learns_the_place(width):
    """The derivative of log q by the tilt is c - mean there; by a location, c / scale^2."""
    value = torch.linspace(-1, 1, 8)
    params = torch.tensor([[0.0, width]]).repeat(8, 1).requires_grad_()
    Uniform("truncnormal").posterior(params).log_prob(value).sum().backward()
    assert params.grad is not None
    torch.testing.assert_close(params.grad[:, 0], value, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("tilt", [1e-6, -1e-6, 0.1])
def test_beside_the_prior_the_pull_towards_a_code_is_the_same_on_average(tilt):
    """A precision no less than the tilt bends the derivative by (c^2 - mean of c^2) / 2, 0 over the prior."""
    value = torch.linspace(-1, 1, 4001)
    params = torch.tensor([[tilt, -20.0]]).repeat(len(value), 1).requires_grad_()
    Uniform("truncnormal").posterior(params).log_prob(value).sum().backward()
    assert params.grad is not None
    gain = float((params.grad[:, 0] * value).mean())  # along c: what tells codes apart
    assert gain == pytest.approx(1 / 3, rel=0.15)


@pytest.mark.parametrize("family", ["unit", "gaussian", "truncnormal"])
def test_gradients_of_log_q_are_right_and_finite_at_extremes(family):
    code = Uniform(family)
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(8, 2, generator=generator, dtype=torch.float64)[:, : code.posterior_width]
    value = torch.rand(8, generator=generator, dtype=torch.float64) * 2 - 1
    assert torch.autograd.gradcheck(lambda p: code.posterior(p).log_prob(value), params.requires_grad_())
    extreme = torch.tensor([[a, b] for a in (-1e4, 0.0, 1e4) for b in (-1e4, 0.0, 1e4)])
    extreme = extreme[:, : code.posterior_width].clone().requires_grad_()
    code.posterior(extreme).log_prob(torch.linspace(-1, 1, 9)).sum().backward()
    assert extreme.grad.isfinite().all()


# ---- the whole spec ------------------------------------------------------------------------------------


def test_l_info_of_every_code_is_its_entropy_less_the_cross_entropy_exactly():
    """Over all values of c at once, so that the mean over the batch is the expectation itself."""
    spec = CodeSpec.parse("cat:3,bern:1,cat:2")
    c = np.array(list(itertools.product(range(3), range(2), range(2))), dtype=np.float32)
    params = np.random.default_rng(0).normal(size=(len(c), spec.posterior_width)).astype(np.float32)
    p3 = scipy.special.softmax(params[:, :3].astype(float), axis=1)
    p1 = scipy.special.expit(params[:, 3].astype(float))
    p2 = scipy.special.softmax(params[:, 4:].astype(float), axis=1)
    rows = np.arange(len(c))
    cross_entropy = [
        -np.log(p3[rows, c[:, 0].astype(int)]).mean(),
        -np.log(np.where(c[:, 1] == 1, p1, 1 - p1)).mean(),
        -np.log(p2[rows, c[:, 2].astype(int)]).mean(),
    ]
    expected = np.array([math.log(3), LN2, LN2]) - cross_entropy
    got = information(spec, spec.posterior(torch.tensor(params)), torch.tensor(c)).mean(0)
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-6)


def test_each_code_reads_its_own_slice_of_qs_output():
    spec = CodeSpec.parse("cat:3,unif:1,bern:2,unif:1")
    generator = torch.Generator().manual_seed(0)
    params, c = torch.randn(5, 9, generator=generator), spec.sample(5, generator=generator)
    before = spec.log_posterior(spec.posterior(params), c)
    assert before.shape == (5, 5)
    slices = [(0, 3), (3, 5), (5, 6), (6, 7), (7, 9)]
    for i, (start, stop) in enumerate(slices):
        changed = params.clone()
        changed[:, start:stop] += 1 + torch.arange(stop - start)
        after = spec.log_posterior(spec.posterior(changed), c)
        differs = (after != before).any(dim=0)
        assert differs.nonzero().flatten().tolist() == [i]


def test_information_is_computed_in_float32_whatever_q_outputs():
    spec = CodeSpec.parse("cat:3,bern:1,unif:1")
    c = spec.sample(4)
    nats = information(spec, spec.posterior(torch.randn(4, 6).bfloat16()), c)
    assert nats.dtype == torch.float32


def test_the_representation_is_the_likeliest_category_and_the_mean_of_the_others():
    spec = CodeSpec.parse("cat:3,bern:1,unif:1", uniform="gaussian")
    params = torch.tensor([[0.0, 2.0, 1.0, 0.0, 0.25, 9.0], [3.0, 2.0, 1.0, 50.0, -0.5, 9.0]])
    read = spec.representation(spec.posterior(params))
    assert isinstance(read, np.ndarray)
    np.testing.assert_allclose(read, [[1, 0.5, 0.25], [0, 1, -0.5]], atol=1e-6)
