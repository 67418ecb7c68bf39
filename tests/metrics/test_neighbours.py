"""Precision and recall against brute force and cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from metrics import precision_recall
from metrics.neighbours import nearest_neighbours


def brute_force(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float]:
    rx, ry = np.sort(cdist(x, x))[:, k], np.sort(cdist(y, y))[:, k]
    d = cdist(x, y)
    return float((d <= rx[:, None]).any(0).mean()), float((d <= ry[None]).any(1).mean())


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(3, 40))
def test_blocks_of_any_size_give_what_all_distances_at_once_give(seed: int, k: int, block: int) -> None:
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(37, 3)), draw.normal(size=(29, 3)) * 1.3 + 0.5
    found = precision_recall(x, y, k, block=block)
    assert (found.precision.value, found.recall.value) == pytest.approx(brute_force(x, y, k))


def test_the_same_set_has_both_and_far_sets_have_neither() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4))
    same, far = precision_recall(x, x), precision_recall(x, x + 100)
    assert (same.precision.value, same.recall.value) == (1, 1)
    assert (far.precision.value, far.recall.value) == (0, 0)


def test_one_real_image_drawn_again_and_again_is_precise_and_recalls_little() -> None:
    x = np.random.default_rng(0).normal(size=(200, 4))
    found = precision_recall(x, np.repeat(x[:1], 60, axis=0))
    assert found.precision.value == 1
    assert found.recall.value == 1 / 200  # the copies' radius is 0: they cover the image that they are of


def test_the_nearest_real_image_of_each_generated_one_is_found() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(300, 5)) + 50, draw.normal(size=(70, 5)) + 50
    distance, nearest = cKDTree(x).query(y)
    found = precision_recall(x, y, block=64)
    np.testing.assert_array_equal(found.nearest_real, nearest)
    np.testing.assert_allclose(found.nearest_distance, distance, rtol=1e-9)
    again, how_far = nearest_neighbours(y, x, block=33)
    np.testing.assert_array_equal(again, nearest)
    np.testing.assert_allclose(how_far, distance, rtol=1e-9)


def test_mistakes_are_named() -> None:
    x = np.zeros((5, 3))
    with pytest.raises(ValueError, match="N above k = 5"):
        precision_recall(x, x, k=5)
    with pytest.raises(ValueError, match="generated features hold NaN"):
        precision_recall(x, np.full((5, 3), np.nan))
    with pytest.raises(ValueError, match="3 and 4 dimensions"):
        precision_recall(x, np.zeros((5, 4)))
