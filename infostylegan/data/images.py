"""One policy for turning an image file into a square of pixels, whatever the file.

1. The first frame of the file, turned as its EXIF orientation says. Colour profiles are not applied. What
   the file is counts, not how it is named; other formats than those below are refused, whatever the name.
2. Colour, 8 bits: 16-bit gray keeps its high byte (value >> 8); palettes are looked up; transparency is
   composited on black; CMYK, YCbCr, LAB and HSV become RGB. One channel wanted: luma (ITU-R 601). Three
   wanted: gray is repeated.
3. `crop` box, if any, in pixels of the turned image.
4. `fit`: "crop" takes the largest centred square; "pad" keeps everything and fills up with black.
5. Lanczos reduction to resolution x resolution. Images are never enlarged: one that is too small is refused.

A file that cannot be used raises `BadImage`, whose message is the reason alone.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from infostylegan.data.errors import DataError

EXTENSIONS = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")
)  # fmt: skip
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")  # never those that run a program, such as EPS
MAX_PIXELS = 1 << 27  # a file that declares more is refused before it is decoded
FITS = ("crop", "pad")
MAX_RESOLUTION = 4096

_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # 16-bit gray; some formats open it as 32-bit "I"
_GRAY = ("1", "L", *_DEEP)


class BadImage(Exception):  # noqa: N818  named for what it is
    """This one file cannot be used; the message says why."""


@dataclass(frozen=True)
class Framing:
    """What every image is made into: uint8 [channels, resolution, resolution]."""

    resolution: int
    channels: int = 3
    fit: str = "crop"
    crop: tuple[int, int, int, int] | None = None  # left, top, right, bottom, in pixels

    def __post_init__(self) -> None:
        check_resolution(self.resolution)
        if self.channels not in (1, 3):
            raise DataError(f"{self.channels} channels: images have 1 (gray) or 3 (RGB); use 1 or 3")
        if self.fit not in FITS:
            raise DataError(f"fit {self.fit!r} is unknown; use {' or '.join(map(repr, FITS))}")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right and 0 <= top < bottom):
                raise DataError(f"crop {left},{top},{right},{bottom} is empty or starts outside the image; "
                                "give left,top,right,bottom in pixels")  # fmt: skip

    def nbytes(self) -> int:
        return self.channels * self.resolution**2

    def check_size(self, width: int, height: int) -> None:
        """Raise BadImage where an image of this size (already turned) is too small."""
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if right > width or bottom > height:
                raise BadImage(f"{width}x{height} is smaller than the crop {left},{top},{right},{bottom}")
            width, height = right - left, bottom - top
        if (min if self.fit == "crop" else max)(width, height) < self.resolution:
            raise BadImage(f"{width}x{height} is smaller than {self.resolution}x{self.resolution}")


def check_resolution(resolution: int) -> None:
    """Raise DataError unless growing by doublings from 4x4 can reach `resolution`."""
    if resolution < 4 or resolution > MAX_RESOLUTION or resolution & (resolution - 1):
        near = 1 << max(2, min(MAX_RESOLUTION, max(1, resolution)).bit_length() - 1)
        raise DataError(
            f"resolution {resolution} is not a power of two between 4 and {MAX_RESOLUTION}; "
            f"use {near}" + (f" or {2 * near}" if 4 < resolution < MAX_RESOLUTION else "")
        )


@dataclass(frozen=True)
class Header:
    """What a file says of itself before any pixel is decoded; sizes in pixels, after EXIF orientation."""

    width: int
    height: int
    gray: bool


def read_header(file: IO[bytes]) -> Header:
    """The header of an image file. Raises BadImage where there is none."""
    with reasons(), open_image(file) as image:
        width, height = image.size
        if image.getexif().get(0x0112) in (5, 6, 7, 8):  # orientations that swap the sides
            width, height = height, width
        return Header(width, height, image.mode in _GRAY)


def open_image(file: IO[bytes]) -> Image.Image:
    """The image in a file, not decoded yet. Raises BadImage, or what Pillow raises, where there is none."""
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"declares {image.width}x{image.height} pixels; more than {MAX_PIXELS:,} are refused")
    return image


def decode(content: bytes, framing: Framing) -> np.ndarray:
    """The image in a file's `content`, uint8 [C, R, R], by the policy above. Raises BadImage."""
    with reasons(), open_image(io.BytesIO(content)) as image:
        ImageOps.exif_transpose(image, in_place=True)
        framing.check_size(*image.size)
        square = _square(_crop(eight_bits(image, framing.channels), framing), framing)
        pixels = np.asarray(square)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 [C, H, W], C 1 or 3, as the bytes of a PNG file.

    Each row is filtered by the mean of its left and upper neighbours, and deflated by run lengths alone. On
    photographs this takes a quarter of the time of the usual search for filters and matches, and the file is
    smaller still, since noise has no matches to find.
    """
    channels, height, width = pixels.shape
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0)).reshape(height, width * channels)
    left, up = np.zeros_like(rows), np.zeros_like(rows)
    left[:, channels:] = rows[:, :-channels]
    up[1:] = rows[:-1]
    filtered = np.empty((height, 1 + width * channels), dtype=np.uint8)
    filtered[:, 0] = 3  # the filter "average": PNG specification, section 9.2
    np.subtract(rows, (left >> 1) + (up >> 1) + (left & up & 1), out=filtered[:, 1:])
    deflate = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    stream = deflate.compress(filtered.data) + deflate.flush()
    header = struct.pack(">2I5B", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return b"".join((b"\x89PNG\r\n\x1a\n", *map(_chunk, (b"IHDR", b"IDAT", b"IEND"), (header, stream, b""))))


def _chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def luma(images: np.ndarray) -> np.ndarray:
    """Gray of RGB by ITU-R 601, to the bit as in `decode`: uint8 [n, 3, R, R] -> [n, 1, R, R]."""
    red, green, blue = (images[:, i : i + 1].astype(np.uint32) for i in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


class reasons:  # noqa: N801  a context manager, read like a statement
    """Turn whatever a decoder raises at a damaged file into BadImage with a one-line reason."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, (BadImage, DataError, MemoryError)):
            # Decoders meet damage with OSError, SyntaxError, ValueError, zlib.error, struct.error, ...
            text = " ".join(str(error).split())
            if text.startswith("cannot identify image file"):  # Pillow adds the address of a buffer
                text = "not an image, or damaged at its very start"
            raise BadImage(text or type(error).__name__) from error


def eight_bits(image: Image.Image, channels: int) -> Image.Image:
    """The image in mode "L" or "RGB"."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode in _DEEP:
        values = np.asarray(image).astype(np.int64).clip(0, 0xFFFF)
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise BadImage("floating-point pixels, whose black and white are not known")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba).convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _crop(image: Image.Image, framing: Framing) -> Image.Image:
    if framing.crop is not None:
        image = image.crop(framing.crop)
    if framing.fit == "crop" and image.width != image.height:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image


def _square(image: Image.Image, framing: Framing) -> Image.Image:
    size = framing.resolution
    longer = max(image.size)
    width = max(1, round(image.width * size / longer))
    height = max(1, round(image.height * size / longer))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    if (width, height) == (size, size):
        return image
    square = Image.new(image.mode, (size, size))  # black
    square.paste(image, ((size - width) // 2, (size - height) // 2))
    return square
