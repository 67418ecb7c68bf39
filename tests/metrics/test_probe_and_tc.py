"""Facts about the linear probe, total correlation and the agreement of metrics."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm, spearmanr

from metrics import (
    DiscreteQ,
    NormalQ,
    TruncatedNormalQ,
    aggregate_total_correlation,
    conditional_total_correlation,
    linear_probe,
    mig,
    rank_agreement,
)
from metrics.errors import MetricError

LOG2 = np.log(2)


# ---------------------------------------------------------------------- the probe


def blobs(n=600, classes=3, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return 4 * np.eye(classes)[y] + rng.normal(0, spread, (n, classes)), y


def test_features_that_hold_the_label_predict_it_and_noise_predicts_the_commonest_class():
    x, y = blobs(spread=0.1)
    assert linear_probe(x, y).value == 1
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.8).astype(int)
    found = linear_probe(rng.normal(size=(2000, 5)), y)
    assert found.value == pytest.approx(found.majority, abs=0.01)
    assert found.balanced == pytest.approx(0.5, abs=0.02)
    assert found.kappa == pytest.approx(0, abs=0.02)


def test_accuracy_of_two_overlapping_classes_is_that_of_the_best_line():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 20_000)
    x = rng.normal(size=(20_000, 3))
    x[:, 0] += 2 * y
    assert linear_probe(x, y).value == pytest.approx(norm.cdf(1), abs=0.015)


def test_its_figures_are_those_of_the_confusion_it_reports():
    x, y = blobs(spread=3.0)
    found = linear_probe(x, y)
    c = found.confusion
    assert c.sum() == found.held_out == 600 - found.train
    assert found.value == pytest.approx(np.trace(c) / c.sum())
    assert found.balanced == pytest.approx((np.diag(c) / c.sum(axis=1)).mean())
    w = (np.arange(3)[:, None] - np.arange(3)) ** 2
    chance = np.outer(c.sum(axis=1), c.sum(axis=0)) / c.sum()
    assert found.quadratic_kappa == pytest.approx(1 - (w * c).sum() / (w * chance).sum())
    assert found.kappa == pytest.approx(1 - (c.sum() - np.trace(c)) / (c.sum() - np.trace(chance)))
    assert found.interval[0] < found.value < found.interval[1]


def test_the_held_out_samples_are_not_learned_from():
    # Labels at random, more features than samples: whoever learns them by heart scores 1 on what was learned.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 400)), rng.integers(0, 2, 200)
    assert linear_probe(x, y).value < 0.7


def test_a_patient_is_never_on_both_sides():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(100), 4)
    # A patient's images look alike, and labels are drawn by patient: leaking would give full marks.
    x = rng.normal(size=(100, 120))[patient] + rng.normal(0, 0.01, (400, 120))
    y = rng.integers(0, 2, 100)[patient]
    leaky, safe = linear_probe(x, y), linear_probe(x, y, groups=patient)
    assert leaky.value > 0.95
    assert safe.value < 0.75
    with pytest.raises(MetricError, match="both sides"):
        linear_probe(x, y, groups=patient, held_out=np.arange(400) % 2 == 0)


def test_a_given_split_is_kept():
    x, y = blobs()
    held = np.arange(600) >= 500
    found = linear_probe(x, y, held_out=held)
    assert (found.train, found.held_out) == (500, 100)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: linear_probe(x, None), "labels must be one a sample"),
        (lambda x, y: linear_probe(x, y[:-1]), r"got \(599,\) for 600"),
        (lambda x, y: linear_probe(x, np.zeros(600)), "two classes or more"),
        (lambda x, y: linear_probe(np.full_like(x, np.nan), y), "NaN or infinity"),
        (lambda x, y: linear_probe(x, y, held_out=1.5), "between 0 and 1"),
        (lambda x, y: linear_probe(x, y, held_out=y == 2), "class 2 has no sample to learn from"),
        (lambda x, y: linear_probe(x, y, held_out=np.zeros(600, bool)), "no sample is held out"),
        (lambda x, y: linear_probe(x, y, groups=y[:10]), "groups must be one a sample"),
    ],
)
def test_what_cannot_be_probed_is_refused_in_one_line(call, message):
    with pytest.raises(MetricError, match=message):
        call(*blobs())


# ---------------------------------------------------------------------- total correlation given the image


def test_codes_that_the_image_tells_apart_have_no_total_correlation():
    rng = np.random.default_rng(0)
    c = rng.integers(0, [2, 3], (3000, 2))
    found = conditional_total_correlation(c, c + rng.normal(0, 0.1, (3000, 2)))
    assert found.value == pytest.approx(0, abs=0.01)
    assert found.mean_field == pytest.approx(0, abs=0.02)


def test_an_image_that_tells_only_whether_two_coins_agree_leaves_one_bit_of_total_correlation():
    rng = np.random.default_rng(0)
    c = rng.integers(0, 2, (4000, 2))
    found = conditional_total_correlation(c, c[:, 0] ^ c[:, 1])
    assert found.value == pytest.approx(LOG2, abs=0.02)
    assert found.mean_field == pytest.approx(-2 * LOG2, abs=0.02)
    assert found.joint == pytest.approx(-LOG2, abs=0.02)
    assert found.per_code == pytest.approx([0, found.value])


def test_an_image_that_shows_the_sum_of_two_coins_has_half_a_bit():
    # Sum 0 or 2 tells all; sum 1, half of the time, leaves one bit that both coins share.
    rng = np.random.default_rng(1)
    c = rng.integers(0, 2, (4000, 2))
    found = conditional_total_correlation(c, c.sum(axis=1))
    assert found.value == pytest.approx(LOG2 / 2, abs=0.03)
    assert abs(found.value - LOG2 / 2) < 4 * found.error


def test_entangled_codes_that_the_image_tells_have_no_total_correlation_either():
    # The image shows c1 xor c2, and c2: turning c2 always changes both, and TC is 0 all the same.
    rng = np.random.default_rng(4)
    c = rng.integers(0, 2, (3000, 2))
    shown = np.stack([c[:, 0] ^ c[:, 1], c[:, 1]], axis=1)
    assert conditional_total_correlation(c, shown).value == pytest.approx(0, abs=0.01)
    q = [DiscreteQ(np.eye(2)[c[:, i]]) for i in (0, 1)]
    found = mig(q, {"a1": shown[:, 0], "a2": shown[:, 1]})
    assert found.information[0] == pytest.approx([0, 0], abs=0.002)  # no code alone tells anything of a1


def test_the_gap_of_the_bound_is_total_correlation_plus_what_q_misses_of_each_code():
    # The identity behind Lemma 3.1, by enumeration: a random channel and a random Q that factorises.
    rng = np.random.default_rng(0)
    given_c = rng.dirichlet(np.ones(5) * 0.3, (2, 3))  # p(x | c1, c2)
    joint = given_c / 6
    px = joint.sum(axis=(0, 1))
    true = joint / px  # p(c1, c2 | x)
    one, two = true.sum(axis=1), true.sum(axis=0)
    q1, q2 = rng.dirichlet(np.ones(2), 5).T, rng.dirichlet(np.ones(3), 5).T
    information = (joint * np.log(true * 6)).sum()
    bound = (joint * (np.log(q1)[:, None] + np.log(q2)[None])).sum() + np.log(6)
    tc = (joint * np.log(true / (one[:, None] * two[None]))).sum()
    missed = (px * (one * np.log(one / q1)).sum(axis=0)).sum() + (
        px * (two * np.log(two / q2)).sum(axis=0)
    ).sum()
    assert information - bound == pytest.approx(tc + missed)
    assert tc > 0.01


def test_codes_that_leave_no_trace_in_the_image_have_none_either():
    rng = np.random.default_rng(2)
    found = conditional_total_correlation(rng.uniform(-1, 1, (6000, 2)), rng.normal(size=(6000, 3)), bins=4)
    assert found.value == pytest.approx(0, abs=0.02)
    assert found.mean_field == pytest.approx(-2 * np.log(4), abs=0.05)


def test_a_continuous_pair_known_by_its_difference_is_as_related_as_its_bins():
    rng = np.random.default_rng(3)
    c = rng.uniform(-1, 1, (6000, 2))
    found = conditional_total_correlation(c, c[:, 0] - c[:, 1], bins=4)
    # By numeric integration over the difference and the bins of both.
    u = (np.arange(1000) + 0.5) / 500 - 1
    a, b = np.meshgrid(u, u, indexing="ij")
    d = np.digitize((a - b).ravel(), np.linspace(-2, 2, 201))
    cell = (np.digitize(a, [-0.5, 0, 0.5]) * 4 + np.digitize(b, [-0.5, 0, 0.5])).ravel()
    p = np.zeros((202, 16))
    np.add.at(p, (d, cell), 1)
    p = (p / p.sum()).reshape(202, 4, 4)
    pd = p.sum(axis=(1, 2), keepdims=True)
    pa, pb = p.sum(axis=2, keepdims=True), p.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        want = np.nansum(p * np.log(p * pd / (pa * pb)))
    assert found.value == pytest.approx(want, abs=0.06)
    assert want > 0.4


@pytest.mark.parametrize(
    ("codes", "evidence", "message"),
    [
        (np.zeros((30, 2)), np.zeros((29, 1)), r"evidence must be \[N, F\] for 30 samples"),
        (np.zeros((30, 2)), np.full((30, 1), np.nan), "evidence holds NaN"),
        (
            np.arange(30) == np.random.default_rng(0).permutation(30)[-1],
            np.zeros(30),
            "code 0.: class 1 has no sample among the 20 to learn from",
        ),
        (np.full((30, 1), np.inf), np.zeros(30), "code 0 of sample 0 is inf"),
    ],
)
def test_what_no_total_correlation_can_be_estimated_from_is_refused_in_one_line(codes, evidence, message):
    with pytest.raises(MetricError, match=message):
        conditional_total_correlation(codes, evidence)


# ---------------------------------------------------------------------- of the aggregate posterior


def brackets(found, value, slack=0.02):
    return found.value - slack <= value <= found.upper + slack


def test_independent_codes_have_none():
    rng = np.random.default_rng(0)
    q = [DiscreteQ(np.eye(3)[rng.integers(0, 3, 2000)]), DiscreteQ(rng.random(2000).round())]
    found = aggregate_total_correlation(q)
    assert brackets(found, 0, 0.01)
    assert found.upper < 0.02


def test_two_copies_of_a_fair_coin_have_one_bit():
    coin = (np.arange(1000) % 2).astype(float)
    found = aggregate_total_correlation([DiscreteQ(coin), DiscreteQ(coin)])
    assert found.value == pytest.approx(LOG2, abs=0.01)
    assert found.upper == pytest.approx(LOG2, abs=0.01)


def test_two_correlated_gaussians_have_the_closed_form():
    # Locations of correlation rho, plus independent noise: the aggregate is a Gaussian of correlation r.
    rng = np.random.default_rng(0)
    loc = multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]]).rvs(4000, random_state=rng)
    found = aggregate_total_correlation([NormalQ(loc[:, i], 0.5) for i in (0, 1)])
    r = 0.9 / 1.25
    assert brackets(found, -0.5 * np.log(1 - r**2), 0.03)
    assert found.upper - found.value < 0.05


def test_too_few_images_for_many_sharp_codes_show_in_the_width_of_the_bracket():
    rng = np.random.default_rng(0)
    q = [TruncatedNormalQ(rng.uniform(-1, 1, 200), 0.02) for _ in range(6)]
    found = aggregate_total_correlation(q, draws=300)
    assert found.value <= 0 <= found.upper
    assert found.upper - found.value > 5


# ---------------------------------------------------------------------- agreement of metrics


def test_rank_agreement_is_scipys_spearman_correlation():
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(size=12).round(1) for name in "abc"}
    found = rank_agreement(scores)
    want = spearmanr(np.stack(list(scores.values()), axis=1)).statistic
    assert found.correlation == pytest.approx(want)
    assert found.value == pytest.approx(want[np.triu_indices(3, 1)].mean())
    assert (found.names, found.models) == (("a", "b", "c"), 12)


def test_any_increasing_map_of_a_metric_agrees_fully_and_a_constant_one_says_nothing():
    a = np.array([0.1, 0.4, 0.2, 0.9])
    found = rank_agreement({"a": a, "exp": np.exp(a), "down": -a, "flat": np.ones(4)})
    assert found.correlation[0, 1:3] == pytest.approx([1, -1])
    assert np.isnan(found.correlation[3]).all()


def test_a_model_without_a_value_is_left_out_of_that_pair():
    found = rank_agreement({"a": [1, 2, 3, np.nan], "b": [1, 2, 3, 0], "c": [4, 3, 2, 9]})
    assert found.correlation[0, 1] == pytest.approx(1)
    assert found.correlation[1, 2] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": [1, 2], "b": [2, 1]}, "three models or more, and there are 2"),
        ({"a": [1, 2, 3]}, "two metrics or more"),
        ({"a": [1, 2, 3], "b": [1, 2]}, "a value of every model"),
    ],
)
def test_too_few_models_or_metrics_are_refused(scores, message):
    with pytest.raises(MetricError, match=message):
        rank_agreement(scores)
