"""KID against brute force, published values, a closed form and its own interval's coverage."""

from __future__ import annotations

import json

import numpy as np
import pytest

from metrics import kid


def brute_force(x: np.ndarray, y: np.ndarray) -> float:
    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return float(xx + yy - 2 * np.mean([k(a, b) for a in x for b in y]))


def test_kid_is_the_sum_over_all_pairs() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(23, 7)), draw.normal(size=(31, 7)) + 0.4
    assert kid(x, y).value == pytest.approx(brute_force(x, y), rel=1e-12)


def test_blocks_do_not_change_the_value() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(50, 7)), draw.normal(size=(41, 7)) + 0.4
    whole = kid(x, y)
    parts = kid(x, y, block=16)
    assert parts.value == pytest.approx(whole.value, rel=1e-12)
    assert parts.error == pytest.approx(whole.error, rel=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "gauss_closed_form_d64",
        "efflite0_idrid_train120__idrid_test100",
        "efflite0_idrid_train120__congress120",
    ],
)
def test_the_reference_values_of_the_full_unbiased_estimate_are_met(name: str, shared) -> None:
    folder = shared / "data" / "fid_reference"
    expected = json.loads((folder / "expected.json").read_text())["pairs"][name]["kid_poly3_unbiased_full"]
    with np.load(folder / f"{name}.npz") as pair:
        found = kid(pair["A"], pair["B"])
    assert found.value == pytest.approx(expected, abs=1e-8)
    assert found.interval[0] < found.value < found.interval[1]


def mmd_of_normals(mean: float) -> float:
    """MMD² in one dimension between N(0, 1) and N(mean, 1): moments of (xy + 1)³, by hand.

    E (xy + 1)³ = E x³ E y³ + 3 E x² E y² + 3 E x E y + 1 for independent x and y.
    """
    p, q = (0.0, 1.0, 0.0), (mean, 1 + mean**2, mean**3 + 3 * mean)

    def cross(a, b):
        return a[2] * b[2] + 3 * a[1] * b[1] + 3 * a[0] * b[0] + 1

    return cross(p, p) + cross(q, q) - 2 * cross(p, q)


def test_the_interval_covers_the_true_value_as_often_as_it_says() -> None:
    draw = np.random.default_rng(3)
    truth, hits, values = mmd_of_normals(0.5), 0, []
    for _ in range(300):
        found = kid(draw.normal(size=(200, 1)), draw.normal(size=(200, 1)) + 0.5)
        hits += found.interval[0] <= truth <= found.interval[1]
        values.append(found.value)
    assert np.mean(values) == pytest.approx(truth, abs=3 * np.std(values) / np.sqrt(300))
    # Binomial: 285 of 300 expected, standard deviation 3.8; the statistic is skewed at 200 samples.
    assert 270 <= hits <= 298


def test_mistakes_are_named() -> None:
    x = np.zeros((5, 3))
    with pytest.raises(ValueError, match="3 and 4 dimensions"):
        kid(x, np.zeros((5, 4)))
    with pytest.raises(ValueError, match="generated features hold NaN"):
        kid(x, np.full((5, 3), np.nan))
    with pytest.raises(ValueError, match="real features must be"):
        kid(x[:1], x)
