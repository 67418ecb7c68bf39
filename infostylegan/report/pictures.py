"""Pictures of a run inside its report, recompressed until all of them fit."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from infostylegan.report.markup import Html, tag

BUDGET = 13 << 20  # bytes of all pictures; as text they take a third more
LEVELS = ((1800, 88), (1400, 82), (1000, 78), (760, 70), (560, 60), (400, 50))  # longest side, quality
LARGEST = 120_000_000  # pixels of a file that is worth opening


@dataclass(frozen=True)
class Picture:
    path: Path
    alt: str
    caption: str


def encode(path: Path, side: int, quality: int) -> tuple[bytes, tuple[int, int]] | None:
    """A file as WebP of at most `side` pixels a side, and its size; None for what is no sound image.

    It is always decoded and written anew: nothing else that the file may hold comes along.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if opened.width * opened.height > LARGEST:
                    return None
                image = opened.convert("RGB")
    except Exception:
        return None
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    best = io.BytesIO()
    image.save(best, "WEBP", quality=quality, method=4)
    return best.getvalue(), image.size


def fitted(pictures: Sequence[Picture], budget: int = BUDGET) -> dict[Path, Html]:
    """<figure>s by path; as fine as the budget allows. Damaged files, and what fits at no size, are notes."""
    encoded: dict[Path, tuple[bytes, tuple[int, int]]] = {}
    paths = list(dict.fromkeys(p.path for p in pictures))
    for side, quality in LEVELS:
        made = {path: encode(path, side, quality) for path in paths}
        encoded = {path: result for path, result in made.items() if result is not None}
        if sum(len(data) for data, _ in encoded.values()) <= budget:
            break
    figures: dict[Path, Html] = {}
    spent = 0
    for picture in pictures:
        if picture.path not in encoded:
            figures[picture.path] = tag("p", f"{picture.path.name}: not a sound image", class_="note")
            continue
        data, (width, height) = encoded[picture.path]
        spent += len(data)
        if spent > budget:
            note = f"{picture.path.name}: left out, so that the report stays small"
            figures[picture.path] = tag("p", note, class_="note")
            continue
        source = Html("data:image/webp;base64," + base64.b64encode(data).decode())
        image = tag("img", src=source, alt=picture.alt, width=width, height=height)
        figures[picture.path] = tag("figure", tag("figcaption", picture.caption), image)
    return figures
