"""Where the retina is in a fundus photograph: a bright disc on black, perhaps cut by the frame.

The disc is what is brighter than the dark around it; its outline is fitted by a circle. What breaks the
outline (the notch of a camera, a shaded rim, a date printed in a corner) is outvoted: the circle is the one
that most points of the outline agree on, then the least-squares circle of those points.

Coordinates are in pixels, with (0, 0) the outer corner of the first pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

FOUND_AT = 240  # pixels of the longer side, at least, at which to look for it: finer is slower and no better
_TRIPLES = 256  # circles tried
_VOTERS = 256  # points that choose among them
_RIM = 0.1  # share of the way from dark to bright at which the disc begins
_CONTRAST = 16  # gray levels from dark to bright below which there is nothing to see
_AGREE = 0.4  # share of the outline that must lie on the circle


@dataclass(frozen=True)
class Disc:
    """A circle in pixels, and how it came about.

    kind  "circle": fitted; "box": what is bright is no disc, and this is the circle in the square around it;
          "frame": no edge is in sight, and this is the circle around which the frame is the square
    """

    x: float
    y: float
    radius: float
    kind: str = "circle"

    def scaled(self, factor: float) -> Disc:
        return Disc(self.x * factor, self.y * factor, self.radius * factor, self.kind)

    def square(self) -> tuple[float, float, float, float]:
        """The square around the disc: left, top, right, bottom."""
        return self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius


def find_disc(pixels: np.ndarray) -> Disc | None:
    """The disc in a picture, uint8 [H, W, 3] or [H, W]; None where it is all dark."""
    height, width = pixels.shape[:2]
    value = (pixels.max(2) if pixels.ndim == 3 else pixels).astype(np.float32)
    dark, bright = np.percentile(value, (1, 97))
    whole = Disc(width / 2, height / 2, max(width, height) / 2, "frame")
    if dark >= _CONTRAST + 0.25 * bright:  # even the darkest corner shows retina
        return whole
    if bright - dark < _CONTRAST:
        return None
    level = float(dark + max(_RIM * (bright - dark), _CONTRAST / 3))
    mask = _largest(value > level)
    if mask.sum() < 0.02 * mask.size:
        return None
    points = _outline(value, mask, level)
    circle = _fit(points, max(width, height)) if len(points) >= 24 else None
    if circle is not None:
        return Disc(*circle)
    if mask.mean() > 0.97:
        return whole
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    return Disc((left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2, "box")


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part: printed dates and reflections fall away."""
    parts, count = ndimage.label(mask)
    if count <= 1:
        return mask
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def _outline(value: np.ndarray, mask: np.ndarray, level: float) -> np.ndarray:
    """Where the mask begins and ends in each row and column, float [n, 2] (x, y), to a part of a pixel.

    Points on the frame are none of the disc's.
    """
    found = []
    for turned in (False, True):
        v, m = (value.T, mask.T) if turned else (value, mask)
        lines = np.flatnonzero(m.any(1))
        for flipped in (False, True):
            first = m[lines, ::-1].argmax(1) if flipped else m[lines].argmax(1)
            inner = m.shape[1] - 1 - first if flipped else first
            step = 1 if flipped else -1
            keep = (inner > 1) & (inner < m.shape[1] - 2)
            line, inside = lines[keep], inner[keep]
            a, b = v[line, inside], v[line, inside + step]
            part = np.clip((a - level) / np.maximum(a - b, 1e-6), 0, 1)  # of the way from centre to centre
            position = inside + 0.5 + step * part
            found.append(np.stack((line + 0.5, position) if turned else (position, line + 0.5), 1))
    return np.concatenate(found).astype(np.float64)


def _fit(points: np.ndarray, side: int) -> tuple[float, float, float] | None:
    """x, y and radius of the circle that most points lie on; None where too few do."""
    rng = np.random.Generator(np.random.PCG64(0))  # the same picture, the same circle
    a, b, c = points[rng.integers(0, len(points), (3, _TRIPLES))]
    # The centre is as far from a as from b, and from a as from c.
    p, q = b - a, c - a
    determinant = 2 * (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])
    apart = np.abs(determinant) > 1e-3 * side**2
    p, q, a, determinant = p[apart], q[apart], a[apart], determinant[apart]
    pp, qq = (p**2).sum(1), (q**2).sum(1)
    offset = np.stack((q[:, 1] * pp - p[:, 1] * qq, p[:, 0] * qq - q[:, 0] * pp), 1) / determinant[:, None]
    centres, radii = a + offset, np.hypot(*offset.T)
    sound = (radii > 0.15 * side) & (radii < 0.8 * side)
    centres, radii = centres[sound], radii[sound]
    if len(radii) == 0:
        return None
    tolerance = 0.75 + 0.004 * side
    voters = points[:: -(-len(points) // _VOTERS)]
    misses = np.abs(np.hypot(*(voters.T[:, :, None] - centres.T[:, None])) - radii)
    best = int((misses < tolerance).sum(0).argmax())
    x, y, radius = float(centres[best, 0]), float(centres[best, 1]), float(radii[best])
    for _ in range(6):
        delta = points - (x, y)
        distance = np.hypot(*delta.T)
        near = np.abs(distance - radius) < tolerance
        if near.sum() < max(24, _AGREE * len(points)):
            return None
        jacobian = np.column_stack((delta[near] / distance[near, None], np.ones(near.sum())))
        change = np.linalg.lstsq(jacobian, distance[near] - radius, rcond=None)[0]
        x, y, radius = x + float(change[0]), y + float(change[1]), radius + float(change[2])
    return x, y, radius
