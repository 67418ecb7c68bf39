"""The outline of dSprites' heart, fitted to original frames, and how well the frames drawn anew agree.

    python benchmarks/dsprites_outline.py FRAMES.npz

The file holds original frames (imgs, 0 and 1) and their latents_classes. The radius is a series of Chebyshev
polynomials of the angle; its coefficients maximise the likelihood of a logistic model in which a pixel is
white the more surely the deeper it lies inside, sharpened step by step. The fit is also made on each half of
the frames and judged on the other half, so that fitting noise would show. A sheet of originals, frames drawn
anew, and the pixels that differ is written into the folder where it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.polynomial import chebyshev
from PIL import Image
from scipy.optimize import minimize

from infostylegan.data import dsprites

TERMS = len(dsprites.HEART)


def fit(frames: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Coefficients of the heart's radius; frames bool [n, 64, 64] of hearts, classes [n, 6]."""
    angle = np.linspace(0, 2 * np.pi, 40)[classes[:, 3], None, None]
    scale = np.linspace(0.5, 1, 6)[classes[:, 2], None, None] * dsprites.SIZE
    centre = 16 + 32 * np.linspace(0, 1, 32)
    y, x = np.mgrid[:64, :64] + 0.5
    dx, dy = x - centre[classes[:, 4], None, None], y - centre[classes[:, 5], None, None]
    u = (np.cos(angle) * dx - np.sin(angle) * dy) / scale
    v = (np.sin(angle) * dx + np.cos(angle) * dy) / scale
    radius = np.hypot(u, v)
    near = (radius > 0.07) & (radius < 0.2)
    powers = chebyshev.chebvander(2 * np.arctan2(np.abs(u), v)[near] / np.pi - 1, TERMS - 1)
    side = np.where(frames, 1.0, -1.0)[near]
    weight, radius = np.broadcast_to(scale / 64, frames.shape)[near], radius[near]
    series = np.zeros(TERMS)
    series[0] = 0.12
    for softness in (0.02, 0.008, 0.004, 0.002, 0.001, 0.0005):

        def loss(a: np.ndarray, softness: float = softness) -> tuple[float, np.ndarray]:
            depth = side * (powers @ a - radius) * weight / softness
            slope = -side * weight / softness / (1 + np.exp(np.clip(depth, -700, 700)))
            return float(np.logaddexp(0, -depth).sum()), powers.T @ slope

        series = minimize(loss, series, jac=True, method="L-BFGS-B", options={"maxiter": 400}).x
    return series


def wrong(series: np.ndarray, frames: np.ndarray, classes: np.ndarray) -> float:
    dsprites.HEART = tuple(series)
    dsprites._outline.cache_clear()
    return dsprites.compare(frames, classes)["heart"]


def main() -> None:
    with np.load(sys.argv[1], allow_pickle=False) as archive:
        frames, classes = archive["imgs"], archive["latents_classes"]
    print("wrong pixels a frame, as shipped:", dsprites.compare(frames, classes))
    sheet(frames, classes, Path("dsprites-originals-regenerated-differences.png"))
    heart = classes[:, 1] == 2
    frames, classes = frames[heart], classes[heart]
    series = fit(frames > 0, classes).round(5)
    print("fitted to all hearts:", series.tolist(), "wrong pixels a frame:", wrong(series, frames, classes))
    odd = classes[:, 2:].sum(axis=1) % 2 == 1
    for seen in (odd, ~odd):
        series = fit(frames[seen] > 0, classes[seen])
        score = wrong(series, frames[~seen], classes[~seen])
        print(
            f"fitted to {seen.sum()} frames; on the other {(~seen).sum()}, wrong pixels a frame: {score:.3f}"
        )


def sheet(frames: np.ndarray, classes: np.ndarray, path: Path) -> None:
    """Originals, drawn anew, and the difference, in rows of three, enlarged."""
    chosen = [*range(0, 64, 8), *range(64, 128, 8), *range(128, 320, 12)]
    drawn = dsprites.render(classes[chosen][:, 1:])[:, 0]
    rows = [np.concatenate([f * np.uint8(255) for f in frames[chosen]], 1), np.concatenate(list(drawn), 1)]
    rows.append(rows[0] ^ rows[1])
    half = rows[0].shape[1] // 2
    picture = np.concatenate(
        [row[:, part] for part in (slice(0, half), slice(half, None)) for row in rows], 0
    )
    Image.fromarray(picture).resize(
        (picture.shape[1] * 2, picture.shape[0] * 2), Image.Resampling.NEAREST
    ).save(path)


if __name__ == "__main__":
    main()
