"""Facts about automatic judges of attribute control."""

import numpy as np
import pytest

from metrics import automatic_acm
from metrics.errors import MetricError
from metrics.judges import PIXEL_JUDGES, brightness, contrast, coverage, hue, pigmentation


def rows(*lists):
    return np.array(lists, float)


def test_a_row_that_rises_all_the_way_is_controlled_and_a_still_one_is_not():
    found = automatic_acm(rows([0, 1, 2], [1, 2, 3], [1, 1, 1]), least=1)
    assert found.votes.tolist() == [True, True, False]
    assert found.value == pytest.approx(2 / 3)
    assert found.rising


def test_a_movement_smaller_than_the_least_does_not_count():
    m = rows([0, 0.5, 0.9], [0, 0.5, 1.0])
    assert automatic_acm(m, least=1).votes.tolist() == [False, True]


def test_a_row_that_runs_against_the_others_is_not_consistent():
    found = automatic_acm(rows([2, 1, 0], [2, 1, 0], [0, 1, 2]), least=1)
    assert found.votes.tolist() == [True, True, False]
    assert not found.rising


def test_turning_back_is_forgiven_up_to_the_slack():
    m = rows([0, 1, 0.91, 2], [0, 1.5, 1.1, 2], [0, 3, 2.9, 2])
    assert automatic_acm(m, least=1, slack=0.1).votes.tolist() == [True, False, False]
    assert automatic_acm(m, least=1, slack=0.0).votes.tolist() == [False, False, False]


def test_the_vote_of_a_row_does_not_depend_on_its_level():
    rng = np.random.default_rng(0)
    m = np.cumsum(rng.normal(0.5, 0.5, (50, 6)), axis=1)
    shifted = m + rng.normal(0, 100, (50, 1))
    assert (automatic_acm(m, least=1).votes == automatic_acm(shifted, least=1).votes).all()
    assert (automatic_acm(m, least=1).votes == automatic_acm(-m, least=1).votes).all()


def test_values_of_a_categorical_have_no_order_but_the_same_one_is_highest():
    m = rows([0, 5, 1], [1, 6, 0], [5, 0, 1], [0, 0.5, 0])
    assert automatic_acm(m, least=1, ordered=False).votes.tolist() == [True, True, False, False]


def test_noise_is_hardly_ever_consistent():
    m = np.random.default_rng(0).normal(size=(2000, 8))
    assert automatic_acm(m, least=1).value < 0.05


@pytest.mark.parametrize(
    ("measures", "options", "message"),
    [
        (rows([1], [2]), {"least": 1}, "two values or more"),
        (np.zeros(3), {"least": 1}, "two values or more"),
        (rows([1, np.nan]), {"least": 1}, "row 0 has a measure"),
        (rows([1, 2]), {"least": 0}, "least must be above 0"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(measures, options, message):
    with pytest.raises(MetricError, match=message):
        automatic_acm(measures, **options)


def plain(*rgb):
    return np.tile(np.array(rgb, np.uint8)[None, :, None, None], (1, 1, 8, 8))


def test_brightness_of_gray_is_its_level_and_leaves_out_the_dark_surround():
    gray = plain(102, 102, 102)
    assert brightness(gray) == pytest.approx(0.4)
    field = gray.copy()
    field[:, :, :4] = 0
    assert brightness(field) == pytest.approx(0.4)
    assert coverage(field) == pytest.approx(0.5)
    assert brightness(plain(0, 0, 0)) == 0


def test_brightness_weighs_the_channels_as_rec_601():
    assert brightness(plain(0, 255, 0)) == pytest.approx(0.587)


def test_contrast_of_two_levels_is_half_their_distance():
    image = plain(51, 51, 51)
    image[:, :, :4] = 153
    assert contrast(image) == pytest.approx(0.2)
    assert contrast(plain(77, 77, 77)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("rgb", "degrees"), [((200, 0, 0), 0), ((200, 200, 0), 60), ((0, 200, 0), 120), ((200, 0, 200), -60)]
)
def test_hue_is_the_angle_of_the_colour_circle(rgb, degrees):
    assert hue(plain(*rgb)) == pytest.approx(degrees, abs=1e-6)


def test_pigmentation_is_the_share_of_red_and_light_does_not_move_it():
    assert pigmentation(plain(90, 90, 90)) == pytest.approx(1 / 3)
    assert pigmentation(plain(200, 100, 50)) == pytest.approx(200 / 350)
    assert pigmentation(plain(100, 50, 25)) == pytest.approx(200 / 350)


def test_every_judge_reads_gray_images_too_and_refuses_floats():
    gray = np.full((2, 1, 8, 8), 128, np.uint8)
    for judge in PIXEL_JUDGES.values():
        assert judge(gray).shape == (2,)
        with pytest.raises(MetricError, match="must be uint8"):
            judge(gray / 255.0)


def test_the_judges_read_back_the_factors_of_drawn_retinas():
    from infostylegan.data.fundus import render_batch

    images, factors = render_batch(0, range(150), 32)
    images = images.transpose(0, 3, 1, 2)
    assert np.corrcoef(brightness(images), factors["brightness"])[0, 1] > 0.6
    assert abs(np.corrcoef(pigmentation(images), factors["pigmentation"])[0, 1]) > 0.6
    print(
        {
            n: np.corrcoef(j(images), factors[f])[0, 1]
            for n, j in PIXEL_JUDGES.items()
            for f in ["pigmentation"]
        }
    )
    print(
        {n: np.corrcoef(j(images), factors[f])[0, 1] for n, j in PIXEL_JUDGES.items() for f in ["brightness"]}
    )
    print(
        {
            n: np.corrcoef(j(images), factors[f])[0, 1]
            for n, j in PIXEL_JUDGES.items()
            for f in ["field_of_view"]
        }
    )
