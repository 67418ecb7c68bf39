"""The fundus renderer: the same everywhere, and each factor changes what it names and nothing else."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infostylegan.data import fundus
from infostylegan.data.fundus import FACTORS, RESOLUTIONS, render, render_batch, sample_factors

PLAIN: dict[str, float | int] = {
    "pigmentation": 0.45,
    "brightness": 0.5,
    "glare": 0,
    "eye_side": 0,
    "field_of_view": 0,
    "cup_size": 0.5,
    "vessel_calibre": 1.0,
    "dr_grade": 0,
}
PEOPLE = range(6)


def picture(resolution: int = 64, index: int = 0, **change: float) -> np.ndarray:
    return render({**PLAIN, **change}, resolution, seed=1, index=index).astype(np.int64)


def changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two pictures differ, [R, R]."""
    return np.abs(a - b).max(axis=2) > 0


def radius_of_pixels(resolution: int) -> np.ndarray:
    c = (np.arange(resolution) + 0.5) * 2 / resolution - 1
    return np.hypot(c[None, :], c[:, None])


def box(image: np.ndarray, resolution: int) -> np.ndarray:
    k = image.shape[0] // resolution
    return image.reshape(resolution, k, resolution, k, 3).mean(axis=(1, 3))


# ---------------------------------------------------------------------------------------- determinism

DIGEST_CODE = """
import hashlib, sys
from infostylegan.data.fundus import render_batch
h = hashlib.sha256()
for resolution, indices in ((16, range(4)), (64, (0, 7, 123456)), (512, (3,))):
    images, factors = render_batch(5, indices, resolution)
    h.update(images.tobytes())
    for name in factors:
        h.update(factors[name].tobytes())
sys.stdout.write(h.hexdigest())
"""
GOLDEN = "51d55653700e91178e1dc68e68db36a087f27b3d77f666dd413ebebdf332ba32"


def test_pictures_and_factors_are_the_recorded_ones_in_a_fresh_process() -> None:
    out = subprocess.run([sys.executable, "-c", DIGEST_CODE], capture_output=True, text=True, check=True)
    assert out.stdout == GOLDEN


def test_a_picture_does_not_depend_on_what_was_rendered_before() -> None:
    alone = render_batch(3, [9], 32)[0][0]
    among = render_batch(3, [1, 5, 9, 2], 32)[0][2]
    assert np.array_equal(alone, among)


def test_different_seeds_and_indices_give_different_pictures() -> None:
    digests = {
        hashlib.sha256(render(PLAIN, 16, seed=seed, index=index).tobytes()).hexdigest()
        for seed in range(3)
        for index in range(8)
    }
    assert len(digests) == 24


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_shape_and_type_at_every_resolution(resolution: int) -> None:
    images, factors = render_batch(0, np.array([4]), resolution)
    assert images.shape == (1, resolution, resolution, 3)
    assert images.dtype == np.uint8
    assert list(factors) == [f.name for f in FACTORS]
    assert images[0, 0, 0].max() == 0  # The corner lies outside every aperture.
    assert images.max() > 60


# -------------------------------------------------------------------------------------------- factors


def test_factors_follow_their_stated_distributions_and_are_uncorrelated() -> None:
    n = 4000
    table = {f.name: np.array([sample_factors(11, i)[f.name] for i in range(n)]) for f in FACTORS}
    for f in FACTORS:
        drawn = table[f.name]
        if f.values is None:
            assert drawn.min() >= f.low
            assert drawn.max() <= f.high
            assert drawn.mean() == pytest.approx((f.low + f.high) / 2, abs=0.03 * (f.high - f.low))
            assert drawn.std() == pytest.approx((f.high - f.low) / 12**0.5, rel=0.05)
        else:
            assert f.probabilities is not None
            assert sum(f.probabilities) == pytest.approx(1)
            for value, p in zip(f.values, f.probabilities, strict=True):
                assert (drawn == value).mean() == pytest.approx(p, abs=0.035)
    correlation = np.corrcoef(np.stack(list(table.values())))
    assert np.abs(correlation - np.eye(len(FACTORS))).max() < 0.07


