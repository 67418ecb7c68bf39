"""Procedural retinal (fundus) photographs with known factors of variation.

A picture is a pure function of ``(factors, resolution, seed, index)``. The eight factors of `FACTORS` are
what a disentanglement metric may be asked to find; everything else that makes two photographs differ (the
vessel tree, the choroid, the exact place of the optic disc, white balance, uneven light) is nuisance and is
drawn from ``(seed, index)`` alone, so that one factor can be changed while the rest of the picture stays.

Two conventions hold throughout the module:

* Lengths are in *field units*: the picture spans [-1, 1] in x (right) and y (down), whatever its resolution.
* The retina is drawn as a left eye (disc on the left, temporal side towards +x) and flipped for a right eye;
  camera effects (aperture, illumination, glare, noise) are never flipped.

Pixels are computed with additions, multiplications, divisions and square roots only. IEEE 754 fixes their
results to the last bit, whereas ``exp`` or ``sin`` in single precision may differ between processors; this is
why soft shapes here are rational functions rather than Gaussians, and why a picture's digest can be a test.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["FACTORS", "RESOLUTIONS", "Factor", "render", "render_batch", "sample_factors"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
FactorValue = float | int


@dataclass(frozen=True)
class Factor:
    """One ground-truth factor of variation.

    A discrete factor takes one of `values` with `probabilities` (uniform if None); a continuous one is
    uniform on [`low`, `high`]. For a discrete factor `low` and `high` are its smallest and largest value.
    """

    name: str
    kind: Literal["continuous", "discrete"]
    values: tuple[int, ...] | None
    low: float
    high: float
    probabilities: tuple[float, ...] | None = None


FACTORS: tuple[Factor, ...] = (
    Factor("pigmentation", "continuous", None, 0.0, 1.0),
    Factor("brightness", "continuous", None, 0.0, 1.0),
    Factor("glare", "discrete", (0, 1), 0, 1, (0.7, 0.3)),
    Factor("eye_side", "discrete", (0, 1), 0, 1, (0.5, 0.5)),
    Factor("field_of_view", "discrete", (0, 1, 2), 0, 2, (0.4, 0.35, 0.25)),
    Factor("cup_size", "continuous", None, 0.2, 0.8),
    Factor("vessel_calibre", "continuous", None, 0.7, 1.4),
    Factor("dr_grade", "discrete", (0, 1, 2, 3, 4), 0, 4, (0.4, 0.15, 0.2, 0.15, 0.1)),
)

RESOLUTIONS: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)

# One random stream per purpose, so that drawing more numbers for one part never moves another part.
_FACTOR_STREAM, _CAMERA, _ANATOMY, _VESSELS, _TEXTURE, _LESIONS = range(6)


# --------------------------------------------------------------------------------------------- randomness


_MASK64 = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15  # SplitMix64's increment.


def _mix(z: int) -> int:
    """SplitMix64's finaliser: a bijection of 64-bit integers that spreads every bit."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return z ^ (z >> 31)


class _Stream:
    """Uniform numbers from a counter hashed with a key.

    Written out rather than taken from ``numpy.random``, whose distributions may change between versions:
    picture number 7 of seed 0 should stay the same picture for as long as this file does.
    """

    def __init__(self, seed: int, index: int, purpose: int) -> None:
        key = _STEP
        for word in (seed, index, purpose):
            key = _mix((key ^ word) + _STEP & _MASK64)
        self._key = key
        self._drawn = 0

    def __call__(self, *shape: int, low: float = 0.0, high: float = 1.0) -> F64:
        """Float64 array of `shape`, uniform on [low, high)."""
        count = math.prod(shape)
        z = np.arange(self._drawn, self._drawn + count, dtype=np.uint64)
        self._drawn += count
        z *= np.uint64(_STEP)
        z += np.uint64(self._key)
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        u = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return (low + (high - low) * u).reshape(shape)

    def one(self, low: float = 0.0, high: float = 1.0) -> float:
        """A single uniform number."""
        z = _mix(self._drawn * _STEP + self._key & _MASK64)
        self._drawn += 1
        return low + (high - low) * ((z >> 11) * 2.0**-53)


# ------------------------------------------------------------------------------------------------- canvas


