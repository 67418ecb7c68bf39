"""Many images on one sheet, with or without labels."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from dnnlib.files import PathLike, atomic_write

Images = torch.Tensor | npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.uint8]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PAPER = 255
_INK = 32


def to_uint8(images: torch.Tensor) -> Pixels:
    """Float NCHW in [-1, 1] to bytes NHWC: rounded, and clamped where a generator overshoots.

    Bytes (NCHW) pass through, so that real images need no detour.
    """
    if images.ndim != 4:
        raise ValueError(f"expected images of shape [N, C, H, W], got {list(images.shape)}")
    images = images.detach()
    if images.dtype != torch.uint8:
        images = images.float().add(1).mul(127.5).nan_to_num(127.5).round().clamp(0, 255).to(torch.uint8)
    return images.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def image_grid(images: Images, columns: int, *, padding: int = 2, min_cell: int = 48) -> Image.Image:
    """Images row by row on white paper, `padding` pixels around each.

    images    float NCHW in [-1, 1], or bytes NHWC; 1 or 3 channels
    min_cell  smaller images are enlarged by a whole factor, without smoothing, until a side has that many
    """
    return _picture(_sheet(_cells(images, min_cell), columns, padding))


def labelled_grid(
    images: Images,
    columns: int,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    padding: int = 2,
    min_cell: int = 48,
) -> Image.Image:
    """As `image_grid`, with a title, a label above each column and a label left of each row."""
    cells = _cells(images, min_cell)
    sheet = _sheet(cells, columns, padding)
    rows = -(-len(cells) // columns)
    height, width = cells.shape[1:3]
    for labels, count, what in ((row_labels, rows, "row"), (column_labels, columns, "column")):
        if labels is not None and len(labels) != count:
            raise ValueError(f"{len(labels)} {what} labels for {count} {what}s")

    size = min(40, max(11, height // 12))  # legible at either end: 48 pixel cells and 1024 pixel cells
    font, big = font_of_size(size), font_of_size(round(1.3 * size))
    gap = size // 2
    left = 0
    if row_labels:
        left = int(max(font.getlength(label) for label in row_labels)) + 2 * gap
    title_height = round(1.3 * size) + 2 * gap if title else 0
    top = title_height + (size + 2 * gap if column_labels else 0)
    needed = int(big.getlength(title)) + 2 * gap if title else 0
    paper = Image.new(
        "L" if sheet.shape[2] == 1 else "RGB",
        (max(left + sheet.shape[1], needed), top + sheet.shape[0]),
        _PAPER if sheet.shape[2] == 1 else (_PAPER,) * 3,
    )
    paper.paste(_picture(sheet), (left, top))

    ink: int | tuple[int, ...] = _INK if paper.mode == "L" else (_INK,) * 3
    draw = ImageDraw.Draw(paper)
    if title:
        draw.text((gap, title_height / 2), title, font=big, fill=ink, anchor="lm")
    for column, label in enumerate(column_labels or ()):
        x = left + padding + column * (width + padding) + width / 2
        # On one line, whatever hangs below it.
        line = top - gap - size // 5
        draw.text((x, line), _fitted(label, font, width), font=font, fill=ink, anchor="ms")
    for row, label in enumerate(row_labels or ()):
        y = top + padding + row * (height + padding) + height / 2
        draw.text((left - gap, y), label, font=font, fill=ink, anchor="rm")
    return paper


def save_png(picture: Image.Image, path: PathLike, about: Mapping[str, Any] | None = None) -> None:
    """Write a PNG atomically; `about` goes into its text as JSON, under `infostylegan`."""
    text = PngInfo()
    if about is not None:
        text.add_text("infostylegan", json.dumps(about))
    with atomic_write(path) as file:
        picture.save(file, format="png", pnginfo=text)


def _cells(images: Images, min_cell: int) -> Pixels:
    pixels = to_uint8(images) if isinstance(images, torch.Tensor) else images
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        raise ValueError(
            f"expected float images [N, 1 or 3, H, W] or bytes [N, H, W, 1 or 3], "
            f"got {pixels.dtype} {list(pixels.shape)}"
        )
    if not len(pixels):
        raise ValueError("no images to lay out")
    factor = max(1, -(-min_cell // min(pixels.shape[1:3])))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else pixels


def _sheet(cells: Pixels, columns: int, padding: int) -> Pixels:
    if columns < 1:
        raise ValueError(f"a grid needs at least one column, not {columns}")
    rows = -(-len(cells) // columns)
    _, height, width, channels = cells.shape
    shape = (padding + rows * (height + padding), padding + columns * (width + padding), channels)
    sheet = np.full(shape, _PAPER, np.uint8)
    for index, cell in enumerate(cells):
        y = padding + index // columns * (height + padding)
        x = padding + index % columns * (width + padding)
        sheet[y : y + height, x : x + width] = cell
    return sheet


def _picture(sheet: Pixels) -> Image.Image:
    return Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)


@functools.lru_cache(maxsize=16)
def font_of_size(size: int) -> _Font:
    # Pillow's own font knows ASCII only, and people name codes in their language; matplotlib brings DejaVu.
    try:
        import matplotlib

        return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
    except (ImportError, OSError):
        return ImageFont.load_default(size)


def _fitted(label: str, font: _Font, width: float) -> str:
    """`label`, cut short if it would run into its neighbour."""
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(label + "..") > width:
        label = label[:-1]
    return label + ".."
