"""Facts about the mathematics of the Attribute Control Metric."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from metrics import acm, cohen_kappa, fleiss_kappa, gwet_ac1, proportion, self_consistency
from metrics.errors import MetricError


def votes(yes, n):
    return [1] * yes + [0] * (n - yes)


@pytest.mark.parametrize(("yes", "printed"), [(96, 3.8), (71, 8.9)])
def test_the_margin_is_that_of_the_papers_table_3(yes, printed):
    assert round(100 * acm(votes(yes, 100)).margin, 1) == printed


def test_for_97_of_100_the_margin_is_3_3_points_where_the_papers_table_prints_3_4():
    assert round(100 * acm(votes(97, 100)).margin, 1) == 3.3


@given(n=st.integers(1, 300), data=st.data())
def test_wilsons_interval_is_that_of_scipy(n, data):
    yes = data.draw(st.integers(0, n))
    interval = binomtest(yes, n).proportion_ci(0.95, method="wilson")
    ours = acm(votes(yes, n))
    assert ours.value == yes / n
    # scipy takes 1.95996… for 1.96: the interval moves by less than that share of its width.
    assert ours.interval == pytest.approx((interval.low, interval.high), abs=2e-5)


def test_wilsons_interval_says_something_where_the_margin_is_nought():
    score = acm(votes(100, 100))
    assert score.margin == 0
    assert score.interval[0] == pytest.approx(100 / (100 + 1.96**2))
    assert score.interval[1] == pytest.approx(1)


def test_more_raters_of_the_same_rows_do_not_narrow_the_interval():
    one = np.array(votes(30, 50), float)
    assert acm(np.stack([one] * 5, axis=1)) == acm(one)


def test_a_row_counts_with_the_share_of_its_raters_and_rows_without_votes_do_not_count():
    table = [[1, 1], [1, 0], [0, np.nan], [np.nan, np.nan]]
    assert acm(table).value == pytest.approx((1 + 0.5 + 0) / 3)
    assert acm(table).n == 3


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60).filter(
        lambda pairs: len({vote for pair in pairs for vote in pair}) == 2
    )
)
def test_cohens_kappa_is_that_of_scikit_learn(pairs):
    a, b = zip(*pairs)
    assert cohen_kappa(a, b).value == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


def test_fleiss_kappa_of_the_textbook_formula_for_equally_many_raters():
    rng = np.random.default_rng(0)
    table = (rng.random((40, 5)) < rng.random((40, 1))).astype(float)
    counts = np.stack([table.sum(1), 5 - table.sum(1)], axis=1)  # Fleiss 1971
    observed = ((counts**2).sum(1) - 5).mean() / (5 * 4)
    expected = ((counts.sum(0) / counts.sum()) ** 2).sum()
    found = fleiss_kappa(table)
    assert found.value == pytest.approx((observed - expected) / (1 - expected))
    assert (found.observed, found.expected) == pytest.approx((observed, expected))


def test_kappa_falls_and_ac1_does_not_where_nearly_all_votes_are_yes():
    # 95 of 100 rows: both yes; 5: one yes, one no. Gwet 2008, with p = 0.975 of yes.
    table = np.array([[1, 1]] * 95 + [[1, 0]] * 3 + [[0, 1]] * 2, float)
    chance = 2 * 0.975 * 0.025
    assert gwet_ac1(table).value == pytest.approx((0.95 - chance) / (1 - chance))
    assert gwet_ac1(table).value > 0.94
    assert fleiss_kappa(table).value < 0


def test_agreement_beyond_chance_is_undefined_where_all_votes_are_yes_and_ac1_is_one():
    table = np.ones((10, 3))
    assert math.isnan(fleiss_kappa(table).value)
    assert math.isnan(cohen_kappa(table[:, 0], table[:, 1]).value)
    assert gwet_ac1(table).value == 1


def test_raters_who_vote_at_random_agree_no_more_than_chance():
    table = (np.random.default_rng(1).random((20000, 3)) < 0.7).astype(float)
    assert abs(fleiss_kappa(table).value) < 0.02
    assert abs(cohen_kappa(table[:, 0], table[:, 1]).value) < 0.02


def test_missing_votes_leave_the_rest_as_it_is():
    table = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1]], float)
    padded = np.vstack([table, [[1, np.nan, np.nan]]])
    for measure in (fleiss_kappa, gwet_ac1):
        assert measure(padded) == measure(table)


def test_a_rater_who_says_the_same_again_is_consistent():
    assert self_consistency([1, 0, 1], [1, 0, 1]).value == 1
    assert self_consistency([1, 0, 1, 1], [1, 1, 1, 1]).value == 0.75


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: acm([]), "no votes"),
        (lambda: acm([np.nan]), "no votes"),
        (lambda: acm([1, 2]), "row 1 has 2"),
        (lambda: acm(np.zeros((2, 2, 2))), r"got \[2, 2, 2\]"),
        (lambda: fleiss_kappa([[1, np.nan]]), "two raters or more"),
        (lambda: cohen_kappa([1, 0], [1]), "equally many"),
        (lambda: cohen_kappa([1, np.nan], [np.nan, 1]), "no common row"),
        (lambda: proportion(1.5, 10), "within 0 … 1"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_one_line(call, message):
    with pytest.raises(MetricError, match=message):
        call()
