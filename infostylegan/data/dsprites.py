"""dSprites: white squares, ellipses and hearts on black, 64x64, one frame for each value of five factors.

Matthey et al., "dSprites: Disentanglement testing Sprites dataset", 2017. The frames can be read from the
official file, or drawn anew from its published parametrisation:

* shape square | ellipse | heart; scale in 6 steps from 0.5 to 1; orientation in 40 steps from 0 to 2 pi,
  both ends included, so that the first and the last are one image; position x and y in 32 steps from 0 to 1.
* The centre of a sprite is at 16 + 32 * position pixels, on a canvas of 64. No anti-aliasing: a pixel is
  white if its centre is inside the outline.

The originals were drawn by polygons. The square has a side of 0.30 canvases at scale 1, the ellipse is a
polygon of 40 corners with half-axes of 0.200 and 0.113, and the heart's outline is a series that was fitted
to original frames (`benchmarks/dsprites_outline.py` does it again). What is left are pixels on the edge: of
320 originals, 0.13 a frame for squares, 0.31 for ellipses and 0.63 for hearts.

Frames come from table values rounded to multiples of 2**-30, and from sums, products and quotients, which
IEEE 754 fixes to the last bit: they are the same on every machine, and so is the digest of the set.
"""

from __future__ import annotations

import functools
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.polynomial import chebyshev

from infostylegan.data.errors import DataError
from infostylegan.data.loading import Dataset, Indices, content_digest, parallel, pixel_digest

SIZE = 64
SHAPES = ("square", "ellipse", "heart")
SIZES = {"shape": 3, "scale": 6, "orientation": 40, "pos_x": 32, "pos_y": 32}  # the last varies fastest
COUNT = 737_280
NPZ = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"

SQUARE = 0.15  # half of the side, in canvases
ELLIPSE = (0.200, 0.113)  # half-axes
CORNERS = 40
# The heart's radius in canvases, by the angle from its tip (0) to its notch (pi), as a series of Chebyshev
# polynomials of 2 * angle / pi - 1; the other half is its mirror image.
HEART = (
    0.12517, 0.00800, -0.00953, -0.03962, -0.00457, -0.00103, 0.00237, -0.00240, 0.00009, -0.00017, 0.00075,
    -0.00050, -0.00009,
)  # fmt: skip
HEART_CORNERS = 96

# The digest of the set drawn anew, and with its labels: `computed_digest` takes a minute, and a test does it.
DIGEST = "72dbd75caecd64a3b9dbc723e5da0c668e3e653055e25702660cb44231253c53"
DIGEST_WITH_LABELS = "ee2b6c914ce4708bcc2f7b6b9b377e97268a31e70c21624fd50892fe410000c6"


def factor_indices(indices: Indices) -> np.ndarray:
    """The value indices int64 [n, 5] of the frames at `indices`, in the order of `SIZES`."""
    return np.stack(np.unravel_index(np.asarray(indices, dtype=np.int64), tuple(SIZES.values())), axis=1)


def frame_indices(factors: np.ndarray) -> np.ndarray:
    """The inverse of `factor_indices`."""
    return np.ravel_multi_index(tuple(np.asarray(factors).T), tuple(SIZES.values())).astype(np.int64)


def render(factors: np.ndarray) -> np.ndarray:
    """Frames uint8 [n, 1, 64, 64], 0 or 255, of value indices int64 [n, 5]; ValueError where out of range."""
    factors = np.asarray(factors, dtype=np.int64).reshape(-1, len(SIZES))
    if len(factors) and (factors.min() < 0 or (factors >= list(SIZES.values())).any()):
        raise ValueError(f"factors must be value indices below {tuple(SIZES.values())}")
    out = np.zeros((len(factors), 1, SIZE, SIZE), dtype=np.uint8)
    for shape in np.unique(factors[:, 0]):
        rows = np.flatnonzero(factors[:, 0] == shape)
        for start in range(0, len(rows), 128):  # a few MB of work at a time
            some = rows[start : start + 128]
            out[some, 0] = _fill(*_corners(int(shape), factors[some]))
    return out


def _exact(values: np.ndarray) -> np.ndarray:
    """Multiples of 2**-30, so that the last bits of a sine do not matter."""
    return np.rint(np.asarray(values) * 2.0**30) * 2.0**-30


