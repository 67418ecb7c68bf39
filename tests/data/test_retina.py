"""Photographs of retinas: the disc is found whatever surrounds it, and fills the square."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from infostylegan.data.disc import find_disc
from infostylegan.data.fundus import render_batch
from infostylegan.data.images import BadImage, encode_png
from infostylegan.data.retina import GAP, Recipe, _decode, _draft, cut_square, graham, optic_side, prepare

ROOT = Path(__file__).resolve().parents[2]


def photograph(
    width: int,
    height: int,
    x: float,
    y: float,
    radius: float,
    *,
    dark: int = 3,
    light: int = 150,
    seed: int = 0,
) -> np.ndarray:
    """A disc, brighter in its middle, with texture and a camera's noise, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:height, :width] + 0.5
    r = np.hypot(xx - x, yy - y) / radius
    texture = np.sin(xx / width * 40 + rng.uniform(0, 6)) * np.sin(yy / height * 31)
    inside = np.clip((1 - r) * radius + 0.5, 0, 1)  # one pixel of edge
    gray = dark + inside * light * (1 - 0.5 * r**2 + 0.1 * texture)
    picture = gray[..., None] * (1, 0.55, 0.25) + rng.normal(0, 1.5, (height, width, 3))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90, **options)
    return out.getvalue()


# ---- the disc


@given(
    st.integers(200, 320), st.integers(160, 240), st.floats(0.42, 0.58), st.floats(0.42, 0.58),
    st.floats(0.35, 0.65), st.integers(0, 1000),
)  # fmt: skip
def test_a_disc_is_found_to_a_pixel_wherever_it_lies_and_however_the_frame_cuts_it(
    width: int, height: int, across: float, down: float, size: float, seed: int
) -> None:
    x, y, radius = across * width, down * height, size * height
    disc = find_disc(photograph(width, height, x, y, radius, seed=seed))
    assert disc is not None
    if radius < 0.6 * height:  # a disc that the frame cuts more than that shows little of its edge
        assert disc.kind == "circle"
        assert np.hypot(disc.x - x, disc.y - y) < 1.5
        assert abs(disc.radius - radius) < 1.5


def test_a_notch_a_date_and_a_shaded_rim_do_not_move_the_disc() -> None:
    pixels = photograph(300, 220, 150, 110, 100).astype(float)
    yy, xx = np.mgrid[:220, :300] + 0.5
    pixels[(np.abs(xx - 244) < 8) & (np.abs(yy - 60) < 6)] = (150, 80, 40)  # the notch of the camera
    pixels[5:12, 5:60] = 255  # a date
    angle = np.arctan2(yy - 110, xx - 150)
    pixels[np.abs(angle - 2.5) < 0.5] *= 0.05  # a shaded sector, as by a lid
    disc = find_disc(pixels.astype(np.uint8))
    assert disc is not None
    assert np.hypot(disc.x - 150, disc.y - 110) < 2
    assert abs(disc.radius - 100) < 2


def test_a_gray_surround_is_dark_enough() -> None:
    disc = find_disc(photograph(240, 200, 120, 100, 80, dark=30))
    assert disc is not None
    assert abs(disc.radius - 80) < 1.5


def test_nothing_is_found_in_the_dark() -> None:
    rng = np.random.default_rng(0)
    assert find_disc(np.zeros((64, 64, 3), np.uint8)) is None
    assert find_disc(rng.integers(0, 8, (64, 64, 3), dtype=np.uint8)) is None


def test_a_frame_full_of_retina_is_taken_as_it_is_and_a_bright_box_gets_a_square() -> None:
    full = np.random.default_rng(0).integers(90, 160, (64, 96, 3), dtype=np.uint8)
    disc = find_disc(full)
    assert disc is not None
    assert (disc.kind, disc.square()) == ("frame", (0, -16, 96, 80))
    box = np.zeros((120, 200, 3), np.uint8)
    box[40:80, 30:170] = 120
    disc = find_disc(box)
    assert disc is not None
    assert disc.kind == "box"
    assert disc.square() == (30, -10, 170, 130)


# ---- the square


def test_the_disc_fills_the_square_and_black_fills_up_what_the_frame_cuts() -> None:
    content = jpeg(photograph(400, 240, 210, 120, 150))  # cut above and below
    made = prepare(content, Recipe(128))
    assert made.pixels.shape == (3, 128, 128)
    assert made.found == "circle"
    assert np.abs(np.subtract(made.crop, (60, -30, 360, 270))).max() <= 3
    lit = made.pixels[0] > 40
    assert lit.any(0).sum() >= 126  # from left to right
    assert not made.pixels[:, :12].any()
    assert not made.pixels[:, -12:].any()


def test_turning_the_camera_turns_the_result() -> None:
    pixels = photograph(300, 200, 160, 90, 80)
    exif = Image.Exif()
    exif[0x0112] = 6  # show it 90 degrees clockwise
    upright = prepare(encode_png(np.ascontiguousarray(np.rot90(pixels, -1).transpose(2, 0, 1))), Recipe(64))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", exif=exif)
    assert np.array_equal(prepare(out.getvalue(), Recipe(64)).pixels, upright.pixels)
    assert prepare(jpeg(pixels, exif=exif), Recipe(64)).crop == pytest.approx(upright.crop, abs=2)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("more", [1, 1.5])
