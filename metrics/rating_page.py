"""A rating page that needs no server: one HTML file with the rows inside, which saves a file of ratings."""

from __future__ import annotations

import base64
import html
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from dnnlib.files import atomic_write

if TYPE_CHECKING:
    from metrics.study import Study

LARGEST_ROW = 250_000  # bytes of a PNG that is put in as it is
WIDEST = 2048  # pixels across of a row that is larger


def write_page(study: Study, rater: str, path: str | Path) -> None:
    """Write the page of one rater, with the rows in that rater's order.

    The page names neither models nor codes, nor what a row is. It keeps votes in the browser until they are
    saved as `<rater>.jsonl`, which `Study.add_ratings` reads.
    """
    rows = [{"item": item, "src": _embedded(study.image(item))} for item in study.order(rater)]
    data = json.dumps({"study": study.digest, "rater": rater, "rows": rows})
    title = html.escape(f"{study.attribute}: rating by {rater}")
    page = (
        files("metrics")
        .joinpath("rating_page.html")
        .read_text(encoding="utf-8")
        .replace("{{title}}", title)
        .replace("{{question}}", html.escape(study.question))
        # Within a script only a closing tag could end it early.
        .replace("{{data}}", data.replace("</", "<\\/"))
    )
    with atomic_write(path, "w") as file:
        file.write(page)


def _embedded(path: Path) -> str:
    """A data URL of a row: its PNG, or where that is large a JPEG."""
    data, kind = path.read_bytes(), "png"
    if len(data) > LARGEST_ROW:
        from PIL import Image

        with Image.open(io.BytesIO(data)) as picture:
            picture.thumbnail((WIDEST, WIDEST))
            buffer = io.BytesIO()
            picture.save(buffer, format="jpeg", quality=93, subsampling=0)
        data, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
