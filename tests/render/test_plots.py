"""Facts about infostylegan.render.plots."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import infostylegan
from infostylegan.render.plots import (
    _spread,
    code_colours,
    information_figure,
    moving_average,
    plot_information,
)

ROOT = Path(infostylegan.__file__).parents[1]
CEILINGS = {"cat0": math.log(3), "bern0": math.log(2), "bern1": math.log(2), "unif0": 1.0}


def record(kimg, *nats, **more):
    return {"kimg": kimg, "information": dict(zip(CEILINGS, nats)), **more}


def lines(axes):
    """The curves, without the dashed ceiling."""
    return [line for line in axes.get_lines() if line.get_linestyle() == "-"]


def ceiling(axes):
    (line,) = (line for line in axes.get_lines() if line.get_linestyle() == "--")
    return line.get_ydata()[0]


def words(axes):
    return " ".join(text.get_text() for text in axes.texts)


def test_moving_average_is_the_mean_of_the_last_finite_values():
    values = np.array([1.0, 3.0, np.nan, 5.0, np.inf, np.nan, np.nan, 2.0])
    got = moving_average(values, 3)
    np.testing.assert_allclose(got, [1, 2, 2, 4, 5, 5, np.nan, 2])
    np.testing.assert_allclose(moving_average(np.arange(5.0), 1), np.arange(5.0))
    assert len(moving_average(np.array([]), 3)) == 0


def test_left_is_the_sum_of_the_discrete_codes_below_their_entropy():
    left, _ = information_figure([record(0, 0.1, 0.2, 0.3, 9), record(10, 0.2, 0.3, 0.4, 9)], CEILINGS).axes
    (total,) = lines(left)
    np.testing.assert_allclose(total.get_xdata(), [0, 10])
    np.testing.assert_allclose(total.get_ydata(), [0.6, 0.9])
    assert ceiling(left) == pytest.approx(math.log(3) + 2 * math.log(2))
    assert f"{math.log(12):.2f}" in words(left)


def test_right_is_each_code_as_a_share_of_its_ceiling_named_at_its_end():
    _, right = information_figure(
        [record(0, 0, 0, 0, 0), record(10, math.log(3), 0.0, 0.3, 0.5)], CEILINGS
    ).axes
    ends = [line.get_ydata()[-1] for line in lines(right)]
    np.testing.assert_allclose(ends, [1.0, 0.0, 0.3 / math.log(2), 0.5])
    assert ceiling(right) == 1.0
    for text in ("cat0  1.00", "bern0  0.00", "bern1  0.43", "unif0  0.50"):
        assert text in words(right)


def test_records_out_of_order_or_without_information_do_no_harm():
    records = [record(10, 2, 0, 0, 0), {"kimg": 5.0}, {"information": {}}, record(0, 1, 0, None, 0)]
    left, right = information_figure(records, CEILINGS).axes
    np.testing.assert_allclose(lines(right)[0].get_xdata(), [0, 10])
    np.testing.assert_allclose(
        lines(left)[0].get_ydata(), [np.nan, 2]
    )  # one code unknown: the sum is unknown
    assert [r["kimg"] for r in records if "kimg" in r] == [10, 5.0, 0]  # the caller's list is as it was


def test_codes_without_a_positive_ceiling_are_named_and_not_drawn():
    _, right = information_figure([record(1, 1, 0, 0, -0.3)] * 2, CEILINGS | {"unif0": -0.226}).axes
    assert len(lines(right)) == 3
    assert "positive ceiling: unif0" in words(right)


def test_a_deep_start_does_not_squeeze_the_curves_but_the_present_is_always_in_sight():
    start = record(0, -50, -50, -50, -50)
    for last, low in ((0.5, -1), (-3.0, -8)):
        for axes in information_figure([start, record(10, last, 0, 0, last)], CEILINGS).axes:
            bottom, top = axes.get_ylim()
            assert bottom >= low
            assert all(bottom <= line.get_ydata()[-1] <= top for line in lines(axes))


def test_fades_are_bands_from_the_record_before_and_resolutions_are_written():
    info = (0.1, 0.1, 0.1, 0.1)
    records = [
        record(10, *info, resolution=8, fade=1.0),
        record(20, *info, resolution=16, fade=0.5),
        record(30, *info, resolution=16, fade=1.0),
    ]
    for axes in information_figure(records, CEILINGS).axes:
        (band,) = axes.patches
        assert (band.get_x(), band.get_width()) == (10, 10)
        assert "8²" in words(axes)
        assert "16²" in words(axes)
    without = information_figure([record(1, *info, resolution=32, fade=1.0)] * 2, CEILINGS).axes
    assert not any(axes.patches or "²" in words(axes) for axes in without)


def test_names_at_the_ends_keep_their_order_and_distance_and_stay_inside():
    rng = np.random.default_rng(0)
    for n in (1, 2, 18):
        for scale in (0.0, 0.05, 1.0):
            places = np.sort(rng.uniform(0.5 - scale / 2, 0.5 + scale / 2, n))
            spread = np.array(_spread(list(places), 0.05, 0.0, 1.0))
            assert (np.diff(spread) >= 0.05 - 1e-9).all()
            assert spread.min() >= -1e-9
            assert spread.max() <= 1 + 1e-9
    assert _spread([0.2, 0.5], 0.05, 0, 1) == pytest.approx([0.2, 0.5])
    assert _spread([0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.45, 0.55])


def test_each_code_has_its_own_colour():
    names = [f"{kind}{i}" for kind in ("cat", "bern", "unif", "other", "more") for i in range(10)]
    assert len(set(code_colours(names).values())) == 50


@pytest.mark.parametrize(
    "records", [[], [record(4, 1, 0, 0, 0.5)], [record(k, 1, 0, 0, k) for k in range(9)]]
)
def test_a_png_is_written_however_little_there_is_to_draw(tmp_path, records):
    for ceilings in (CEILINGS, {"unif0": 1.0}, {}):
        plot_information(records, ceilings, tmp_path / "information.png")
        with Image.open(tmp_path / "information.png") as image:
            assert image.format == "PNG"
            assert min(image.size) > 400
    assert [p.name for p in tmp_path.iterdir()] == ["information.png"]


def test_drawing_needs_no_display_and_no_pyplot(tmp_path):
    script = """
import sys
from infostylegan.render.plots import plot_information
assert "matplotlib" not in sys.modules
plot_information([], {"cat0": 1.0}, sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    path = tmp_path / "a.png"
    subprocess.run([sys.executable, "-c", script, path], cwd=ROOT, check=True)
    assert path.stat().st_size > 1000
