"""Decoding: any image file becomes the square its framing asks for, or is refused with a reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from infostylegan.data.errors import DataError
from infostylegan.data.images import BadImage, Framing, decode, encode_png, luma, read_header

RNG = np.random.default_rng(0)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_an_image_of_the_right_size_keeps_every_pixel(kind: str) -> None:
    pixels = noise(16, 16)
    assert np.array_equal(
        decode(encoded(Image.fromarray(pixels), kind), Framing(16)), pixels.transpose(2, 0, 1)
    )


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_photographic_formats_are_read(kind: str, options: dict[str, object]) -> None:
    ramp = np.repeat(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], 32, 0).repeat(3, 2)
    out = decode(encoded(Image.fromarray(ramp), kind, **options), Framing(32))
    assert np.abs(out.astype(int) - ramp.transpose(2, 0, 1)).max() <= 4


def test_exif_orientation_is_applied_before_cropping() -> None:
    pixels = noise(16, 24)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it 90 degrees clockwise
    content = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    upright = np.rot90(pixels, -1)
    assert np.array_equal(decode(content, Framing(16)), upright[4:20].transpose(2, 0, 1))
    header = read_header(io.BytesIO(content))
    assert (header.width, header.height, header.gray) == (16, 24, False)


def test_transparency_is_composited_on_black() -> None:
    rgba = np.full((8, 8, 4), 200, np.uint8)
    rgba[:, :4, 3] = 0
    rgba[:, 4:, 3] = 255
    out = decode(encoded(Image.fromarray(rgba)), Framing(8))
    assert (out[:, :, :4] == 0).all()
    assert (out[:, :, 4:] == 200).all()


def test_a_palette_is_looked_up_and_its_transparent_entry_is_black() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    image.paste(0, (0, 0, 4, 8))
    out = decode(encoded(image, transparency=0), Framing(8))
    assert (out[:, :, :4] == 0).all()
    assert out[:, 0, 7].tolist() == [10, 20, 30]


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))  # pure cyan ink
    red, green, blue = decode(encoded(image, "TIFF"), Framing(8))[:, 0, 0]
    assert red < 5
    assert min(green, blue) > 250


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_keeps_its_high_byte(kind: str) -> None:
    deep = RNG.integers(0, 1 << 16, (8, 8)).astype(np.uint16)
    content = encoded(Image.fromarray(deep), kind)
    assert read_header(io.BytesIO(content)).gray
    assert np.array_equal(decode(content, Framing(8, channels=1))[0], deep >> 8)
    assert np.array_equal(decode(content, Framing(8))[2], deep >> 8)


def test_gray_and_colour_turn_into_each_other() -> None:
    gray = noise(8, 8)[:, :, 0]
    assert np.array_equal(decode(encoded(Image.fromarray(gray)), Framing(8)), np.stack([gray] * 3))
    colour = noise(8, 8)
    out = decode(encoded(Image.fromarray(colour)), Framing(8, channels=1))
    assert np.array_equal(out, luma(colour.transpose(2, 0, 1)[None])[0])


def test_one_bit_images_are_black_and_white() -> None:
    image = Image.fromarray(noise(8, 8)[:, :, 0] > 127)
    assert image.mode == "1"
    assert set(np.unique(decode(encoded(image), Framing(8, channels=1)))) == {0, 255}


def test_crop_takes_the_centred_square_and_pad_keeps_everything() -> None:
    pixels = noise(8, 16)
    content = encoded(Image.fromarray(pixels))
    assert np.array_equal(decode(content, Framing(8)), pixels[:, 4:12].transpose(2, 0, 1))
    padded = decode(content, Framing(16, fit="pad"))
    assert np.array_equal(padded[:, 4:12], pixels.transpose(2, 0, 1))
    assert not padded[:, :4].any()
    assert not padded[:, 12:].any()


def test_a_crop_box_is_taken_first() -> None:
    pixels = noise(218, 178)  # CelebA's size, and the box of its 128x128 crop
    out = decode(encoded(Image.fromarray(pixels)), Framing(128, crop=(25, 57, 153, 185)))
    assert np.array_equal(out, pixels[57:185, 25:153].transpose(2, 0, 1))


def test_reduction_preserves_flat_colour() -> None:
    image = Image.new("RGB", (100, 70), (10, 100, 250))
    assert (decode(encoded(image), Framing(16)) == np.array([10, 100, 250])[:, None, None]).all()


@pytest.mark.parametrize(
    ("size", "framing", "reason"),
    [
        ((7, 30), Framing(8), "7x30 is smaller than 8x8"),
        ((7, 6), Framing(8, fit="pad"), "7x6 is smaller than 8x8"),
        ((30, 30), Framing(8, crop=(10, 10, 40, 40)), "30x30 is smaller than the crop 10,10,40,40"),
    ],
)
def test_images_are_never_enlarged(size: tuple[int, int], framing: Framing, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(encoded(Image.new("RGB", size)), framing)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_truncated_file_is_refused_with_a_reason(kind: str) -> None:
    content = encoded(Image.fromarray(noise(32, 32)), kind)
    with pytest.raises(BadImage, match=r"\w"):
        decode(content[: len(content) // 2], Framing(16))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_image_is_refused_with_a_reason(content: bytes) -> None:
    with pytest.raises(BadImage) as raised:
        decode(content, Framing(16))
    assert "0x" not in str(raised.value)


def test_a_damaged_pixel_stream_is_refused() -> None:
    content = bytearray(encoded(Image.fromarray(noise(32, 32))))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(BadImage):
        decode(bytes(content), Framing(16))


@pytest.mark.parametrize("resolution", [0, -8, 2, 3, 33, 100, 8192])
def test_a_resolution_must_be_a_power_of_two(resolution: int) -> None:
    with pytest.raises(DataError, match=f"resolution {resolution} is not a power of two .* use "):
        Framing(resolution)


def test_the_resolution_error_names_the_neighbours() -> None:
    with pytest.raises(DataError, match="use 64 or 128"):
        Framing(100)


@pytest.mark.parametrize("change", [{"fit": "stretch"}, {"channels": 2}, {"crop": (5, 5, 5, 9)}])
def test_a_framing_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"use|give"):
        Framing(**{"resolution": 8, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_lossless(channels: int) -> None:
    pixels = np.ascontiguousarray(noise(16, 16, channels).transpose(2, 0, 1))
    assert np.array_equal(decode(encode_png(pixels), Framing(16, channels=channels)), pixels)