def test_factor_arrays_match_single_draws_and_carry_the_kind_in_their_type() -> None:
    _, factors = render_batch(2, [3, 8], 8)
    for f in FACTORS:
        assert factors[f.name].dtype == (np.float64 if f.kind == "continuous" else np.int64)
        assert factors[f.name].tolist() == [sample_factors(2, i)[f.name] for i in (3, 8)]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    index=st.integers(0, 2**63 - 1),
    values=st.fixed_dictionaries(
        {f.name: st.sampled_from(f.values) if f.values else st.floats(f.low, f.high) for f in FACTORS}
    ),
)
def test_any_valid_input_renders_a_retina_on_black(seed: int, index: int, values: dict[str, float]) -> None:
    image = render(values, 16, seed=seed, index=index)
    assert image[0, 0].max() == 0
    red, _, blue = image[4:12, 4:12].reshape(-1, 3).astype(float).mean(axis=0)
    assert red > blue


@pytest.mark.parametrize("index", PEOPLE)
def test_more_brightness_is_brighter(index: int) -> None:
    means = [picture(32, index, brightness=b).mean() for b in np.linspace(0, 1, 6)]
    assert np.all(np.diff(means) > 1)


@pytest.mark.parametrize("index", PEOPLE)
def test_more_pigmentation_is_darker_and_redder(index: int) -> None:
    pictures = [picture(32, index, pigmentation=p) for p in np.linspace(0, 1, 6)]
    assert np.all(np.diff([p.mean() for p in pictures]) < -1)
    redness = [p[..., 0].sum() / p.sum() for p in pictures]
    assert np.all(np.diff(redness) > 0)


@pytest.mark.parametrize("index", PEOPLE)
@pytest.mark.parametrize("field", [0, 1, 2])
def test_glare_is_a_pale_light_near_the_edge_only(index: int, field: int) -> None:
    without = picture(64, index, field_of_view=field)
    with_glare = picture(64, index, field_of_view=field, glare=1)
    where = changed(without, with_glare)
    assert where.sum() > 40
    assert not where[radius_of_pixels(64) < 0.4].any()
    # Whitish and bluish: blue gains, and gains more than red does.
    gain = (with_glare - without)[where].mean(axis=0)
    assert gain[2] > max(10, gain[0])


@pytest.mark.parametrize("index", PEOPLE)
def test_eye_side_mirrors_the_disc(index: int) -> None:
    def disc_column(side: int) -> float:
        # The difference between two cup sizes lies inside the disc and nowhere else.
        a, b = (picture(64, index, eye_side=side, cup_size=c) for c in (0.2, 0.8))
        return float(np.argwhere(changed(a, b))[:, 1].mean())

    left, right = disc_column(0), disc_column(1)
    assert left < 26
    assert left + right == pytest.approx(63, abs=0.6)


def test_eye_side_mirrors_the_retina_but_not_the_camera() -> None:
    inside = radius_of_pixels(64) < 0.8
    left, right = (picture(64, 0, eye_side=s, dr_grade=4)[..., 1] for s in (0, 1))
    assert np.corrcoef(left[inside], right[:, ::-1][inside])[0, 1] > 0.85
    assert np.corrcoef(left[inside], right[inside])[0, 1] < 0.5
    glare = [picture(64, 0, eye_side=s, glare=1) - picture(64, 0, eye_side=s) for s in (0, 1)]
    heavy = [np.argwhere(g[..., 2] > 40).mean(axis=0) for g in glare]
    assert np.abs(heavy[0] - heavy[1]).max() < 4


def test_field_of_view_changes_the_mask_and_leaves_the_retina() -> None:
    for index in PEOPLE:
        full, flat, small = (picture(64, index, field_of_view=f) for f in (0, 1, 2))
        masks = [image.max(axis=2) > 10 for image in (full, flat, small)]
        assert masks[0].sum() > masks[1].sum() > masks[2].sum()
        assert masks[0][3, 32]
        assert not masks[1][3, 32]  # Flat top.
        assert not masks[1][60, 32]  # Flat bottom.
        assert masks[1][32, 0]
        inside = (radius_of_pixels(64) < 0.76)[..., None]
        assert np.array_equal(full * inside, flat * inside)
        assert np.array_equal(full * inside, small * inside)


def test_only_the_small_field_has_an_alignment_tab_and_it_lies_at_the_upper_right() -> None:
    for field in (0, 1, 2):
        mask = fundus._aperture(128, field)
        odd = np.argwhere(mask > mask[:, ::-1] + 0.5)  # What has no counterpart in the mirror.
        assert (len(odd) > 0) == (field == 2)
        for row, column in odd:
            assert row < 40
            assert column > 88


