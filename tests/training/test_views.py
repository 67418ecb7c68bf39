"""Facts about random views: what they may change and what they must leave."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st

from infostylegan.views import ROTATION, SCALE, SHEAR, SHIFT, random_affine, random_stroke, random_view

SEEDS = st.integers(0, 2**31)
VIEWS = pytest.mark.parametrize("view", [random_view, random_affine, random_stroke])


def blobs(n=3, size=16, channels=1):
    """A soft round spot a little off the centre of each image, on black."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centre = (size - 1) / 2
    ink = torch.exp(-((x - centre - 1) ** 2 + (y - centre + 1) ** 2) / 8.0) * 1.5
    return (ink - 1).expand(n, channels, size, size).clone()


@VIEWS
def test_a_view_of_strength_0_is_the_image_itself(view):
    images = blobs(channels=3)
    torch.testing.assert_close(view(images, 0.0), images, rtol=1e-5, atol=1e-5)


@VIEWS
@given(seed=SEEDS, strength=st.floats(0, 2))
def test_a_view_has_the_shape_and_range_of_an_image_and_black_stays_black(view, seed, strength):
    torch.manual_seed(seed)
    images = torch.rand(3, 2, 8, 8) * 2 - 1
    seen = view(images, strength)
    assert seen.shape == images.shape
    assert seen.min() >= -1 - 1e-5
    assert seen.max() <= 1 + 1e-5
    black = torch.full((2, 3, 8, 8), -1.0)
    torch.testing.assert_close(view(black, strength), black, rtol=0, atol=1e-6)


@VIEWS
def test_each_image_has_a_view_of_its_own_that_does_not_depend_on_the_others(view):
    images = blobs(3)
    torch.manual_seed(1)
    seen = view(images)
    assert (seen[0] - seen[1]).abs().max() > 0.01
    other = images.clone()
    other[1:] = torch.rand_like(other[1:])
    torch.manual_seed(1)
    assert torch.equal(view(other)[0], seen[0])


@VIEWS
def test_the_same_seed_gives_the_same_view(view):
    torch.manual_seed(5)
    one = view(blobs())
    torch.manual_seed(5)
    assert torch.equal(view(blobs()), one)


def test_the_channels_of_an_image_move_together():
    torch.manual_seed(0)
    seen = random_view(blobs(4, channels=3))
    torch.testing.assert_close(seen[:, 0], seen[:, 1])
    torch.testing.assert_close(seen[:, 0], seen[:, 2])


@VIEWS
def test_gradients_reach_the_image_and_are_right_in_float64(view):
    torch.manual_seed(0)
    images = (torch.rand(1, 1, 5, 5, dtype=torch.float64) - 0.7).requires_grad_()

    def seeded(x):
        torch.manual_seed(3)
        return view(x, 0.5)

    assert torch.autograd.gradcheck(seeded, images, atol=1e-4, rtol=1e-3, eps=1e-5)


@given(SEEDS)
def test_an_affine_view_is_scipys_resampling_by_some_matrix_within_the_stated_ranges(seed):
    """The matrix is recovered from where three spots go; its parts must lie within the ranges."""
    size = 64
    images = blobs(1, size)
    y, x = np.mgrid[:size, :size]
    spots = [(31.5, 31.5), (31.5, 41.5), (41.5, 31.5)]  # y, x
    probe = np.stack([np.exp(-((y - a) ** 2 + (x - b) ** 2) / 18) - 1 for a, b in spots])[None]
    torch.manual_seed(seed)
    seen = random_affine(torch.cat([torch.tensor(probe).float(), images], dim=1))[0].numpy() + 1
    mass = seen[:3].sum((1, 2))
    centres = np.stack([(seen[:3] * y).sum((1, 2)) / mass, (seen[:3] * x).sum((1, 2)) / mass], axis=1)
    forward = np.stack([(centres[1] - centres[0]) / 10, (centres[2] - centres[0]) / 10], axis=1)[:, ::-1]
    matrix = np.linalg.inv(forward)  # from places in the view to places in the image, as (y, x)
    offset = np.array(spots[0]) - matrix @ centres[0]
    expected = scipy.ndimage.affine_transform(images[0, 0].numpy() + 1, matrix, offset, order=1)
    inside = slice(16, 48)
    np.testing.assert_allclose(seen[3][inside, inside], expected[inside, inside], atol=0.03)
    # (x, y) order: columns are scale_x · (cos, sin) and scale_y · (shear · cos - sin, shear · sin + cos)
    a = matrix[::-1, ::-1]
    angle, scale_x = math.atan2(a[1, 0], a[0, 0]), math.hypot(a[0, 0], a[1, 0])
    scale_y = np.linalg.det(a) / scale_x
    shear = (a[0, 1] * math.cos(angle) + a[1, 1] * math.sin(angle)) / scale_y
    assert abs(angle) <= ROTATION + 0.01
    assert abs(math.log(scale_x)) <= SCALE + 0.01
    assert abs(math.log(scale_y)) <= SCALE + 0.01
    assert abs(shear) <= SHEAR + 0.02
    centre = np.array([31.5, 31.5])
    shift = (matrix @ centre + offset - centre) / size
    assert np.abs(shift).max() <= SHIFT + 0.01


def test_what_moves_in_from_outside_is_black():
    torch.manual_seed(0)
    white = torch.ones(200, 1, 16, 16)
    seen = random_affine(white)
    assert (seen[:, :, 7:9, 7:9] > 0.99).all()
    assert (seen < -0.99).any()


def test_strokes_grow_and_shrink_in_place_and_change_contrast_about_black():
    torch.manual_seed(0)
    images = blobs(200)
    seen = random_stroke(images) + 1
    ink = images + 1
    peak = seen.amax((1, 2, 3))
    assert (peak > 1.5 * 1.2).any()
    assert (peak < 1.5 / 1.2).any()
    assert (peak >= 1.5 * math.exp(-0.5) * 0.6).all()
    shape = seen / peak.view(-1, 1, 1, 1)
    area = (shape > 0.5).sum((1, 2, 3))
    plain = (ink[0] / ink[0].max() > 0.5).sum()
    assert (area > plain).any()
    assert (area < plain).any()
