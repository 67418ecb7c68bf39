"""Memorisation where it is known, and reading factors back where they are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from metrics.errors import MetricError
from metrics.memorisation import memorisation
from metrics.readers import fit_reader

DRAW = np.random.default_rng(0)


def test_fresh_images_of_the_same_kind_are_as_far_as_real_ones() -> None:
    found = memorisation(DRAW.normal(size=(600, 8)), DRAW.normal(size=(300, 8)))
    assert found.interval[0] < 0.5 < found.interval[1]
    assert found.copies.value < 0.02


def test_copies_are_nearer_than_any_real_image_of_another() -> None:
    x = DRAW.normal(size=(200, 8))
    found = memorisation(x, x + 1e-3)
    # Half of the images are the reference: copies of those are certain, copies of the others are fresh.
    assert found.copies.value == pytest.approx(0.5, abs=0.02)
    assert found.value > 0.7
    np.testing.assert_array_equal(found.nearest[found.reference], found.reference)


def test_images_of_another_kind_lie_farther_than_real_ones() -> None:
    assert memorisation(DRAW.normal(size=(200, 8)), DRAW.normal(size=(100, 8)) + 5).value < 0.01


def test_no_patient_is_on_both_sides() -> None:
    """Two photographs of each eye: split by image, a real image's nearest is its own twin."""
    eyes = np.repeat(DRAW.normal(size=(150, 8)), 2, axis=0) + DRAW.normal(size=(300, 8)) * 1e-3
    patients = np.repeat([f"p{i}" for i in range(150)], 2)
    fresh = DRAW.normal(size=(200, 8))
    found = memorisation(eyes, fresh, patients=patients)
    assert found.interval[0] < 0.5 < found.interval[1]
    assert len(np.intersect1d(patients[found.reference], np.delete(patients, found.reference))) == 0
    # Without the patients, real images look as if they were copies, and copying would go unseen.
    assert memorisation(eyes, fresh).value < 0.4


def test_the_value_is_the_statistic_of_mann_and_whitney() -> None:
    found = memorisation(DRAW.normal(size=(80, 3)), DRAW.normal(size=(50, 3)) * 0.7)
    u = mannwhitneyu(found.real_distance, found.distance).statistic
    assert found.value == pytest.approx(u / (len(found.real_distance) * len(found.distance)))


def test_mistakes_are_named() -> None:
    x = DRAW.normal(size=(10, 3))
    with pytest.raises(MetricError, match="9 patients for 10 real images"):
        memorisation(x, x, patients=["a"] * 9)
    with pytest.raises(MetricError, match="too few"):
        memorisation(x, x, patients=["a"] * 10)
    with pytest.raises(MetricError, match="NaN"):
        memorisation(x, x * np.nan)


def test_a_factor_that_features_hold_is_read_and_one_they_do_not_is_known_to_be_unreadable() -> None:
    x = DRAW.normal(size=(600, 20))
    held = 2.0 * x[:, 3] - x[:, 5] + 7 + DRAW.normal(size=600) * 0.1
    reader = fit_reader(x, held)
    assert reader.r2 > 0.98
    assert reader.readable
    np.testing.assert_allclose(reader(x), held, atol=0.6)
    assert reader.spread == pytest.approx(held.std())
    lost = fit_reader(x, DRAW.normal(size=600))
    assert lost.r2 < 0.1
    assert not lost.readable


def test_a_reader_of_fewer_images_than_features_is_judged_on_images_that_it_has_not_seen() -> None:
    x = DRAW.normal(size=(60, 200))
    assert fit_reader(x, DRAW.normal(size=60)).r2 < 0.3


def test_a_readers_mistakes_are_named() -> None:
    x = DRAW.normal(size=(30, 3))
    with pytest.raises(MetricError, match="constant"):
        fit_reader(x, np.ones(30))
    with pytest.raises(MetricError, match="NaN"):
        fit_reader(x, np.full(30, np.nan))
    with pytest.raises(MetricError, match="20 or more"):
        fit_reader(x[:10], np.arange(10))
