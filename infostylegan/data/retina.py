"""One photograph of a retina, of whatever size, made into a square that the disc fills.

1. JPEG files are decoded at a half, a quarter or an eighth of their size ("draft": the decoder leaves out the
   high frequencies), as long as the disc then keeps the pixels wanted, or nearly (`GAP`).
2. The disc is found (disc.py), and the square around it cut out; where it leaves the frame, black fills up.
3. Lanczos reduction to resolution x resolution.
4. Where asked for: mirrored so that the optic disc lies on the right; contrast evened out as B. Graham did.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from infostylegan.data.disc import FOUND_AT, Disc, find_disc
from infostylegan.data.images import BadImage, check_resolution, eight_bits, open_image, reasons

# How large a draft must be, in sizes of the result, by how much it is reduced. With these the difference to a
# full decode is below one gray level (RMSE) on photographs with a camera's noise: benchmarks/prepare.py.
GAP = {8: 1.1, 4: 0.95, 2: 0.95}
SMALLEST = 0.9  # a disc narrower than this share of the resolution is refused: images are not enlarged
_SNAP = 0.015  # a square this close to the frame, in sides, is the frame
_DARK = 16  # gray levels of what the frame does not show
_SURE = 0.3  # by how much one side must win, of both sides' scores together
_GRAHAM_RADIUS = 0.9  # of the disc's: what lies outside is gray


@dataclass(frozen=True)
class Recipe:
    """What every photograph is made into."""

    resolution: int = 512
    graham: bool = False
    canonical_side: bool = False

    def __post_init__(self) -> None:
        check_resolution(self.resolution)


@dataclass(frozen=True)
class Prepared:
    """A photograph made square, uint8 [3, R, R], and what was done to it.

    crop      left, top, right, bottom of the square, in pixels of the photograph (turned as EXIF says); to a
              hundredth, which is what was cut
    found     how the square was found: Disc.kind
    side      where the optic disc is seen, before any mirroring: "left", "right", "" if unsure or not asked
    mirrored  whether left and right were exchanged
    """

    pixels: np.ndarray
    crop: tuple[float, float, float, float]
    found: str
    side: str = ""
    mirrored: bool = False


def prepare(content: bytes, recipe: Recipe) -> Prepared:
    """The photograph in a file's `content`, by the steps above. Raises BadImage."""
    with reasons():
        image, scale, (width, height) = _decode(content, _draft(content, recipe.resolution, None))
        reduction = max(1, max(image.size) // FOUND_AT)
        disc = find_disc(np.asarray(image.reduce(reduction)))
        if disc is None:
            raise BadImage("all dark: no retina to be seen")
        disc = disc.scaled(reduction * scale)
        left, top, side = (round(value, 2) for value in _square(disc, width, height))
        if side < SMALLEST * recipe.resolution:
            raise BadImage(f"the disc is {side:.0f} pixels wide, less than {recipe.resolution}")
        finer = _draft(content, recipe.resolution, side)
        if finer < scale:
            image, scale, _ = _decode(content, finer)
        pixels = cut_square(image, left / scale, top / scale, side / scale, recipe.resolution)
    crop = (left, top, round(left + side, 2), round(top + side, 2))
    seen = optic_side(pixels) if recipe.canonical_side else ""
    mirrored = seen == "left"
    if mirrored:
        pixels = pixels[:, :, ::-1]
    if recipe.graham:
        pixels = graham(pixels)
    return Prepared(np.ascontiguousarray(pixels), crop, disc.kind, seen, mirrored)


def _draft(content: bytes, resolution: int, side: float | None) -> int:
    """By how much the decoder may reduce a JPEG file: 1, 2, 4 or 8.

    side  of the square, in pixels; None: not known yet, so guessed
    """
    with open_image(io.BytesIO(content)) as image:
        side = min(image.size) if side is None else side  # most discs are as high as the frame
    return next((scale for scale, gap in GAP.items() if side >= gap * resolution * scale), 1)


def _decode(content: bytes, scale: int) -> tuple[Image.Image, int, tuple[int, int]]:
    """The image in RGB, turned as EXIF says; by how much it is reduced; its full width and height."""
    with open_image(io.BytesIO(content)) as image:
        size = image.size
        if scale > 1:
            image.draft(None, (size[0] // scale, size[1] // scale))
        if image.size == size:  # not a JPEG file
            scale = 1
        ImageOps.exif_transpose(image, in_place=True)
        turned = (image.width > image.height) != (size[0] > size[1]) and size[0] != size[1]
        rgb = eight_bits(image, 3)
        rgb.load()
    return rgb, scale, size[::-1] if turned else size


def _square(disc: Disc, width: int, height: int) -> tuple[float, float, float]:
    """Left, top and side of the square around the disc; where that is nearly the frame, the frame's."""
    left, top, right, bottom = disc.square()
    side = float(max(width, height))
    slack = _SNAP * side
    if max(abs(left), abs(top), abs(right - width), abs(bottom - height)) <= slack:
        return (width - side) / 2, (height - side) / 2, side
    return left, top, right - left


def cut_square(image: Image.Image, left: float, top: float, side: float, resolution: int) -> np.ndarray:
    """The square of an RGB image by Lanczos, black where it leaves the image: uint8 [3, R, R]."""
    scale = resolution / side
    # The image begins and ends between two pixels of the result.
    x0, y0 = round(max(0.0, -left) * scale), round(max(0.0, -top) * scale)
    x1 = round((min(left + side, image.width) - left) * scale)
    y1 = round((min(top + side, image.height) - top) * scale)
    box = (max(0.0, left), max(0.0, top), min(left + side, image.width), min(top + side, image.height))
    if x1 <= x0 or y1 <= y0 or box[2] <= box[0] or box[3] <= box[1]:
        raise BadImage("the disc lies outside the frame")
    if (x1 - x0, y1 - y0) == image.size and box == (0, 0, *image.size):
        seen = image
    else:
        seen = image.resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS, box=box)
    pixels = np.zeros((3, resolution, resolution), dtype=np.uint8)
    pixels[:, y0:y1, x0:x1] = np.asarray(seen).transpose(2, 0, 1)
    return pixels


def graham(pixels: np.ndarray) -> np.ndarray:
    """Local colour taken away and contrast raised, as the winner of the Kaggle competition did.

    uint8 [3, R, R] -> the same: 128 + 4 * (image - its blur with a deviation of a thirtieth of the radius),
    and 128 outside nine tenths of the radius. (B. Graham, Kaggle Diabetic Retinopathy Detection competition
    report, 2015, section 2.) Where the frame has cut the disc, only what is seen is blurred, and the rest is
    128 too; by the formula alone, the cut would become two bright and dark bands.
    """
    radius = pixels.shape[1] / 2
    image = pixels.astype(np.float32)
    along = np.arange(pixels.shape[1]) + 0.5 - radius
    distance = along[:, None] ** 2 + along**2
    seen = (distance < radius**2) & _lit(pixels)
    weight = ndimage.gaussian_filter(seen.astype(np.float32), radius / 30, truncate=3)
    blurred = ndimage.gaussian_filter(image * seen, (0, radius / 30, radius / 30), truncate=3)
    even = np.rint(128 + 4 * (image - blurred / np.maximum(weight, 1e-6)))
    even[:, ~seen | (distance > (_GRAHAM_RADIUS * radius) ** 2)] = 128
    return np.clip(even, 0, 255).astype(np.uint8)


def _lit(pixels: np.ndarray) -> np.ndarray:
    """Bool [R, R]: the rectangle in which something is seen, less the pixel in which it ends."""
    lit = pixels.max(0) > _DARK
    inside = np.zeros(lit.shape, dtype=bool)
    if lit.any():
        rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
        spans = []
        for first, last in ((rows[0], rows[-1]), (columns[0], columns[-1])):
            spans.append(slice(first + (first > 0), last + (last == len(lit) - 1)))
        inside[spans[0], spans[1]] = True
    return inside


def optic_side(pixels: np.ndarray) -> str:
    """Where the optic disc is seen in a square photograph, uint8 [3, R, R]: "left", "right", "" if unsure.

    The name of a file does not tell: some photographs are upside down, as through a condensing lens. The
    optic disc is a bright spot, larger than exudates, in the middle band, where upright vessels gather.
    """
    size = 128
    small = Image.fromarray(pixels.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BOX)
    red, green = (np.asarray(small)[..., i].astype(np.float32) for i in (0, 1))
    along = (np.arange(size) + 0.5) / size * 2 - 1  # in radii
    y, x = along[:, None], along[None]
    inside = (x**2 + y**2 < 0.93**2).astype(np.float32)

    def blur(values: np.ndarray, sigma: float) -> np.ndarray:  # sigma in radii; only what lies inside counts
        weight = ndimage.gaussian_filter(inside, sigma * size / 2)
        return np.asarray(
            ndimage.gaussian_filter(values * inside, sigma * size / 2) / np.maximum(weight, 1e-3)
        )

    reach = np.arange(-6, 7) / (size / 2)
    light = ndimage.grey_opening(red, footprint=reach[:, None] ** 2 + reach**2 <= 0.08**2)
    around = blur(light, 0.4)
    bright = np.maximum((blur(light, 0.07) - around) / np.maximum(around, 4), 0)
    threads = np.maximum(ndimage.grey_closing(green, (1, 7)) - green, 0)  # dark, thin and upright
    vessels = blur(threads / np.maximum(blur(green, 0.3), 8), 0.12)
    score = bright * np.maximum(vessels - np.median(vessels[inside > 0]), 0)
    band = (np.abs(y) < 0.4) & (inside > 0)
    left = float(score[band & (x < -0.15) & (x > -0.9)].max())
    right = float(score[band & (x > 0.15) & (x < 0.9)].max())
    if abs(left - right) < _SURE * (left + right) or left == right:
        return ""
    return "left" if left > right else "right"
