"""Facts about infostylegan.render.grids."""

import numpy as np
import pytest
import torch

from infostylegan.render.grids import image_grid, labelled_grid, to_uint8


def numbered(n, size, channels=3):
    """Byte images, the i-th of which is all i + 1."""
    return np.broadcast_to(
        np.arange(1, n + 1, dtype=np.uint8)[:, None, None, None], (n, *size, channels)
    ).copy()


def test_bytes_to_floats_and_back_is_exact():
    byte = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    there = byte.float() / 127.5 - 1
    assert np.array_equal(to_uint8(there)[..., 0], byte[:, 0].numpy())
    assert np.array_equal(to_uint8(byte)[..., 0], byte[:, 0].numpy())


def test_overshoot_is_clamped_and_nan_is_grey():
    values = torch.tensor([-1.5, -1.0, 0.999, 1.0, 7.0, float("inf"), -float("inf"), float("nan")])
    assert to_uint8(values.reshape(1, 1, 1, -1)).ravel().tolist() == [0, 0, 255, 255, 255, 255, 0, 128]


def test_channels_move_last_and_half_precision_and_gradients_are_fine():
    images = torch.stack([torch.full((2, 4), v) for v in (-1.0, 0.0, 1.0)])[None].half().requires_grad_()
    pixels = to_uint8(images)
    assert pixels.shape == (1, 2, 4, 3)
    assert pixels[0, 1, 3].tolist() == [0, 128, 255]


@pytest.mark.parametrize("padding", [0, 2, 5])
def test_image_r_c_stands_at_row_r_and_column_c(padding):
    h, w = 6, 9
    sheet = np.asarray(image_grid(numbered(7, (h, w)), 3, padding=padding, min_cell=1))
    assert sheet.shape == (3 * (h + padding) + padding, 3 * (w + padding) + padding, 3)
    covered = np.zeros(sheet.shape[:2], bool)
    for i in range(7):
        y, x = padding + i // 3 * (h + padding), padding + i % 3 * (w + padding)
        assert (sheet[y : y + h, x : x + w] == i + 1).all()
        covered[y : y + h, x : x + w] = True
    assert (sheet[~covered] == 255).all()  # the padding, and the places that stay empty


def test_small_images_are_enlarged_by_a_whole_factor_without_smoothing():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 10, 20, 3), dtype=np.uint8)
    sheet = np.asarray(image_grid(pixels, 2, padding=1))
    assert sheet.shape == (1 + 51, 1 + 2 * 101, 3)  # five times, because four make 40 < 48
    assert np.array_equal(sheet[1:51:5, 102:202:5], pixels[1])
    assert np.array_equal(sheet[1:51, 102:202], pixels[1].repeat(5, 0).repeat(5, 1))
    assert image_grid(numbered(1, (48, 48)), 1, padding=0).size == (48, 48)


def test_grey_images_make_a_grey_sheet():
    assert image_grid(torch.zeros(4, 1, 8, 8), 2).mode == "L"
    assert image_grid(torch.zeros(4, 3, 8, 8), 2).mode == "RGB"
    assert labelled_grid(torch.zeros(4, 1, 8, 8), 2, title="t", row_labels="ab").mode == "L"


@pytest.mark.parametrize("channels", [1, 3])
def test_labels_lie_around_the_sheet_and_never_on_the_images(channels):
    pixels = numbered(6, (50, 50), channels)
    bare = np.asarray(image_grid(pixels, 3))
    sheet = np.asarray(
        labelled_grid(
            pixels, 3, row_labels=["one", "two"], column_labels=["-1", "0", "a long one: cut"], title="unif3"
        )
    )
    top, left = sheet.shape[0] - bare.shape[0], sheet.shape[1] - bare.shape[1]
    assert top > 20
    assert left > 20
    assert np.array_equal(sheet[top:, left:], bare)
    dark = (sheet if channels == 1 else sheet.min(axis=2)) < 128
    for row in range(2):  # a label left of each row
        assert dark[top + 2 + 52 * row : top + 52 * row + 52, :left].any()
    for column in range(3):  # a label above each column
        assert dark[top - 20 : top, left + 2 + 52 * column : left + 52 * column + 52].any()
    assert not dark[top - 20 : top, left + 104 + 2 + 50 :].any()  # cut where its column ends


def test_without_labels_both_grids_are_the_same():
    pixels = numbered(5, (50, 50))
    assert np.array_equal(np.asarray(labelled_grid(pixels, 2)), np.asarray(image_grid(pixels, 2)))


def test_a_title_wider_than_the_sheet_is_not_cut():
    sheet = np.asarray(labelled_grid(numbered(1, (50, 50)), 1, title="a title much wider than one image"))
    assert sheet.shape[1] > 200
    assert (sheet[:, -3:] == 255).all()


def test_names_in_other_scripts_are_drawn_each_in_its_own_shape():
    def drawn(text):
        return np.asarray(labelled_grid(numbered(1, (50, 50)), 1, title=text))

    assert not np.array_equal(drawn("ö"), drawn("β"))  # missing letters would both be the same box


@pytest.mark.parametrize(
    ("images", "columns", "labels", "message"),
    [
        (torch.zeros(0, 3, 4, 4), 2, {}, "no images"),
        (torch.zeros(2, 3, 4, 4), 0, {}, "at least one column"),
        (torch.zeros(3, 4, 4), 1, {}, r"\[N, C, H, W\]"),
        (torch.zeros(2, 4, 4, 4), 1, {}, r"\[2, 4, 4, 4\]"),
        (torch.zeros(3, 3, 4, 4), 2, {"row_labels": ["a"]}, "1 row labels for 2 rows"),
        (torch.zeros(3, 3, 4, 4), 2, {"column_labels": ["a"]}, "1 column labels for 2 columns"),
    ],
)
def test_what_cannot_be_laid_out_is_refused_with_its_reason(images, columns, labels, message):
    with pytest.raises(ValueError, match=message):
        labelled_grid(images, columns, **labels)
