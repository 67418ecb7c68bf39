"""Facts about CodeSpec: its text, its samples and what the generator reads."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from infostylegan import CodeError, CodeSpec
from infostylegan.codes import Bernoulli, Categorical, Uniform

PAPER = "cat:3,bern:7,unif:10"
TEXTS = st.lists(
    st.one_of(
        st.integers(2, 12).map(lambda k: f"cat:{k}"),
        st.integers(1, 5).map(lambda n: f"bern:{n}"),
        st.integers(1, 5).map(lambda n: f"unif:{n}"),
    ),
    min_size=1,
    max_size=5,
).map(",".join)


# ---- text ----------------------------------------------------------------------------------------------


def test_the_papers_codes_are_one_category_seven_coins_and_ten_uniforms():
    spec = CodeSpec.parse(PAPER)
    assert [type(code) for code in spec] == [Categorical] + [Bernoulli] * 7 + [Uniform] * 10
    assert spec.names == ["cat0", *(f"bern{i}" for i in range(7)), *(f"unif{i}" for i in range(10))]
    assert spec[0].k == 3
    assert len(spec) == 18
    assert spec.width == 3 + 7 + 10
    assert spec.posterior_width == 3 + 7 + 2 * 10
    assert CodeSpec.parse(PAPER, uniform="unit").posterior_width == 3 + 7 + 10


def test_repeated_categories_are_codes_of_their_own():
    spec = CodeSpec.parse("cat:2,cat:5")
    assert spec.names == ["cat0", "cat1"]
    assert [code.width for code in spec] == [2, 5]


@given(TEXTS, st.sampled_from(["unit", "gaussian", "truncnormal"]), st.floats(0.01, 1.0))
def test_text_and_configuration_give_the_same_spec_back(text, uniform, sigma_min):
    spec = CodeSpec.parse(text, uniform=uniform, sigma_min=sigma_min)
    assert CodeSpec.parse(str(spec), uniform=uniform, sigma_min=sigma_min) == spec
    again = CodeSpec.from_config(spec.to_config())
    assert again == spec
    assert again.names == spec.names
    assert len(set(spec.names)) == len(spec)


def test_neighbours_of_one_kind_are_written_together():
    spec = CodeSpec.parse(" bern:1 ,bern:2, unif:1,bern:1,cat:2,cat:2")
    assert str(spec) == "bern:3,unif:1,bern:1,cat:2,cat:2"


def test_none_is_the_empty_set_and_reads_back():
    spec = CodeSpec.parse("none")
    assert len(spec) == spec.width == spec.posterior_width == 0
    assert spec.entropy() == 0
    assert spec.ceilings() == {}
    assert str(spec) == "none"
    assert CodeSpec.from_config(spec.to_config()) == spec
    c = spec.sample(4)
    assert c.shape == (4, 0)
    assert spec.encode(c).shape == (4, 0)
    assert spec.log_prior(c).shape == (4, 0)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "''"),
        ("nonsense", "'nonsense'"),
        ("3", "'3'"),
        ("cat", "'cat'"),
        ("cat:", "'cat:'"),
        ("cat:-1", "'cat:-1'"),
        ("cat:0", "'cat:0'"),
        ("cat:2.5", "'cat:2.5'"),
        ("cat:²", "'cat:²'"),
        ("bern:0", "'bern:0'"),
        ("unif:x", "'unif:x'"),
        ("cat:3,", "''"),
        ("cat:3,none", "'none'"),
        ("dog:3,cat:3", "'dog:3'"),
        ("cat:3;bern:2", "'cat:3;bern:2'"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_with_the_part_and_the_right_spelling(text, part):
    with pytest.raises(CodeError) as caught:
        CodeSpec.parse(text)
    assert part in str(caught.value)
    assert "cat:3,bern:7,unif:10" in str(caught.value)


def test_a_category_of_one_value_is_refused_by_name():
    with pytest.raises(CodeError, match=r"cat:1: .*at least 2"):
        CodeSpec.parse("bern:1,cat:1")


@pytest.mark.parametrize("sigma_min", [0.0, -1.0, 1.5, float("nan")])
def test_an_impossible_least_scale_is_refused(sigma_min):
    with pytest.raises(CodeError, match="sigma_min"):
        CodeSpec.parse("unif:1", sigma_min=sigma_min)


def test_an_unknown_posterior_family_is_refused_with_the_choices():
    with pytest.raises(CodeError, match="unit, gaussian, truncnormal"):
        CodeSpec.parse("unif:1", uniform="laplace")


# ---- priors --------------------------------------------------------------------------------------------


@given(TEXTS)
def test_entropy_is_the_sum_of_ln_k_and_ln_2(text):
    expected = 0.0
    for part in text.split(","):
        kind, number = part.split(":")
        expected += math.log(int(number)) if kind == "cat" else int(number) * math.log(2)
    assert CodeSpec.parse(text).entropy() == pytest.approx(expected, rel=1e-12)


@given(TEXTS, st.integers(1, 20))
def test_the_log_prior_is_minus_the_entropy_of_each_code_at_every_value(text, n):
    spec = CodeSpec.parse(text)
    log_prior = spec.log_prior(spec.sample(n))
    expected = torch.tensor([-code.entropy for code in spec]).expand(n, -1)
    assert log_prior.shape == (n, len(spec))
    torch.testing.assert_close(log_prior, expected, rtol=1e-6, atol=0)


def test_samples_follow_their_priors():
    spec = CodeSpec.parse("cat:5,bern:1,unif:1")
    c = spec.sample(20_000, generator=torch.Generator().manual_seed(1)).numpy()
    assert c.dtype == np.float32
    for column, k in ((0, 5), (1, 2)):
        values, counts = np.unique(c[:, column], return_counts=True)
        assert values.tolist() == list(range(k))
        assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert scipy.stats.kstest(c[:, 2], scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3
    correlation = np.corrcoef(c.T) - np.eye(3)
    assert np.abs(correlation).max() < 4 / math.sqrt(20_000)


def test_the_same_generator_state_draws_the_same_codes():
    spec = CodeSpec.parse(PAPER)
    one, two = (spec.sample(9, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, spec.sample(9, generator=torch.Generator().manual_seed(8)))


# ---- what the generator reads --------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 10])
def test_each_encoded_column_of_a_category_has_exactly_mean_0_and_variance_1(k):
    encoded = CodeSpec.parse(f"cat:{k}").encode(torch.arange(k).float()[:, None]).double()
    torch.testing.assert_close(encoded.mean(0), torch.zeros(k, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        encoded.square().mean(0), torch.ones(k, dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_a_coin_is_encoded_as_minus_one_or_one():
    encoded = CodeSpec.parse("bern:1").encode(torch.tensor([[0.0], [1.0]]))
    assert encoded.tolist() == [[-1.0], [1.0]]


def test_an_encoded_uniform_code_has_exactly_mean_0_and_variance_1():
    # Gauss-Legendre integrates a polynomial over the prior exactly.
    nodes, weights = np.polynomial.legendre.leggauss(8)
    encoded = CodeSpec.parse("unif:1").encode(torch.tensor(nodes)[:, None])[:, 0].numpy()
    assert weights @ encoded / 2 == pytest.approx(0, abs=1e-12)
    assert weights @ encoded**2 / 2 == pytest.approx(1, rel=1e-12)


@given(TEXTS, st.integers(0, 2**31))
def test_plain_encoding_is_the_one_hot_and_the_values_themselves(text, seed):
    spec = CodeSpec.parse(text)
    c = spec.sample(5, generator=torch.Generator().manual_seed(seed))
    parts = []
    for code, column in zip(spec, c.numpy().T):
        parts.append(np.eye(code.k)[column.astype(int)] if code.kind == "cat" else column[:, None])
    assert np.array_equal(spec.encode(c, plain=True).numpy(), np.concatenate(parts, axis=1))


@given(TEXTS, st.integers(0, 2**31))
def test_the_standard_encoding_is_an_affine_map_of_the_plain_one(text, seed):
    spec = CodeSpec.parse(text)
    c = spec.sample(5, generator=torch.Generator().manual_seed(seed))
    mean, std = [], []
    for code in spec:
        if code.kind == "cat":
            mean += [1 / code.k] * code.k
            std += [math.sqrt(code.k - 1) / code.k] * code.k
        else:
            mean += [0.5 if code.kind == "bern" else 0.0]
            std += [0.5 if code.kind == "bern" else 1 / math.sqrt(3)]
    expected = (spec.encode(c, plain=True).double() - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(spec.encode(c).double(), expected, rtol=1e-5, atol=1e-6)


def test_changing_one_code_changes_only_its_own_columns():
    spec = CodeSpec.parse("cat:3,bern:2,unif:2")
    owner = torch.tensor([0, 0, 0, 1, 2, 3, 4])
    c = spec.sample(1)
    changed = torch.tensor([[(c[0, 0] + 1) % 3, 1 - c[0, 1], 1 - c[0, 2], c[0, 3] / 2 + 0.1, -c[0, 4]]])
    for i in range(len(spec)):
        other = c.clone()
        other[0, i] = changed[0, i]
        differs = (spec.encode(other) != spec.encode(c))[0]
        assert not differs[owner != i].any()
        assert differs[owner == i].any()


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 4), (2, 3, 1)])
def test_codes_of_another_shape_are_refused_with_both_shapes(shape):
    with pytest.raises(CodeError) as caught:
        CodeSpec.parse("cat:3,bern:1,unif:1").encode(torch.zeros(shape))
    assert "[N, 3]" in str(caught.value)
    assert str(list(shape)) in str(caught.value)


# ---- traversals ----------------------------------------------------------------------------------------


def test_a_traversal_visits_every_category_both_sides_of_a_coin_and_the_whole_range_of_a_uniform():
    cat, bern, unif = CodeSpec.parse("cat:4,bern:1,unif:1")
    assert cat.traversal().tolist() == [0, 1, 2, 3]
    assert cat.traversal(9).tolist() == [0, 1, 2, 3]
    assert bern.traversal(9).tolist() == [0, 1]
    for steps in (2, 5, 9):
        np.testing.assert_allclose(unif.traversal(steps).numpy(), np.linspace(-1, 1, steps), atol=1e-6)
    assert unif.traversal()[[0, -1]].tolist() == [-1, 1]


def test_a_traversal_of_a_uniform_code_has_eight_steps_unless_told():
    assert len(CodeSpec.parse("unif:1")[0].traversal()) == 8


def test_the_values_of_a_traversal_can_all_be_encoded():
    spec = CodeSpec.parse("cat:4,bern:1,unif:1")
    for values in itertools.product(*(code.traversal().tolist() for code in spec)):
        assert spec.encode(torch.tensor([values])).isfinite().all()


def test_a_count_beyond_any_latent_is_refused_before_it_is_built() -> None:
    with pytest.raises(CodeError, match="9999"):
        CodeSpec.parse("bern:1000000000")