@functools.lru_cache(maxsize=8)
def _grid(size: int) -> tuple[F32, F32]:
    """Pixel centres in field units: x as [1, size], y as [size, 1]."""
    centres = ((np.arange(size) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    return centres[None, :], centres[:, None]


def _distance(size: int, x: float, y: float, stretch: float = 1.0) -> F32:
    """Distance of every pixel to (x, y), with vertical lengths divided by `stretch`; [size, size]."""
    gx, gy = _grid(size)
    dx, dy = gx - np.float32(x), (gy - np.float32(y)) * np.float32(1.0 / stretch)
    return np.sqrt(dx * dx + dy * dy)


def _smoothstep(t: F32) -> F32:
    t = np.clip(t, np.float32(0), np.float32(1))
    return t * t * (np.float32(3) - np.float32(2) * t)


def _bell(r: F32, width: float) -> F32:
    """A smooth bump of height 1 around r = 0, close to a Gaussian in its core but without ``exp``."""
    q = r * np.float32(1.0 / width)
    q = np.float32(1) / (np.float32(1) + q * q)
    return q * q


def _double(a: F32) -> F32:
    """[..., n, n] to [..., 2n, 2n]: the triangle filter that box-averages back to a slightly blurred `a`."""
    *planes, n, _ = a.shape
    near, far = np.float32(0.75) * a, np.float32(0.25) * a
    wide = np.empty((*planes, n, 2 * n), np.float32)
    wide[..., 0], wide[..., -1] = a[..., 0], a[..., -1]
    np.add(near[..., 1:], far[..., :-1], out=wide[..., 2::2])
    np.add(near[..., :-1], far[..., 1:], out=wide[..., 1:-1:2])
    near, far = np.float32(0.75) * wide, np.float32(0.25) * wide
    out = np.empty((*planes, 2 * n, 2 * n), np.float32)
    out[..., 0, :], out[..., -1, :] = wide[..., 0, :], wide[..., -1, :]
    np.add(near[..., 1:, :], far[..., :-1, :], out=out[..., 2::2, :])
    np.add(near[..., :-1, :], far[..., 1:, :], out=out[..., 1:-1:2, :])
    return out


def _noise(draw: _Stream, planes: int, amplitudes: Mapping[int, float], size: int) -> F32:
    """Smooth noise of several octaves, [planes, size, size].

    `amplitudes` maps the number of cells across the picture (powers of two, each twice the one before) to
    strength. Octaves finer than the canvas are left out, as averaging over a pixel would remove them;
    the coarse ones are drawn first and so do not depend on the canvas.
    """
    total: F32 | None = None
    for cells, amplitude in amplitudes.items():
        if cells > size:
            break
        if total is not None:
            total = _double(total)
        if amplitude:
            octave = draw(planes, cells, cells, low=-amplitude, high=amplitude).astype(np.float32)
            total = octave if total is None else total + octave
    assert total is not None
    while total.shape[-1] < size:
        total = _double(total)
    return total


def _stamp_blobs(
    canvas: F32, x: F64, y: F64, major: F64, minor: F64, angle: F64, soft: float | F64, opacity: float | F64
) -> None:
    """Add filled ellipses with soft edges to `canvas` [S, S], and clip it to 1.

    x, y, major, minor (half-axes) and soft (width of the edge) in field units; angle in radians.
    """
    size = canvas.shape[0]
    pixel = 2.0 / size
    # An ellipse thinner than a pixel is drawn a pixel wide and proportionally fainter.
    big, small = np.maximum(major, 0.6 * pixel), np.maximum(minor, 0.6 * pixel)
    strength = opacity * (major / big) * (minor / small)
    edge = np.maximum(np.broadcast_to(soft, x.shape), pixel)
    reach = np.ceil(big * (1 + 0.5 * edge / small) / pixel).astype(np.int64) + 1
    flat = canvas.reshape(-1)
    for k in np.unique(reach):
        sel = np.flatnonzero(reach == k)
        offsets = np.arange(-k, k + 1)
        cx, cy = (x[sel] + 1) / pixel - 0.5, (y[sel] + 1) / pixel - 0.5
        ix = np.rint(cx).astype(np.int64)[:, None, None] + offsets[None, None, :]
        iy = np.rint(cy).astype(np.int64)[:, None, None] + offsets[None, :, None]
        dx = ((ix - cx[:, None, None]) * pixel).astype(np.float32)
        dy = ((iy - cy[:, None, None]) * pixel).astype(np.float32)
        c = np.cos(angle[sel]).astype(np.float32)[:, None, None]
        s = np.sin(angle[sel]).astype(np.float32)[:, None, None]
        u = (c * dx + s * dy) / big[sel].astype(np.float32)[:, None, None]
        v = (c * dy - s * dx) / small[sel].astype(np.float32)[:, None, None]
        scale = (small[sel] / edge[sel]).astype(np.float32)[:, None, None]
        cover = np.clip(0.5 + (1.0 - np.sqrt(u * u + v * v)) * scale, 0, 1)
        cover *= strength[sel].astype(np.float32)[:, None, None]
        inside = (ix >= 0) & (ix < size) & (iy >= 0) & (iy < size) & (cover > 0)
        np.add.at(flat, (iy * size + ix)[inside], cover[inside])
    np.minimum(canvas, 1.0, out=canvas)


# ------------------------------------------------------------------------------------------------ anatomy


@dataclass(frozen=True)
class _Anatomy:
    """Where things are in one retina, as a left eye, in field units and radians."""

    disc: tuple[float, float]
    disc_radius: float
    disc_stretch: float
    fovea: tuple[float, float]
    tilt: float


def _anatomy(seed: int, index: int) -> _Anatomy:
    draw = _Stream(seed, index, _ANATOMY)
    tilt = draw.one(-0.14, 0.14)
    x, y = draw.one(-0.76, -0.5), draw.one(-0.14, 0.1)
    radius = draw.one(0.125, 0.155)
    # The fovea lies about two and a half disc diameters to the temporal side and a little below.
    far, drop = draw.one(0.66, 0.78), draw.one(0.02, 0.14)
    c, s = math.cos(tilt), math.sin(tilt)
    fovea = (x + far * c - drop * s, y + far * s + drop * c)
    return _Anatomy((x, y), radius, draw.one(1.02, 1.16), fovea, tilt)


@dataclass
class _Vessels:
    """Vessels as polylines of equal point count; every array is [vessels, points] except `vein` [vessels]."""

    x: F64
    y: F64
    heading: F64
    width: F64
    vein: NDArray[np.bool_]


def _grow(
    draw: _Stream, x: F64, y: F64, heading: F64, bend: F64, length: F64, width: F64, taper: float,
    vein: NDArray[np.bool_], points: int, wiggle: float,
) -> _Vessels:  # fmt: skip
    """Integrate headings into curves; all inputs [vessels]. `bend` in radians over the whole length."""
    n = len(x)
    s = np.linspace(0.0, 1.0, points)[None, :]
    waves = draw(n, 4)
    turn = heading[:, None] + bend[:, None] * s
    # Tortuosity: heading sways with two wavelengths, tied to length so that long vessels sway more often.
    for k, (per_unit, strength) in enumerate(((1.6, 1.0), (4.0, 0.8))):
        turns = per_unit * length[:, None] * s * (0.7 + 0.6 * waves[:, k, None]) + waves[:, 2 + k, None]
        turn = turn + wiggle * strength * np.sin(2 * np.pi * turns) * np.minimum(1.0, 4 * s)
    step = (length / (points - 1))[:, None]
    px = x[:, None] + np.cumsum(np.cos(turn) * step, axis=1) - np.cos(turn[:, :1]) * step
    py = y[:, None] + np.cumsum(np.sin(turn) * step, axis=1) - np.sin(turn[:, :1]) * step
    # Vessels rise out of the depth of the disc or of their parent, and end in capillaries: no blunt ends.
    ends = np.minimum(np.minimum(0.4 + 8 * s, 1.0), 0.15 + 6 * (1 - s))
    return _Vessels(px, py, turn, width[:, None] * (1.0 - taper * s) * ends, vein)


def _branch(
    draw: _Stream, parent: _Vessels, count: int, ratio: tuple[float, float], length: tuple[float, float],
    points: int, wiggle: float,
) -> _Vessels:  # fmt: skip
    """`count` daughters per parent, spread along it and leaving on alternating sides."""
    n, p = parent.x.shape
    u = draw(n, count, 5)
    at = ((np.arange(count)[None, :] + u[..., 0]) / count * 0.8 + 0.12) * (p - 1)
    col = np.rint(at).astype(np.int64)
    row = np.broadcast_to(np.arange(n)[:, None], col.shape)
    row, col = row.reshape(-1), col.reshape(-1)
    side = np.where((np.arange(count)[None, :] + np.rint(u[:, :1, 1])) % 2 == 0, 1.0, -1.0).reshape(-1)
    u = u.reshape(-1, 5)
    angle = side * (0.4 + 0.5 * u[:, 2])
    return _grow(
        draw, parent.x[row, col], parent.y[row, col], parent.heading[row, col] + angle,
        -angle * (0.1 + 1.1 * u[:, 1]), length[0] + (length[1] - length[0]) * u[:, 3],
        parent.width[row, col] * (ratio[0] + (ratio[1] - ratio[0]) * u[:, 4]), 0.55,
        parent.vein[row], points, wiggle,
    )  # fmt: skip


def _vessel_tree(seed: int, index: int, eye: _Anatomy) -> list[_Vessels]:
    """Trunks, branches and twigs of the retinal vessels; widths are half-widths at calibre 1."""
    draw = _Stream(seed, index, _VESSELS)
    # Eight trunks: (temporal, nasal) x (artery, vein) x (superior, inferior). Up is negative.
    up = np.array([-1.0, 1.0] * 4)
    temporal = np.array([True] * 4 + [False] * 4)
    vein = np.array([True, True, False, False] * 2)
    u = draw(8, 6)
    start = np.where(temporal, 1.6 - 0.25 * vein, 1.9 + 0.35 * vein) + 0.4 * (u[:, 0] - 0.5)
    # Temporal trunks turn through about 90 degrees and so arch around the macula; nasal ones run straight.
    bend = np.where(temporal, -1.75 + 0.95 * (u[:, 1] - 0.5), 0.7 * (u[:, 1] - 0.3))
    length = np.where(temporal, 1.6 + 0.3 * u[:, 2], 0.9)
    width = np.where(vein, 0.0145, 0.0105) * np.where(temporal, 1.0, 0.72) * (0.85 + 0.3 * u[:, 3])
    r = eye.disc_radius
    x0 = eye.disc[0] - 0.2 * r + 0.4 * r * (u[:, 4] - 0.5)
    y0 = eye.disc[1] - up * 0.2 * r * u[:, 5]
    trunks = _grow(draw, x0, y0, up * start + eye.tilt, up * bend, length, width, 0.66, vein, 40, 0.17)
    # Fine vessels that leave the disc straight towards the macula and the nasal side.
    n = 8
    u = draw(n, 5)
    side = np.array([0.0, 0.0, 0.0, 0.0, np.pi, np.pi, np.pi, np.pi])
    away = np.array([-0.75, -0.3, 0.3, 0.75, -0.5, -0.15, 0.2, 0.55]) + 0.3 * (u[:, 0] - 0.5)
    fine = _grow(
        draw, eye.disc[0] + 0.4 * r * np.cos(side), eye.disc[1] + 0.6 * r * (u[:, 1] - 0.5),
        side + away + eye.tilt, -0.9 * away * u[:, 2], 0.35 + 0.35 * u[:, 3], 0.0035 + 0.002 * u[:, 4], 0.6,
        np.arange(n) % 2 == 0, 18, 0.32,
    )  # fmt: skip
    branches = _branch(draw, trunks, 5, (0.4, 0.8), (0.35, 0.9), 24, 0.26)
    twigs = _branch(draw, branches, 3, (0.45, 0.75), (0.15, 0.42), 12, 0.32)
    return [trunks, fine, branches, twigs]


def _choroid(seed: int, index: int, eye: _Anatomy) -> _Vessels:
    """The broad, wavy vessels of the layer behind the retina, fanning out from the line disc to fovea."""
    draw = _Stream(seed, index, _TEXTURE + 100)
    n = 100
    x, y, u = draw(n, low=-0.9, high=0.9), draw(n, low=-0.9, high=0.9), draw(n, 4)
    heading = np.arctan2(1.3 * (y - eye.fovea[1]), x - 0.5 * eye.fovea[0]) + 1.2 * (u[:, 0] - 0.5)
    lines = _grow(
        draw, x, y, heading, 1.6 * (u[:, 1] - 0.5), 0.4 + 0.6 * u[:, 2], 0.011 + 0.010 * u[:, 3], 0.0,
        np.arange(n) % 2 == 0, 14, 0.25,
    )  # fmt: skip
    s = np.linspace(0.0, 1.0, 14)[None, :]
    lines.width *= 4 * s * (1 - s)  # They rise from the depth and sink again, so both ends are fine.
    return lines


def _stamp_vessels(canvas: F32, tree: Sequence[_Vessels], calibre: float, eye: _Anatomy) -> None:
    """Draw into canvas [2, S, S] (0 arteries, 1 veins) the share of each pixel that vessels cover."""
    size = canvas.shape[-1]
    scale = size / 2.0
    # Every polyline segment becomes one row: start, step, half-width (pixels), buffer.
    parts = []
    for v in tree:
        n, p = v.x.shape
        buffer = np.broadcast_to(v.vein[:, None].astype(np.float64), (n, p - 1))
        start, step = (v.x[:, :-1], v.y[:, :-1]), (np.diff(v.x, axis=1), np.diff(v.y, axis=1))
        parts.append(np.stack([*start, *step, v.width[:, :-1], buffer]).reshape(6, -1))
    seg = np.concatenate(parts, axis=1)
    seg = seg[:, seg[0] * seg[0] + seg[1] * seg[1] < 1.1]
    x, y, dx, dy, width, buffer = seg
    width = width * calibre
    # No vessels in the centre of the fovea: they thin out and fade towards it.
    clear = np.clip((np.hypot(x - eye.fovea[0], y - eye.fovea[1]) - 0.1) / 0.12, 0, 1)
    opacity = np.clip(0.45 + width * 45.0, 0, 1) * clear
    # Optics blur every edge by about a pixel of a 512 picture; below that resolution the pixel itself does.
    half = max(0.5, 0.0045 * scale)
    w = width * scale
    spacing = 0.7  # A 0.7-pixel lattice meets every pixel, at any angle: its covering radius is below 0.5.
    steps = np.ceil(np.hypot(dx, dy) * scale / spacing).astype(np.int64)
    reach = np.ceil((w + half + 0.5) / spacing).astype(np.int64)
    length = np.hypot(dx, dy) + 1e-12
    tx, ty = dx / length, dy / length
    flat = canvas.reshape(-1)
    for k in np.unique(reach):
        sel = np.flatnonzero((reach == k) & (opacity > 0))
        if not len(sel):
            continue
        which = np.repeat(sel, steps[sel])
        first = np.cumsum(steps[sel]) - steps[sel]
        along = (np.arange(len(which)) - np.repeat(first, steps[sel]) + 0.5) / steps[which]
        cx = ((x[which] + along * dx[which] + 1) * scale - 0.5).astype(np.float32)[:, None]
        cy = ((y[which] + along * dy[which] + 1) * scale - 0.5).astype(np.float32)[:, None]
        nx, ny = -ty[which].astype(np.float32)[:, None], tx[which].astype(np.float32)[:, None]
        across = (np.arange(-k, k + 1) * spacing).astype(np.float32)[None, :]
        fx, fy = np.rint(cx + across * nx), np.rint(cy + across * ny)
        d = np.abs((fx - cx) * nx + (fy - cy) * ny)
        ww = w[which].astype(np.float32)[:, None]
        h = np.float32(half)
        cover = np.minimum(ww, d + h) - np.maximum(-ww, d - h)
        cover *= (opacity[which] / (2 * half)).astype(np.float32)[:, None]
        ix, iy = fx.astype(np.int32), fy.astype(np.int32)
        inside = (ix >= 0) & (ix < size) & (iy >= 0) & (iy < size) & (cover > 0)
        target = buffer[which].astype(np.int32)[:, None] * (size * size) + iy * size + ix
        np.maximum.at(flat, target[inside], cover[inside])


# ------------------------------------------------------------------------------------------------ lesions

# How many of each lesion a grade shows. A grade's lesions include those of the grade below.
_LESION_COUNTS: dict[str, tuple[int, int, int, int, int]] = {
    "microaneurysm": (0, 6, 16, 30, 36),
    "haemorrhage": (0, 0, 7, 18, 22),
    "exudate_cluster": (0, 0, 2, 4, 5),
    "cotton_wool": (0, 0, 0, 5, 6),
    "new_vessel": (0, 0, 0, 0, 3),
    "preretinal": (0, 0, 0, 0, 1),
}


@dataclass
class _Lesions:
    """Coverage of each kind of lesion, [S, S] in 0..1, and the tree of new vessels (empty below grade 4)."""

    dark: F32
    yellow: F32
    white: F32
    new_vessels: list[_Vessels]


def _scatter(draw: _Stream, n: int, eye: _Anatomy, spread: float) -> tuple[F64, F64]:
    """Places around a point between fovea and picture centre, more densely towards the middle."""
    u = draw(n, 2)
    radius = spread * (0.25 + 0.75 * np.sqrt(u[:, 0]))
    angle = 2 * np.pi * u[:, 1]
    return 0.5 * eye.fovea[0] + radius * np.cos(angle), 0.5 * eye.fovea[1] + 0.9 * radius * np.sin(angle)


def _draw_lesions(seed: int, index: int, grade: int, size: int, eye: _Anatomy) -> _Lesions:
    draw = _Stream(seed, index, _LESIONS)
    most = {kind: max(counts) for kind, counts in _LESION_COUNTS.items()}
    now = {kind: counts[grade] for kind, counts in _LESION_COUNTS.items()}
    dark, yellow, white = np.zeros((3, size, size), np.float32)

    # Everything is drawn at its largest count and then cut, so that a grade never moves another's lesions.
    n = now["microaneurysm"]
    x, y = _scatter(draw, most["microaneurysm"], eye, 0.8)
    r = draw(most["microaneurysm"], low=0.006, high=0.011)
    if n:
        _stamp_blobs(dark, x[:n], y[:n], r[:n], r[:n], np.zeros(n), 0.008, 0.8)

    n = now["haemorrhage"]
    x, y = _scatter(draw, most["haemorrhage"], eye, 0.8)
    u = draw(most["haemorrhage"], 12)
    if n:
        # Blots are lumps of three ellipses; a quarter are flames, drawn out along the nerve fibres.
        flame = u[:, 0] < 0.25
        r = 0.011 + 0.024 * u[:, 1] ** 2
        fibre = np.arctan2(y - eye.disc[1], x - eye.disc[0])
        for k in range(3):
            shift = r * 0.8 * (k > 0)
            around = 2 * np.pi * u[:, 2 + k]
            major = np.where(flame, 2.2 * r, r * (0.7 + 0.5 * u[:, 5 + k]))
            minor = np.where(flame, 0.6 * r, r * (0.6 + 0.3 * u[:, 8 + k]))
            turn = np.where(flame, fibre + 0.4 * (u[:, 5 + k] - 0.5), around)
            _stamp_blobs(
                dark, (x + shift * np.cos(around))[:n], (y + shift * np.sin(around))[:n],
                major[:n], minor[:n], turn[:n], 0.02, 0.3 + 0.5 * u[:n, 11],
            )  # fmt: skip

    n, most_n, grains = now["exudate_cluster"], most["exudate_cluster"], 64
    u = draw(most_n, 6)
    g = draw(most_n, grains, 6)
    if n:
        # Some clusters are heaps, others are arcs around a leaking spot; grains vary from specks to plaques.
        ring = u[:, 0, None] < 0.4
        place, way = 0.16 + 0.3 * u[:, 1], 2 * np.pi * u[:, 2]
        radius = np.where(ring, (0.07 + 0.08 * u[:, 3, None]) * (0.65 + 0.7 * g[..., 0]), 0.13 * g[..., 0])
        lump = g[..., 1] + 0.09 * np.sin(2 * np.pi * (3 * g[..., 1] + u[:, 5, None]))
        angle = 2 * np.pi * (u[:, 4, None] + np.where(ring, 0.8, 1.0) * lump)
        ex = (eye.fovea[0] + place * np.cos(way))[:, None] + radius * np.cos(angle)
        ey = (eye.fovea[1] + place * np.sin(way))[:, None] + radius * np.sin(angle)
        major = 0.0045 + 0.014 * g[..., 2] ** 4
        minor = major * (0.45 + 0.4 * g[..., 3])
        _stamp_blobs(
            yellow, ex[:n].reshape(-1), ey[:n].reshape(-1), major[:n].reshape(-1), minor[:n].reshape(-1),
            np.pi * g[:n, :, 4].reshape(-1), 0.006, 0.35 + 0.6 * g[:n, :, 5].reshape(-1),
        )  # fmt: skip

    n, most_n = now["cotton_wool"], most["cotton_wool"]
    x, y = _scatter(draw, most_n, eye, 0.62)
    u = draw(most_n, 3)
    if n:
        r = 0.025 + 0.022 * u[:, 0]
        _stamp_blobs(
            white, x[:n], y[:n], r[:n], r[:n] * (0.55 + 0.3 * u[:n, 1]), np.pi * u[:n, 2], 0.045, 0.7
        )

    n, most_n = now["new_vessel"], most["new_vessel"]
    fronds = 7
    u = draw(most_n, 3)
    v = draw(most_n * fronds, 3)
    new: list[_Vessels] = []
    if n:
        # Fronds: tufts of fine, very tortuous vessels at the disc and along the arcades.
        total = most_n * fronds
        high = np.array([0.0, -1.0, 1.0]) * (0.38 + 0.12 * u[:, 0])
        out = np.array([0.0, 0.45, 0.45]) + 0.2 * (u[:, 1] - 0.3)
        new = [
            _grow(
                draw, eye.disc[0] + np.repeat(out, fronds), eye.disc[1] + np.repeat(high, fronds),
                2 * np.pi * v[:, 0], 4.0 * (v[:, 1] - 0.5), 0.1 + 0.12 * v[:, 2],
                np.full(total, 0.0042), 0.4, np.ones(total, bool), 20, 0.9,
            )
        ]  # fmt: skip

    lie, depth, extent, slope = draw(4).tolist()
    if now["preretinal"]:
        # Blood in front of the retina settles under gravity: a flat top and a round lower edge.
        bx, by = eye.fovea[0] + 0.5 * (lie - 0.5), eye.fovea[1] + 0.36 + 0.12 * depth
        radius = 0.15 + 0.08 * extent
        gx, gy = _grid(size)
        body = _smoothstep((radius - _distance(size, bx, by, 0.75)) * np.float32(1 / 0.07) + 0.5)
        below = gy - np.float32(by - 0.05) + np.float32(0.12 * (slope - 0.5)) * gx
        level = _smoothstep(below * np.float32(1 / 0.04))
        np.maximum(dark, 0.9 * body * level, out=dark)
    return _Lesions(dark, yellow, white, new)


# ------------------------------------------------------------------------------------------------- camera

# Outer radius of the picture for each field of view; see `_aperture`.
_FIELD_RADIUS = (0.97, 1.0, 0.84)


@functools.lru_cache(maxsize=32)
def _aperture(size: int, field_of_view: int) -> F32:
    """Share of each pixel that the camera's aperture lets through, [size, size].

    0: a full circle. 1: a larger circle whose top and bottom the sensor cuts off. 2: a smaller circle with
    the square alignment tab that many cameras show at the upper right.
    """
    radius = _FIELD_RADIUS[field_of_view]
    gx, gy = _grid(size)
    mask = np.clip((radius - _distance(size, 0, 0)) * np.float32(size / 2) + 0.5, 0, 1)
    if field_of_view == 1:
        mask = mask * np.clip((np.float32(0.8) - np.abs(gy)) * np.float32(size / 2) + 0.5, 0, 1)
    elif field_of_view == 2:
        c = np.float32(math.sqrt(0.5))
        out, along = c * (gx - gy), c * (gx + gy)
        tab = np.clip((np.float32(radius + 0.05) - out) * np.float32(size / 2) + 0.5, 0, 1)
        tab = tab * (out > 0) * np.clip((np.float32(0.05) - np.abs(along)) * np.float32(size / 2) + 0.5, 0, 1)
        mask = np.maximum(mask, tab)
    mask = mask.astype(np.float32)
    mask.flags.writeable = False
    return mask


def _add_glare(picture: F32, seed: int, index: int, radius: float) -> None:
    """Light reflected into the lens: a whitish crescent or ring that hugs the edge of the field."""
    draw = _Stream(seed, index, _CAMERA + 100)
    size = picture.shape[-1]
    angle, shift = draw.one(0, 2 * math.pi), draw.one(0.04, 0.3)
    inner, strength, hue = draw.one(0.62, 0.78), draw.one(0.75, 1.0), draw.one()
    # A disc moved away from the glare's direction leaves a crescent; moved little, it leaves a ring.
    d = _distance(size, -shift * math.cos(angle), -shift * math.sin(angle))
    start = inner * radius + 0.55 * shift
    t = np.clip((d - np.float32(start)) * np.float32(1.0 / (radius + shift - start)), 0, 1)
    t = t * t * np.float32(strength)
    colour = (0.54 + 0.18 * hue, 0.72, 0.78 - 0.3 * hue)
    for c in range(3):
        picture[c] += t * (np.float32(colour[c]) - 0.75 * picture[c])


# ------------------------------------------------------------------------------------------------- render


def _check_id(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**63:
        raise ValueError(f"{name} must be an integer from 0 to 2**63 - 1, not {value!r}")
    return int(value)


def _check_resolution(resolution: int) -> int:
    if not isinstance(resolution, (int, np.integer)) or resolution not in RESOLUTIONS:
        raise ValueError(f"resolution must be one of {', '.join(map(str, RESOLUTIONS))}, not {resolution!r}")
    return int(resolution)


def _check_factors(factors: Mapping[str, FactorValue]) -> dict[str, float]:
    known = {f.name: f for f in FACTORS}
    wrong = sorted(set(factors) ^ set(known))
    if wrong:
        raise ValueError(f"factors must have the names {', '.join(known)}; differs in {', '.join(wrong)}")
    checked = {}
    for name, factor in known.items():
        value = float(factors[name])
        if factor.values is not None and value not in factor.values:
            raise ValueError(f"{name} must be one of {factor.values}, not {factors[name]!r}")
        if not factor.low <= value <= factor.high:
            raise ValueError(f"{name} must lie in [{factor.low}, {factor.high}], not {factors[name]!r}")
        checked[name] = value
    return checked


def sample_factors(seed: int, index: int) -> dict[str, float | int]:
    """The factors of picture `index` of dataset `seed`: independent draws, the same on every machine."""
    u = _Stream(_check_id("seed", seed), _check_id("index", index), _FACTOR_STREAM)(len(FACTORS))
    out: dict[str, float | int] = {}
    for factor, ui in zip(FACTORS, u.tolist()):
        if factor.values is None:
            out[factor.name] = factor.low + (factor.high - factor.low) * ui
        else:
            shares = factor.probabilities or (1.0 / len(factor.values),) * len(factor.values)
            # The last value takes what rounding leaves over.
            place = sum(ui >= edge for edge in list(itertools.accumulate(shares))[:-1])
            out[factor.name] = factor.values[place]
    return out


# Colours and strengths are (red, green, blue). The fundus itself, for pale, middling and dark pigmentation:
_PALE, _MIDDLE, _DARK = (0.99, 0.55, 0.27), (0.82, 0.38, 0.15), (0.46, 0.17, 0.08)
# How strongly each structure acts on the fundus: relative change of reflectance.
_MOTTLE, _HUE, _CHOROID = (0.14, 0.20, 0.24), (0.05, -0.06, -0.10), (0.17, 0.21, 0.14)
_MACULA, _PIT, _HALO = (0.24, 0.36, 0.34), (0.14, 0.24, 0.25), (0.08, 0.15, 0.18)
_ARTERY, _VEIN = (0.06, 0.42, 0.36), (0.19, 0.56, 0.46)
_TINT = (0.0, 0.05, 0.30)
# Reflectance of what lies in front of or replaces the fundus; blood is a transmittance.
_SHEEN = (0.75, 0.85, 0.80)
_DISC_TEMPORAL, _DISC_NASAL, _CUP = (1.10, 0.77, 0.39), (1.05, 0.63, 0.30), (1.25, 1.06, 0.74)
_ATROPHY = (0.95, 0.60, 0.33)
_BLOOD, _EXUDATE, _COTTON_WOOL = (0.62, 0.29, 0.32), (1.0, 0.84, 0.38), (0.95, 0.76, 0.52)


def _retina(factors: Mapping[str, float], size: int, seed: int, index: int) -> F32:
    """Reflectance of the retina as a left eye, [3, size, size], before any camera."""
    eye = _anatomy(seed, index)
    look = _Stream(seed, index, _ANATOMY + 100)
    tessellation, sheen, macula_depth = max(0.0, look.one(-0.6, 1.0)), look.one() ** 2, look.one(0.6, 1.1)
    crescent, reflex, tint = look.one(), look.one(), look.one(-1, 1)
    texture = _Stream(seed, index, _TEXTURE)
    mottle, hue = _noise(texture, 2, {4: 0.5, 8: 0.35, 16: 0.25, 32: 0.16, 64: 0.1}, size)

    p = factors["pigmentation"]
    base = [
        (1 - p) * (1 - 2 * p) * a + 4 * p * (1 - p) * b + p * (2 * p - 1) * c
        for a, b, c in zip(_PALE, _MIDDLE, _DARK)
    ]
    to_disc = _distance(size, *eye.disc, eye.disc_stretch)
    to_fovea = _distance(size, *eye.fovea)

    # Choroidal vessels shine through where the pigment in front of them is thin, never under the macula.
    bands: F32 | float = 0.0
    if tessellation > 0:
        # Drawn small and enlarged: they lie out of focus.
        coarse = min(size, 128)
        choroid = np.zeros((2, coarse, coarse), np.float32)
        _stamp_vessels(choroid, [_choroid(seed, index, eye)], 1.0, eye)
        while choroid.shape[-1] < size:
            choroid = _double(choroid)
        bands = np.maximum(choroid[0], np.float32(0.7) * choroid[1]) - np.float32(0.5)
        bands = bands * (1.0 - _bell(to_fovea, 0.45)) * np.float32(tessellation)
    shade = _bell(to_fovea, 0.24) * np.float32(macula_depth)
    pit = _bell(to_fovea, 0.065) * np.float32(macula_depth)
    halo = _bell(to_disc, 0.3)
    picture = np.empty((3, size, size), np.float32)
    for c in range(3):
        plane = 1.0 + np.float32(_MOTTLE[c]) * mottle + np.float32(_HUE[c]) * hue
        plane += np.float32(_CHOROID[c]) * bands
        plane += np.float32(_HALO[c]) * halo
        plane *= 1.0 - np.float32(_MACULA[c]) * shade - np.float32(_PIT[c]) * pit
        plane *= np.float32(base[c] * (1.0 + _TINT[c] * tint))
        picture[c] = plane

    # Sheen of the nerve fibre layer: a pale haze around the disc that spares the fovea.
    shine = _bell(to_disc, 0.55) * (1.0 - _bell(to_fovea, 0.3)) * (0.6 + mottle) * np.float32(0.16 * sheen)
    spot = _bell(to_fovea, 0.012) * np.float32(0.25 * max(0.0, reflex - 0.5))
    for c in range(3):
        picture[c] += np.float32(_SHEEN[c]) * (shine + spot)

    _draw_disc(picture, to_disc, eye, factors["cup_size"], crescent)

    lesions = _draw_lesions(seed, index, int(factors["dr_grade"]), size, eye)
    vessels = np.zeros((2, size, size), np.float32)
    _stamp_vessels(vessels, _vessel_tree(seed, index, eye), factors["vessel_calibre"], eye)
    if lesions.new_vessels:
        _stamp_vessels(vessels, lesions.new_vessels, 1.0, eye)
    for c in range(3):
        blood = np.maximum(np.float32(_ARTERY[c]) * vessels[0], np.float32(_VEIN[c]) * vessels[1])
        picture[c] *= 1.0 - blood
    if factors["dr_grade"] > 0:
        lesions.dark *= np.clip(1.0 + mottle, 0.5, 1.0)
        for c in range(3):
            picture[c] *= 1.0 - np.float32(1.0 - _BLOOD[c]) * lesions.dark
            picture[c] += lesions.white * (np.float32(_COTTON_WOOL[c]) - picture[c]) * np.float32(0.8)
            picture[c] += lesions.yellow * (np.float32(_EXUDATE[c]) - picture[c])
    return picture


def _draw_disc(picture: F32, to_disc: F32, eye: _Anatomy, cup_size: float, crescent: float) -> None:
    """Paint the optic disc and its cup over `picture`; `cup_size` is the ratio of their diameters."""
    size = picture.shape[-1]
    r = eye.disc_radius
    edge = max(0.036, 1.0 / size)
    disc = _smoothstep((r - to_disc) * np.float32(1 / edge) + 0.5)
    # The cup sits a little to the temporal side, where the rim is thinnest.
    cup_r = r * cup_size
    to_cup = _distance(size, eye.disc[0] + 0.35 * (r - cup_r), eye.disc[1], eye.disc_stretch)
    cup = _smoothstep((np.float32(cup_r) - to_cup) * np.float32(1 / max(0.04, edge)) + 0.5)
    gx, _ = _grid(size)
    nasal = np.clip((np.float32(eye.disc[0]) - gx) * np.float32(0.5 / r) + 0.3, 0, 1)
    # Atrophy beside the disc: a paler crescent on the temporal side of some eyes.
    to_atrophy = _distance(size, eye.disc[0] + 0.12 * r, eye.disc[1], eye.disc_stretch)
    atrophy = _smoothstep((np.float32(1.16 * r) - to_atrophy) * np.float32(20))
    atrophy = atrophy * np.float32(0.4 * max(0.0, crescent - 0.5))
    for c in range(3):
        picture[c] += atrophy * (np.float32(_ATROPHY[c]) - picture[c])
        tissue = np.float32(_DISC_TEMPORAL[c]) + np.float32(_DISC_NASAL[c] - _DISC_TEMPORAL[c]) * nasal
        tissue = tissue + cup * (np.float32(_CUP[c]) - tissue)
        picture[c] += disc * np.float32(0.93) * (tissue - picture[c])


def render(
    factors: Mapping[str, FactorValue], resolution: int, *, seed: int, index: int
) -> NDArray[np.uint8]:
    """Render one photograph: uint8 [resolution, resolution, 3], RGB.

    `factors` holds a value for every name in `FACTORS`. All else follows from (seed, index) alone, and does
    not depend on the factors. `resolution` is one of `RESOLUTIONS`; the same arguments at another resolution
    give the same scene.
    """
    resolution = _check_resolution(resolution)
    values = _check_factors(factors)
    seed, index = _check_id("seed", seed), _check_id("index", index)
    # Small pictures are drawn larger and averaged; at 512 the soft edges are anti-aliasing enough.
    size = min(512, max(64, 2 * resolution))
    field = int(values["field_of_view"])

    picture = _retina(values, size, seed, index)
    if values["eye_side"] == 1:
        picture = np.ascontiguousarray(picture[:, :, ::-1])

    draw = _Stream(seed, index, _CAMERA)
    exposure = 0.58 + 0.8 * values["brightness"]
    lx, ly, falloff = draw.one(-0.35, 0.35), draw.one(-0.3, 0.3), draw.one(0.18, 0.45)
    balance = (1.0, draw.one(0.88, 1.1), draw.one(0.3, 1.25))
    r = _distance(size, lx, ly)
    light = np.float32(1.1) - np.float32(falloff) * (r * r) / (np.float32(0.5) + np.float32(0.5) * r)
    light += _noise(_Stream(seed, index, _CAMERA + 300), 1, {2: 0.09, 4: 0.1}, size)[0]
    light *= np.float32(exposure)
    for c in range(3):
        picture[c] *= light * np.float32(balance[c])
    if values["glare"] == 1:
        _add_glare(picture, seed, index, _FIELD_RADIUS[field])
    if size >= 256:
        picture += _noise(_Stream(seed, index, _CAMERA + 200), 3, {128: 0.012, 256: 0.016}, size)
    np.maximum(picture, 0.0, out=picture)
    # A film-like shoulder: highlights bend towards white instead of clipping.
    fourth = picture * picture
    fourth *= fourth
    picture /= np.sqrt(np.sqrt(1.0 + fourth))
    picture *= _aperture(size, field)
    while picture.shape[-1] > resolution:
        picture = (
            picture[:, 0::2, 0::2] + picture[:, 0::2, 1::2] + picture[:, 1::2, 0::2] + picture[:, 1::2, 1::2]
        ) * np.float32(0.25)
    return np.rint(np.clip(picture, 0, 1) * np.float32(255)).astype(np.uint8).transpose(1, 2, 0).copy()


def render_batch(
    seed: int, indices: Sequence[int] | NDArray[np.integer], resolution: int
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.generic]]]:
    """Pictures `indices` of dataset `seed`, and their factors.

    Returns uint8 [N, resolution, resolution, 3] and one [N] array per factor: float64 for the continuous,
    int64 for the discrete.
    """
    resolution = _check_resolution(resolution)
    drawn = [sample_factors(seed, int(i)) for i in indices]
    images = np.empty((len(drawn), resolution, resolution, 3), np.uint8)
    for row, (i, values) in enumerate(zip(indices, drawn)):
        images[row] = render(values, resolution, seed=seed, index=int(i))
    table: dict[str, NDArray[np.generic]] = {
        f.name: np.array([d[f.name] for d in drawn], np.float64 if f.kind == "continuous" else np.int64)
        for f in FACTORS
    }
    return images, table
