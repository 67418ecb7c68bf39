"""The Fréchet distance, against closed forms, published implementations' values and an exact route."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from metrics import FeatureStatistics, frechet_distance
from metrics.frechet import FewSamples, Moments, trace_of_root

DRAW = np.random.default_rng(5)


def covariance(dimensions: int, samples: int, draw: np.random.Generator = DRAW) -> np.ndarray:
    return np.cov(draw.normal(size=(samples, dimensions)) * draw.uniform(0.2, 3, dimensions), rowvar=False)


def exact_distance(a: np.ndarray, b: np.ndarray) -> float:
    """From the singular values of the centred features themselves: no covariance, no root."""
    x, y = ((f - f.mean(0)) / np.sqrt(len(f) - 1) for f in (a, b))
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * root)


def test_equal_covariances_leave_the_squared_distance_of_the_means() -> None:
    # pytorch-fid's own test: means 0 and 1 in 2048 dimensions.
    a, b = Moments(np.zeros(2048), np.eye(2048), 10**5), Moments(np.ones(2048), np.eye(2048), 10**5)
    found = frechet_distance(a, b)
    assert found.value == pytest.approx(2048, abs=1e-6)
    assert found.means == 2048
    assert found.covariances == pytest.approx(0, abs=1e-6)


def test_diagonal_covariances_agree_with_the_closed_form() -> None:
    s1, s2 = np.linspace(0.5, 2, 64), np.linspace(2, 0.5, 64)
    a = Moments(np.zeros(64), np.diag(s1), 1000)
    b = Moments(np.full(64, 0.3), np.diag(s2), 1000)
    assert frechet_distance(a, b).value == pytest.approx(16.306431588334746, abs=1e-10)
    assert frechet_distance(a, b).value == pytest.approx(
        64 * 0.09 + ((np.sqrt(s1) - np.sqrt(s2)) ** 2).sum(), abs=1e-10
    )


@pytest.mark.parametrize("dimensions", [1, 2, 17, 128])
def test_the_trace_of_the_root_is_that_of_scipys_sqrtm_to_6_decimals(dimensions: int) -> None:
    a, b = (np.atleast_2d(covariance(dimensions, 4 * dimensions + 8)) for _ in range(2))
    assert trace_of_root(a, b) == pytest.approx(np.trace(scipy.linalg.sqrtm(a @ b)).real, abs=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "gauss_closed_form_d64",
        "efflite0_idrid_train120__idrid_test100",
        "efflite0_idrid_train120__congress120",
    ],
)
def test_published_implementations_give_the_same_value_on_the_same_features(name: str, shared) -> None:
    folder = shared / "data" / "fid_reference"
    expected = json.loads((folder / "expected.json").read_text())["pairs"][name]
    with np.load(folder / f"{name}.npz") as pair, warnings.catch_warnings():
        warnings.simplefilter("ignore", FewSamples)
        a, b = pair["A"].astype(np.float64), pair["B"].astype(np.float64)
        found = frechet_distance(a, b).value
    assert found == pytest.approx(expected["pytorch_fid"], rel=1e-6)
    assert found == pytest.approx(expected["clean_fid"], rel=1e-6)
    # Where there are fewer samples than dimensions, those values carry the roots of rounding errors in some
    # 1,160 null dimensions (2e-5); the exact route does not, and agrees with ours to 1e-9.
    if len(a) < a.shape[1]:
        assert found == pytest.approx(exact_distance(a, b), abs=1e-8)


def test_a_singular_covariance_warns_and_is_still_answered() -> None:
    a, b = DRAW.normal(size=(20, 64)), DRAW.normal(size=(30, 64)) + 0.1
    with (
        pytest.warns(FewSamples, match="20 real samples in 64 dimensions"),
        pytest.warns(FewSamples, match="30 generated samples in 64 dimensions"),
    ):
        found = frechet_distance(a, b).value
    assert found == pytest.approx(exact_distance(a, b), abs=1e-9)


def test_one_singular_side_is_exact_whichever_side_it_is() -> None:
    a, b = DRAW.normal(size=(20, 64)), DRAW.normal(size=(500, 64)) + 0.1
    with pytest.warns(FewSamples):
        there, back = frechet_distance(a, b).value, frechet_distance(b, a).value
    assert there == pytest.approx(exact_distance(a, b), abs=1e-9)
    assert back == pytest.approx(there, abs=1e-9)


def test_constant_features_are_at_the_distance_of_their_means() -> None:
    with pytest.warns(FewSamples):
        assert frechet_distance(np.zeros((9, 30)), np.ones((9, 30))).value == pytest.approx(30, abs=1e-12)


@given(st.integers(2, 12), st.integers(0, 2**31))
def test_the_distance_is_zero_to_itself_symmetric_and_blind_to_rotation(dimensions: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(60, dimensions)), draw.normal(size=(50, dimensions)) * 2 + 1
    q = np.linalg.qr(draw.normal(size=(dimensions, dimensions)))[0]
    d = frechet_distance(a, b).value
    assert abs(frechet_distance(a, a).value) < 1e-6
    assert frechet_distance(b, a).value == pytest.approx(d, abs=1e-8)
    assert frechet_distance(a @ q, b @ q).value == pytest.approx(d, abs=1e-7)


@given(st.lists(st.integers(1, 1500), min_size=1, max_size=5))
def test_moments_gathered_from_batches_are_numpys(sizes: list[int]) -> None:
    draw = np.random.default_rng(1)
    features = (draw.normal(size=(sum(sizes) + 2, 5)) + 1e4).astype(np.float32)
    statistics = FeatureStatistics(5)
    for part in np.split(features, np.cumsum(sizes)):
        if len(part):
            statistics.append(part)
    found = statistics.moments()
    x = features.astype(np.float64)
    assert found.count == len(x)
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-10, atol=1e-10)


def test_gathering_holds_no_more_than_a_block_of_features() -> None:
    statistics = FeatureStatistics(4)
    for _ in range(100):
        statistics.append(DRAW.normal(size=(300, 4)))
        assert sum(len(part) for part in statistics._waiting) < 1024 + 300


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_refused_with_how_many_vectors_hold_it(bad: float) -> None:
    x = DRAW.normal(size=(10, 3))
    x[4, 1] = bad
    with pytest.raises(ValueError, match="1 of 10 feature vectors"):
        frechet_distance(x, DRAW.normal(size=(10, 3)))


def test_other_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="3 and 4 dimensions"):
        frechet_distance(DRAW.normal(size=(9, 3)), DRAW.normal(size=(9, 4)))
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        frechet_distance(DRAW.normal(size=(1, 3)), DRAW.normal(size=(9, 3)))
    with pytest.raises(ValueError, match=r"must be \[N, D\]"):
        frechet_distance(DRAW.normal(size=9), DRAW.normal(size=9))
