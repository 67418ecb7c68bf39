"""Matched accuracy and spread, against cases whose answer is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import matched_accuracy, spread_within


def test_renamed_classes_match_perfectly() -> None:
    classes = np.arange(1000) % 10
    renamed = (classes * 3 + 4) % 10
    found = matched_accuracy(renamed, classes)
    assert found.accuracy == 1.0
    assert found.matching == {(k * 3 + 4) % 10: k for k in range(10)}


def test_a_dead_code_scores_its_largest_class() -> None:
    classes = np.array([0] * 6 + [1] * 3 + [2])
    assert matched_accuracy(np.zeros(10, int), classes).accuracy == 0.6


def test_two_merged_classes_cost_the_smaller_one() -> None:
    classes = np.repeat([0, 1, 2, 3], [40, 30, 20, 10])
    codes = np.where(classes == 3, 2, classes)
    assert matched_accuracy(codes, classes).accuracy == 0.9


def test_a_split_class_counts_its_larger_part() -> None:
    classes = np.repeat([0, 1], [10, 10])
    codes = np.array([0] * 7 + [2] * 3 + [1] * 10)
    assert matched_accuracy(codes, classes).accuracy == 17 / 20


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**31))
def test_no_one_to_one_renaming_does_better(k: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    codes, classes = draw.integers(0, k, 60), draw.integers(0, k, 60)
    best = max(np.mean(np.array(renaming)[codes] == classes) for renaming in permutations(range(k)))
    assert matched_accuracy(codes, classes).accuracy == pytest.approx(best, abs=1e-12)


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        matched_accuracy([0, 1], [0])


def test_groups_that_are_one_picture_each_have_no_spread_within() -> None:
    pictures = np.random.default_rng(0).normal(size=(3, 4, 4))
    groups = np.arange(30) % 3
    # The root of the rounding of a mean of equal numbers.
    assert spread_within(pictures[groups], groups) < 1e-7


def test_groups_that_do_not_differ_have_all_the_spread_within() -> None:
    pictures = np.random.default_rng(0).normal(size=(10, 4, 4))
    assert spread_within(np.tile(pictures, (3, 1, 1)), np.repeat([0, 1, 2], 10)) == pytest.approx(1.0)


def test_spread_follows_the_law_of_total_variance() -> None:
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 4, 500)
    means = draw.normal(size=(4, 6))
    x = means[groups] + draw.normal(size=(500, 6))
    of_means = np.stack([x[groups == k].mean(0) for k in range(4)])[groups].var(axis=0).mean()
    expected = np.sqrt(1 - of_means / x.var(axis=0).mean())
    assert spread_within(x, groups) == pytest.approx(expected, rel=1e-9)
