"""Uploaded photographs: what is looked at before a pixel is decoded."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from infostylegan.data.images import BadImage, Framing, decode

MAX_BYTES = 32 << 20
# A file of a few kilobytes can declare pixels for all of the memory there is.
MAX_PIXELS = 64_000_000
# What a camera, a scanner or a browser saves; nothing that hands the file on to another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


def read_photograph(content: bytes, resolution: int, channels: int) -> np.ndarray:
    """An uploaded file's centred square, uint8 [R, R, C]. Raises BadImage, with the reason."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise BadImage(f"it declares more than {MAX_PIXELS // 1_000_000} million pixels") from error
    except Exception as error:
        raise BadImage("no image that can be read here; send a JPEG, PNG, WebP, TIFF or BMP") from error
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width}x{height} is more than {MAX_PIXELS // 1_000_000} million pixels")
    return np.ascontiguousarray(decode(content, Framing(resolution, channels)).transpose(1, 2, 0))
