"""Facts about the losses: closed forms in float64."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from infostylegan import CodeSpec, Discriminator
from infostylegan.losses import (
    agreed_information,
    discriminator_logistic,
    generator_logistic,
    information,
    information_weights,
    r1_penalty,
)

SCORES = st.lists(st.floats(-80, 80), min_size=1, max_size=5)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- adversarial ---------------------------------------------------------------------------------------


@given(SCORES)
def test_the_generators_loss_is_minus_the_log_of_the_fakes_probability_to_be_real(scores):
    got = generator_logistic(torch.tensor(scores, dtype=torch.float64))
    np.testing.assert_allclose(got, np.logaddexp(0, -np.array(scores)), rtol=1e-8)
    assert got.shape == (len(scores),)


@given(SCORES, st.floats(-80, 80))
def test_the_discriminators_loss_is_minus_the_log_likelihood_of_telling_both_apart(scores, fake):
    real = np.array(scores)
    got = discriminator_logistic(torch.tensor(real), torch.full((len(real),), fake, dtype=torch.float64))
    np.testing.assert_allclose(got, np.logaddexp(0, fake) + np.logaddexp(0, -real), rtol=1e-8)


def test_a_discriminator_that_knows_nothing_costs_two_ln_2_and_the_generator_ln_2():
    zero = torch.zeros(1, dtype=torch.float64)
    assert float(discriminator_logistic(zero, zero)) == pytest.approx(2 * math.log(2), rel=1e-12)
    assert float(generator_logistic(zero)) == pytest.approx(math.log(2), rel=1e-12)


@pytest.mark.parametrize("score", [-1e4, -30.0, 30.0, 1e4])
def test_the_losses_and_their_gradients_are_finite_at_any_score(score):
    score = torch.tensor([score], requires_grad=True)
    (generator_logistic(score) + discriminator_logistic(score, -score)).sum().backward()
    assert score.grad.isfinite().all()


def test_a_fake_that_is_surely_recognised_still_gives_the_generator_its_full_gradient():
    score = torch.tensor([-50.0], dtype=torch.float64, requires_grad=True)
    generator_logistic(score).backward()
    assert float(score.grad) == pytest.approx(-1, rel=1e-12)  # the saturating loss would give 0


# ---- R1 ------------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_r1_of_a_linear_discriminator_is_the_squared_norm_of_its_weight(n, channels, side, seed):
    weight = normal(channels, side, side, seed=seed)
    real = normal(n, channels, side, side, seed=seed + 1).requires_grad_()
    penalty = r1_penalty((real * weight).sum((1, 2, 3)), real)
    np.testing.assert_allclose(penalty.detach(), [float(weight.square().sum())] * n, rtol=1e-12)


@given(st.integers(1, 5), st.integers(0, 99))
def test_r1_of_a_quadratic_discriminator_is_the_squared_norm_of_2_a_x_for_each_image(n, seed):
    a = normal(12, 12, seed=seed)
    real = normal(n, 3, 2, 2, seed=seed + 1).requires_grad_()
    flat = real.flatten(1)
    penalty = r1_penalty(((flat @ a) * flat).sum(1), real)
    x = flat.detach().numpy()
    gradient = x @ (a + a.T).numpy()
    assert penalty.shape == (n,)
    np.testing.assert_allclose(penalty.detach(), (gradient**2).sum(1), rtol=1e-11)


def test_the_gradient_of_r1_with_respect_to_the_weights_is_right():
    weight = normal(3, 2, 2).requires_grad_()
    real = normal(4, 3, 2, 2, seed=1).requires_grad_()
    r1_penalty((real * weight).sum((1, 2, 3)).tanh(), real).sum().backward()

    def total(w):
        s = (real.detach() * w).sum((1, 2, 3)).tanh()
        return ((1 - s**2) ** 2 * w.square().sum()).sum()

    numeric = torch.empty_like(weight)
    for i in range(weight.numel()):
        step = torch.zeros(weight.numel(), dtype=torch.float64)
        step[i] = 1e-6
        step = step.view_as(weight)
        w = weight.detach()
        numeric.view(-1)[i] = (total(w + step) - total(w - step)) / 2e-6
    torch.testing.assert_close(weight.grad, numeric.detach(), rtol=1e-6, atol=1e-7)


def test_r1_gives_q_nothing_and_the_trunk_and_the_score_something():
    torch.manual_seed(0)
    D = Discriminator(8, "cat:3,bern:1,unif:1", fmap_base=64, fmap_max=8)
    real = torch.randn(4, 3, 8, 8, requires_grad=True)
    r1_penalty(D(real).score, real).sum().backward()
    assert all(p.grad is None for p in D.q_head.parameters())
    weights = [p for name, p in D.named_parameters() if "weight" in name and "q_head" not in name]
    used = [p for p in weights if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(used) == len(weights) - 1  # all but fromRGB of 4²


# ---- mutual information --------------------------------------------------------------------------------


@given(st.integers(0, 2**31))
def test_the_estimate_of_l_info_is_the_entropy_less_the_cross_entropy_of_the_batch(seed):
    spec = CodeSpec.parse("cat:3,bern:2,unif:2")
    generator = torch.Generator().manual_seed(seed)
    params = torch.randn(6, spec.posterior_width, generator=generator)
    c = spec.sample(6, generator=generator)
    posterior = spec.posterior(params)
    cross_entropy = torch.stack([-q.log_prob(c[:, i]) for i, q in enumerate(posterior)], dim=1)
    entropy = torch.tensor([code.entropy for code in spec])
    nats = information(spec, posterior, c)
    assert nats.shape == (6, 5)
    torch.testing.assert_close(nats, entropy - cross_entropy, rtol=1e-5, atol=1e-6)


def test_a_perfect_reader_reaches_the_ceiling_of_discrete_codes():
    spec = CodeSpec.parse("cat:3,bern:1")
    c = spec.sample(16)
    sure = torch.cat([torch.eye(3)[c[:, 0].long()] * 60, (c[:, 1:] * 2 - 1) * 60], dim=1)
    nats = information(spec, spec.posterior(sure), c).mean(0)
    torch.testing.assert_close(nats, torch.tensor(list(spec.ceilings().values())), rtol=1e-6, atol=0)


def test_a_reader_that_is_wrong_has_negative_information():
    spec = CodeSpec.parse("bern:1")
    assert information(spec, spec.posterior(torch.tensor([[5.0]])), torch.tensor([[0.0]])) < 0


def test_without_codes_there_is_no_information():
    spec = CodeSpec.parse("none")
    assert information(spec, [], torch.zeros(4, 0)).shape == (4, 0)
    assert information_weights(spec, 1.0).shape == (0,)


# ---- what Q reads from real images ---------------------------------------------------------------------


def two_views(n, seed):
    """Q of a cat:3, a unif:1 and a bern:1 for two views of n images; its probabilities by scipy."""
    draw = torch.Generator().manual_seed(seed)
    params = [torch.randn(n, 6, generator=draw, dtype=torch.float64) for _ in range(2)]
    three = [scipy.special.softmax(x.numpy()[:, :3], axis=1) for x in params]
    one = [scipy.special.expit(x.numpy()[:, 5:]) for x in params]
    return params, [three, None, [np.concatenate([1 - p, p], axis=1) for p in one]]


SPEC = CodeSpec.parse("cat:3,unif:1,bern:1")


@given(st.integers(0, 2**31), st.integers(1, 7), st.floats(0.5, 3.0))
def test_what_two_views_agree_on_is_the_entropy_of_qs_mean_less_their_cross_entropy(seed, n, evenness):
    params, probabilities = two_views(n, seed)
    expected = []
    for pair in probabilities:
        if pair is None:
            expected.append(0.0)
            continue
        p, q = pair
        entropy = scipy.stats.entropy(np.concatenate(pair).mean(0))
        cross = [scipy.stats.entropy(a) + scipy.stats.entropy(a, b) for a, b in [*zip(p, q), *zip(q, p)]]
        expected.append(evenness * entropy - np.mean(cross))
    got = agreed_information(SPEC, *(SPEC.posterior(x) for x in params), evenness)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@given(st.integers(0, 2**31), st.integers(1, 7))
def test_with_equal_views_and_weights_it_is_the_information_that_q_reads_from_the_batch(seed, n):
    (params, _), probabilities = two_views(n, seed)
    posterior = SPEC.posterior(params)
    got = agreed_information(SPEC, posterior, posterior, evenness=1.0)
    expected = [
        0.0 if pair is None else scipy.stats.entropy(pair[0].mean(0)) - scipy.stats.entropy(pair[0].T).mean()
        for pair in probabilities
    ]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_a_q_that_is_sure_consistent_and_even_reads_the_weighted_ceiling_and_one_that_is_not_less():
    spec = CodeSpec.parse("cat:3,bern:1")
    sure = (
        torch.cat([torch.eye(3).repeat(2, 1), torch.tensor([[1.0], [1], [1], [-1], [-1], [-1]])], dim=1) * 60
    )
    ceilings = torch.tensor(list(spec.ceilings().values()))

    def read(one, two):
        return agreed_information(spec, spec.posterior(one), spec.posterior(two), evenness=1.5)

    torch.testing.assert_close(read(sure, sure), 1.5 * ceilings)
    one_value = sure[:1].expand(6, -1)
    torch.testing.assert_close(read(one_value, one_value), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(read(0 * sure, 0 * sure), 0.5 * ceilings)
    assert (read(sure, sure.roll(1, dims=0)) < 0).all()


@pytest.mark.parametrize("logit", [5.0, 20.0, 200.0, 1e4])
def test_the_gradient_of_what_q_reads_is_finite_however_sure_q_is(logit):
    spec = CodeSpec.parse("cat:3,bern:1")
    params = (torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 1], [1, 0, 0, 1]]) * logit).requires_grad_()
    other = spec.posterior(params.roll(1, dims=0))
    agreed_information(spec, spec.posterior(params), other).sum().backward()
    assert params.grad.isfinite().all()


def test_without_codes_nothing_is_read():
    assert agreed_information(CodeSpec.parse("none"), [], []).shape == (0,)


def test_beta_weighs_every_code_unless_uniform_codes_have_a_weight_of_their_own():
    spec = CodeSpec.parse("cat:3,unif:1,bern:1")
    assert information_weights(spec, 0.5).tolist() == [0.5, 0.5, 0.5]
    assert information_weights(spec, 0.5, 0.25).tolist() == [0.5, 0.25, 0.5]
    assert information_weights(spec, 0.5, 0.0).tolist() == [0.5, 0.0, 0.5]