@functools.cache
def _outline(shape: int) -> np.ndarray:
    """The corners of a shape about its centre, float64 [corners, 2] (x, y down), in canvases."""
    if shape == 0:
        return SQUARE * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
    if shape == 1:
        angle = 2 * np.pi * np.arange(CORNERS) / CORNERS
        return _exact(np.stack([ELLIPSE[0] * np.cos(angle), ELLIPSE[1] * np.sin(angle)], axis=1))
    angle = np.linspace(-np.pi, np.pi, HEART_CORNERS, endpoint=False)
    radius = chebyshev.chebval(2 * np.abs(angle) / np.pi - 1, HEART)
    return _exact(np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1))


@functools.cache
def _turns() -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, SIZES["orientation"])
    return _exact(np.cos(angle)), _exact(np.sin(angle))


def _corners(shape: int, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the corners lie on the canvas, in pixels, x and y float64 [n, corners]."""
    outline = _outline(shape)
    scale = _exact(np.linspace(0.5, 1.0, SIZES["scale"]))[factors[:, 1]] * SIZE
    cos, sin = (table[factors[:, 2]][:, None] for table in _turns())
    place = 16 + 32 * _exact(np.linspace(0, 1, SIZES["pos_x"]))
    u, v = (scale[:, None] * outline[None, :, axis] for axis in (0, 1))
    return cos * u + sin * v + place[factors[:, 3]][:, None], cos * v - sin * u + place[factors[:, 4]][
        :, None
    ]


def _fill(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Polygons filled by the even-odd rule at pixel centres: corners [n, corners] -> uint8 [n, 64, 64]."""
    n = len(x)
    x2, y2 = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    centre = np.arange(SIZE) + 0.5
    crosses = (y[:, :, None] > centre) != (y2[:, :, None] > centre)  # [n, edges, rows]
    which, edge, row = np.nonzero(crosses)
    xa, ya, xb, yb = (values[which, edge] for values in (x, y, x2, y2))
    at = xa + (centre[row] - ya) / (yb - ya) * (xb - xa)
    # The first pixel whose centre is at or beyond the crossing changes sides, and all after it.
    column = np.clip(np.ceil(at - 0.5), 0, SIZE).astype(np.int64)
    flips = np.bincount((which * SIZE + row) * (SIZE + 1) + column, minlength=n * SIZE * (SIZE + 1))
    inside = np.cumsum(flips.reshape(n, SIZE, SIZE + 1)[:, :, :SIZE], axis=2) & 1
    return (inside * 255).astype(np.uint8)


def compare(frames: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Wrong pixels a frame of each shape, drawn anew, against originals.

    frames   originals uint8 [n, 64, 64], 0 where black
    classes  int64 [n, 6], the official latents_classes: colour first, then as in `SIZES`
    """
    wrong = (render(classes[:, 1:])[:, 0] > 0) != (frames > 0)
    counts = wrong.sum(axis=(1, 2))
    shapes = ((i, name) for i, name in enumerate(SHAPES) if (classes[:, 1] == i).any())
    return {name: float(counts[classes[:, 1] == i].mean()) for i, name in shapes}


# ---- data sets -----------------------------------------------------------------------------------------


class Regenerated:
    """All 737,280 frames, drawn as they are asked for; in the order of the official file."""

    name = "dsprites"
    resolution, channels = SIZE, 1
    attributes: dict[str, np.ndarray] | None = None
    patients: np.ndarray | None = None

    def __init__(self, *, labels: bool = True) -> None:
        columns = factor_indices(range(COUNT)).T
        self.factors: dict[str, np.ndarray] | None = dict(zip(SIZES, map(np.ascontiguousarray, columns)))
        self.labels: np.ndarray | None = columns[0].copy() if labels else None
        self.label_names: tuple[str, ...] | None = SHAPES if labels else None
        self.skipped: list[tuple[str, str]] = []
        self.digest = DIGEST_WITH_LABELS if labels else DIGEST

    def __len__(self) -> int:
        return COUNT

    def images(self, indices: Indices) -> np.ndarray:
        return render(factor_indices(indices))


def computed_digest(*, labels: bool = True) -> str:
    """The digest of `Regenerated`, from every frame."""

    def digests(start: int) -> bytes:
        frames = render(factor_indices(range(start, min(start + 1024, COUNT))))
        return b"".join(map(pixel_digest, frames))

    parts = b"".join(parallel(digests, range(0, COUNT, 1024)))
    return content_digest(parts, (1, SIZE, SIZE), Regenerated(labels=labels).labels)


class Bits:
    """Black-and-white frames held as bits: the official set takes 377 MB, not 3 GB."""

    attributes: dict[str, np.ndarray] | None = None
    patients: np.ndarray | None = None

    def __init__(self, name: str, bits: np.ndarray, size: int, classes: np.ndarray, *, labels: bool) -> None:
        self.name, self.resolution, self.channels = name, size, 1
        self._bits = bits  # uint8 [N, size * size / 8]
        self.factors: dict[str, np.ndarray] | None = dict(
            zip(SIZES, map(np.ascontiguousarray, classes[:, 1:].T.astype(np.int64)))
        )
        self.labels = classes[:, 1].astype(np.int64) if labels else None
        self.label_names: tuple[str, ...] | None = SHAPES if labels else None
        self.skipped: list[tuple[str, str]] = []
        starts = range(0, len(bits), 4096)
        digests = (
            b"".join(map(pixel_digest, self.images(range(s, min(s + 4096, len(bits)))))) for s in starts
        )
        self.digest = content_digest(b"".join(digests), (1, size, size), self.labels)

    def __len__(self) -> int:
        return len(self._bits)

    def images(self, indices: Indices) -> np.ndarray:
        rows = self._bits[np.asarray(indices, dtype=np.int64)]
        size = self.resolution
        return np.unpackbits(rows, axis=1).reshape(-1, 1, size, size) * np.uint8(255)


def read_npz(path: Path, *, labels: bool = True) -> Dataset:
    """The official file, or one in its layout: imgs uint8 [N, 64, 64] of 0 and 1, latents_classes [N, 6].

    Its `metadata` is a pickled object, which could run anything; it is never opened.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open("imgs.npy") as file:
                bits, size = _read_bits(file)
            with archive.open("latents_classes.npy") as file:
                classes = np.lib.format.read_array(file, allow_pickle=False)
    except KeyError as error:
        raise DataError(f"{path}: not dSprites' file: {error.args[0]!s}; download {NPZ} again") from error
    except (OSError, ValueError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: damaged, or not dSprites' file ({error}); download {NPZ} again") from error
    wanted = (len(bits), len(SIZES) + 1)
    if classes.shape != wanted or classes.dtype.kind not in "iu":
        raise DataError(f"{path}: latents_classes is {classes.dtype} {classes.shape}, not int64 {wanted}; "
                        f"download {NPZ} again")  # fmt: skip
    return Bits("dsprites", bits, size, classes, labels=labels)


def read_originals(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Some original frames, for `compare`: an npz with imgs [n, 64, 64] and latents_classes [n, 6]."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            frames, classes = archive["imgs"], archive["latents_classes"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: no frames of dSprites to check against ({error})") from error
    if frames.shape[1:] != (SIZE, SIZE) or classes.shape != (len(frames), len(SIZES) + 1):
        raise DataError(f"{path}: imgs {frames.shape} and latents_classes {classes.shape} are not "
                        "[n, 64, 64] and [n, 6]")  # fmt: skip
    return frames, classes


def _read_bits(file: IO[bytes]) -> tuple[np.ndarray, int]:
    """An array uint8 [N, S, S] of 0 and 1 from an .npy file, read in pieces: bits [N, S*S/8], and S."""
    version = np.lib.format.read_magic(file)
    read_header: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"imgs is an array of version {version}")
    shape, fortran, kind = read_header(file)
    square = len(shape) == 3 and shape[1] == shape[2] and shape[1] >= 4 and shape[1] & (shape[1] - 1) == 0
    if kind != np.uint8 or fortran or not square or not shape[0]:
        raise ValueError(f"imgs is {kind} {shape}, not bytes [N, {SIZE}, {SIZE}]")
    size = shape[1]
    rows = []
    for start in range(0, shape[0], 4096):
        wanted = min(4096, shape[0] - start) * size * size
        content = file.read(wanted)
        if len(content) != wanted:
            raise ValueError(f"imgs ends after {start} of {shape[0]} frames")
        frames = np.frombuffer(content, dtype=np.uint8).reshape(-1, size * size)
        if frames.max() > 1:
            raise ValueError("imgs holds values other than 0 and 1")
        rows.append(np.packbits(frames, axis=1))
    return np.concatenate(rows), size