@pytest.mark.parametrize("index", PEOPLE)
def test_cup_size_brightens_only_the_disc(index: int) -> None:
    sizes = [picture(128, index, cup_size=c) for c in (0.2, 0.4, 0.6, 0.8)]
    means = [image.mean() for image in sizes]
    assert np.all(np.diff(means) > 0)
    spots = np.argwhere(changed(sizes[0], sizes[-1])) * 2 / 128
    assert np.ptp(spots, axis=0).max() < 0.4


@pytest.mark.parametrize("index", PEOPLE)
def test_wider_vessels_darken_more_of_the_picture(index: int) -> None:
    thin, middle, wide = (picture(128, index, vessel_calibre=c)[..., 1] for c in (0.7, 1.05, 1.4))
    assert thin.mean() > middle.mean() > wide.mean()
    # Vessels only ever darken; a grey level of slack covers rounding.
    assert (wide - thin).max() <= 1


@pytest.mark.parametrize("index", PEOPLE)
def test_each_grade_adds_lesions_to_those_of_the_grade_before(index: int) -> None:
    healthy = picture(128, index)
    counts = [changed(picture(128, index, dr_grade=g), healthy).sum() for g in range(5)]
    assert counts[0] == 0
    assert counts[1] >= 8
    assert np.all(np.diff(counts) > 0)


def test_grade_zero_draws_no_lesion_and_every_kind_appears_by_grade_four() -> None:
    eye = fundus._anatomy(1, 0)
    none, all_kinds = (fundus._draw_lesions(1, 0, g, 128, eye) for g in (0, 4))
    assert max(none.dark.max(), none.yellow.max(), none.white.max()) == 0
    assert not none.new_vessels
    assert all_kinds.dark.any()
    assert all_kinds.yellow.any()
    assert all_kinds.white.any()
    assert all_kinds.new_vessels


def test_nuisance_does_not_depend_on_the_factors() -> None:
    """Lesions, cup and calibre leave the pixels that they do not touch bit for bit alone."""
    base = picture(128, 2)
    away = {"dr_grade": 2, "cup_size": 0.8, "vessel_calibre": 1.4}
    for name, value in away.items():
        same = ~changed(base, picture(128, 2, **{name: value}))
        assert same.mean() > (0.6 if name == "vessel_calibre" else 0.9), name
    # Exposure scales the same scene: the two pictures agree once their levels are ranked.
    bright, dim = picture(64, 2, brightness=1.0), picture(64, 2, brightness=0.0)
    inside = radius_of_pixels(64) < 0.8
    assert np.corrcoef(bright[inside][:, 1], dim[inside][:, 1])[0, 1] > 0.97


# ----------------------------------------------------------------------------------------- resolution


@pytest.mark.parametrize("resolution", [8, 32, 64, 128, 256])
def test_the_scene_is_the_same_at_every_resolution(resolution: int) -> None:
    for index, grade in ((0, 0), (1, 4)):
        small = picture(resolution, index, dr_grade=grade)
        large = box(picture(512, index, dr_grade=grade), resolution)
        assert np.sqrt(((small - large) ** 2).mean()) < 2.5
        assert np.corrcoef(small.reshape(-1), large.reshape(-1))[0, 1] > 0.995


# --------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("resolution", [0, 4, 63, 100, 1024, -64, 64.0, "64", None, True])
def test_an_unknown_resolution_is_refused_by_value(resolution: object) -> None:
    with pytest.raises(ValueError, match="resolution must be one of 8, 16"):
        render(PLAIN, resolution, seed=0, index=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="resolution must be one of 8, 16"):
        render_batch(0, [0], resolution)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dr_grade": 5}, "dr_grade"),
        ({"glare": 0.5}, "glare"),
        ({"cup_size": 0.9}, "cup_size"),
        ({"brightness": float("nan")}, "brightness"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_bad_factor_is_refused_by_name(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render({**PLAIN, **change}, 8, seed=0, index=0)


def test_a_missing_factor_and_a_negative_index_are_refused() -> None:
    with pytest.raises(ValueError, match="differs in glare"):
        render({k: v for k, v in PLAIN.items() if k != "glare"}, 8, seed=0, index=0)
    with pytest.raises(ValueError, match="index"):
        render(PLAIN, 8, seed=0, index=-1)
    with pytest.raises(ValueError, match="seed"):
        sample_factors(-3, 0)
