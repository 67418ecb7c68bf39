"""What preparing a fundus photograph costs, beside a full decode and Lanczos reduction by plain Pillow.

    python benchmarks/prepare.py --photographs ../shared/data/idrid_512/train
    python benchmarks/prepare.py --photographs … --resolution 256 --noise 5

The photographs are enlarged to frames of 3000x2000 with a camera's noise, and saved as JPEG (quality 90,
4:2:0). The disc is cut above and below by the frame, as in much of EyePACS, or all of it is in sight; a small
one has to be decoded twice. Plain Pillow is told where the square is; ours has to find it. Both yield the
square as an array; "with PNG" adds encoding it, by Pillow with its defaults, and by `encode_png`.

The contenders take turns, image by image, in one thread; times are this process's CPU time, medians over
images and rounds. The difference is the RMSE in gray levels, inside the disc, 8 pixels away from its edge and
the frame's.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
from PIL import Image

from infostylegan.data.images import encode_png
from infostylegan.data.retina import Prepared, Recipe, cut_square, prepare

Out = TypeVar("Out")
WIDTH, HEIGHT = 3000, 2000


def frame(photograph: Image.Image, diameter: int, noise: float, draw: np.random.Generator) -> bytes:
    """A JPEG of 3000x2000 in whose middle the photograph, a square filled by its disc, has that diameter."""
    large = photograph.convert("RGB").resize((diameter, diameter), Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    picture.paste(large, ((WIDTH - diameter) // 2, (HEIGHT - diameter) // 2))
    pixels = np.asarray(picture).astype(np.float32)
    lit = pixels.max(2, keepdims=True) > 20
    pixels += lit * draw.normal(0, noise, (HEIGHT, WIDTH, 1)).astype(np.float32)
    out = io.BytesIO()
    Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def plain(content: bytes, crop: tuple[float, float, float, float], resolution: int) -> np.ndarray:
    """Decode all of it, and reduce the square by Lanczos."""
    with Image.open(io.BytesIO(content)) as image:
        return cut_square(image.convert("RGB"), crop[0], crop[1], crop[2] - crop[0], resolution)


def pillow_png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(out, "PNG")
    return out.getvalue()


def timed(function: Callable[[], Out]) -> tuple[float, Out]:
    """Milliseconds of CPU, and the result."""
    start = time.process_time()
    result = function()
    return 1000 * (time.process_time() - start), result


def difference(ours: np.ndarray, theirs: np.ndarray, made: Prepared) -> float:
    """RMSE in gray levels, 8 pixels and more from the edge of the disc and from those of the frame."""
    size = ours.shape[1]
    along = np.arange(size) + 0.5 - size / 2
    away = along[:, None] ** 2 + along**2 < (size / 2 - 8) ** 2
    scale = size / (made.crop[3] - made.crop[1])
    rows = np.arange(size)
    away &= ((rows > -made.crop[1] * scale + 8) & (rows < (HEIGHT - made.crop[1]) * scale - 8))[:, None]
    return float(np.sqrt(((ours[:, away].astype(float) - theirs[:, away]) ** 2).mean()))


@click.command()
@click.option("--photographs", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--count", type=int, default=12, show_default=True, help="Photographs, spread over the folder.")
@click.option("--resolution", type=int, default=512, show_default=True)
@click.option("--noise", type=float, default=3.0, show_default=True, help="The camera's, in gray levels.")
@click.option("--rounds", type=int, default=3, show_default=True)
def main(photographs: Path, count: int, resolution: int, noise: float, rounds: int) -> None:
    """Compare; see above."""
    paths = sorted(path for path in photographs.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = [paths[int(i)] for i in np.linspace(0, len(paths) - 1, count)]
    draw = np.random.default_rng(0)
    recipe = Recipe(resolution)
    heads = ("plain", "ours", "ratio", "with PNG", "ours", "ratio", "RMSE", "worst")
    widths = (10, 10, 8, 12, 10, 8, 12, 8)
    click.echo(f"{'frames':<24}" + "".join(f"{head:>{width}}" for head, width in zip(heads, widths)))
    for name, diameter in (
        ("cut disc, 2400 wide", 2400),
        ("whole disc, 1950", 1950),
        ("small disc, 1600", 1600),
    ):
        frames = [frame(Image.open(path), diameter, noise, draw) for path in chosen]
        times: dict[str, list[float]] = {"plain": [], "ours": [], "pillow": [], "encode": []}
        errors = []
        for _ in range(rounds):
            for content in frames:
                ours_ms, made = timed(lambda: prepare(content, recipe))  # noqa: B023  called at once
                plain_ms, theirs = timed(lambda: plain(content, made.crop, resolution))  # noqa: B023
                times["ours"].append(ours_ms)
                times["plain"].append(plain_ms)
                times["pillow"].append(timed(lambda: pillow_png(theirs))[0])  # noqa: B023
                times["encode"].append(timed(lambda: encode_png(made.pixels))[0])  # noqa: B023
                errors.append(difference(made.pixels, theirs, made))
        t = {key: statistics.median(values) for key, values in times.items()}
        whole_plain, whole_ours = t["plain"] + t["pillow"], t["ours"] + t["encode"]
        click.echo(
            f"{name:<24}{t['plain']:>7.1f} ms{t['ours']:>7.1f} ms{t['plain'] / t['ours']:>8.2f}"
            f"{whole_plain:>9.1f} ms{whole_ours:>7.1f} ms{whole_plain / whole_ours:>8.2f}"
            f"{statistics.mean(errors):>12.2f}{max(errors):>8.2f}"
        )
        click.echo(
            f"{'':<24}{statistics.mean(map(len, frames)) / 1e6:.2f} MB a file, {resolution}x{resolution}"
        )


if __name__ == "__main__":
    main()