def test_a_draft_differs_from_a_full_decode_by_less_than_a_gray_level(scale: int, more: float) -> None:
    side = more * GAP[scale] * 64 * scale  # the least, and more, for which this scale is drafted
    content = jpeg(photograph(round(1.2 * side), round(1.1 * side), 0.6 * side, 0.55 * side, 0.48 * side))
    assert _draft(content, 64, side) == scale
    (drafted, reduced, size), (full, _, _) = _decode(content, scale), _decode(content, 1)
    assert reduced == scale
    assert size == full.size
    left, top = 0.1 * side, 0.05 * side
    difference = cut_square(full, left, top, side, 64).astype(float)
    difference -= cut_square(drafted, left / scale, top / scale, side / scale, 64)
    yy, xx = np.mgrid[:64, :64] - 31.5
    away = np.hypot(xx, yy) < 0.48 * 64 - 4  # from the edge: Lanczos reaches 3 pixels, and the decoder one
    assert 0 < np.sqrt((difference[:, away] ** 2).mean()) < 1


def test_a_small_disc_in_a_large_frame_is_decoded_again_at_a_finer_scale() -> None:
    content = jpeg(photograph(640, 480, 300, 240, 100))
    assert _draft(content, 64, None) == 4  # what the frame suggests
    made = prepare(content, Recipe(64))
    left, top, right, _ = made.crop
    full = cut_square(_decode(content, 1)[0], left, top, right - left, 64)
    assert np.corrcoef(full.ravel(), made.pixels.ravel())[0, 1] > 0.99
    assert _draft(content, 64, right - left) == 2


def test_an_image_of_the_right_size_keeps_every_pixel() -> None:
    pixels = np.ascontiguousarray(photograph(64, 64, 32, 32, 32).transpose(2, 0, 1))
    assert np.array_equal(prepare(encode_png(pixels), Recipe(64)).pixels, pixels)


def test_small_discs_and_dark_pictures_are_refused() -> None:
    with pytest.raises(BadImage, match=r"the disc is \d+ pixels wide, less than 128"):
        prepare(jpeg(photograph(300, 200, 150, 100, 50)), Recipe(128))
    with pytest.raises(BadImage, match="all dark"):
        prepare(jpeg(np.zeros((200, 300, 3), np.uint8)), Recipe(64))
    with pytest.raises(BadImage, match="not an image"):
        prepare(b"", Recipe(64))


# ---- real photographs


@pytest.fixture(scope="module")
def real() -> list[Path]:
    shared = Path(os.environ.get("INFOSTYLEGAN_SHARED", ROOT.parent / "shared"))
    found = sorted((shared / "data/idrid_512/train").glob("*.jpg"))
    if not found:
        pytest.skip("the IDRiD photographs do not lie beside the repository, in ../shared/data/idrid_512")
    return found


def test_cropping_real_photographs_twice_is_cropping_them_once(real: list[Path]) -> None:
    for path in [*real[::20], *(path for path in real if path.stem[-3:] in ("133", "147", "095"))]:
        once = prepare(path.read_bytes(), Recipe(512))
        again = prepare(encode_png(once.pixels), Recipe(512))
        assert once.found == "circle", path.name
        assert np.array_equal(again.pixels, once.pixels), path.name


# ---- options


def test_grahams_formula_by_hand() -> None:
    flat = np.full((3, 60, 60), 77, np.uint8)
    assert (graham(flat) == 128).all()  # no contrast, no colour
    pixels = np.random.default_rng(0).integers(0, 256, (3, 60, 60), dtype=np.uint8)
    out = graham(pixels)
    blurred = ndimage.gaussian_filter(pixels[1].astype(float), 1.0, truncate=3)  # a thirtieth of 30
    expected = np.clip(np.rint(128 + 4 * (pixels[1] - blurred)), 0, 255)
    assert np.abs(out[1, 20:40, 20:40] - expected[20:40, 20:40]).max() <= 1
    assert (out[:, 0, 0] == 128).all()
    assert (out[:, 30, 2] == 128).all()  # between nine tenths of the radius and the edge


def test_graham_leaves_no_bands_where_the_frame_cut_the_disc() -> None:
    pixels = np.full((3, 90, 90), 100, np.uint8)
    pixels[:, :20] = pixels[:, 75:] = 3
    assert (graham(pixels) == 128).all()


def test_the_side_of_the_optic_disc_is_seen_in_drawn_retinas() -> None:
    pictures, factors = render_batch(0, range(16), 128)
    told = [optic_side(picture.transpose(2, 0, 1)) for picture in pictures]
    true = ["right" if side else "left" for side in factors["eye_side"]]
    told_right = sum(t == s for t, s in zip(told, true))
    assert told_right + told.count("") == 16, list(zip(told, true))
    assert told_right >= 13


def test_mirroring_brings_the_optic_disc_to_the_right() -> None:
    image = np.ascontiguousarray(render_batch(0, [1], 128)[0][0].transpose(2, 0, 1))
    mirrored = np.ascontiguousarray(image[:, :, ::-1])
    sides = {optic_side(image), optic_side(mirrored)}
    assert sides == {"left", "right"}
    for pixels in (image, mirrored):
        made = prepare(encode_png(pixels), Recipe(128, canonical_side=True))
        assert optic_side(made.pixels) == "right"
        assert made.mirrored == (made.side == "left")
