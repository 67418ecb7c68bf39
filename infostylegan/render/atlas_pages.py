"""The code atlas as pictures: a page for each code, and an overview of all."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from infostylegan.codes import shown_name
from infostylegan.render.atlas import Atlas, Entry, Link
from infostylegan.render.grids import font_of_size, image_grid, labelled_grid
from infostylegan.render.traversal import value_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER, INK, FAINT = "#ffffff", "#202020", "#767676"
PIXELS, PROBE = "#2f6d9e", "#b5542a"  # statistics of pixels, attributes read by the probe
DPI = 110
TOP = 9  # links shown on a page


def _unsigned_zero(value: float, digits: int) -> float:
    """Rounded, and 0 in the place of -0: an estimate of nothing may fall below it."""
    return round(value, digits) + 0.0


def information_text(entry: Entry) -> str:
    """`0.83 of 1.51 nats (55 %)`."""
    if entry.nats is None:
        return "information unknown: the snapshot holds no discriminator"
    share = f" ({_unsigned_zero(entry.nats / entry.ceiling, 2):.0%})" if entry.ceiling > 0 else ""
    interval = f" ± {(entry.interval[1] - entry.interval[0]) / 2:.2f}" if entry.interval else ""
    return f"{_unsigned_zero(entry.nats, 2):.2f}{interval} of {entry.ceiling:.2f} nats{share}"


def link_text(entry: Entry, link: Link) -> str:
    """`brightness +0.83`, or for categories `hue 0.61`."""
    strength = f"{link.strength:.2f}" if entry.code.kind == "cat" else f"{link.strength:+.2f}"
    return f"{link.what} {strength}"


def suggestion_text(entry: Entry) -> str:
    if entry.suggestion is None:
        return f"goes with nothing that was measured (no correlation of {entry.least:.2f} or more)"
    others = [link for link in entry.links[1:3] if abs(link.strength) >= entry.least]
    also = f", then {' and '.join(link_text(entry, link) for link in others)}" if others else ""
    return f"goes with {link_text(entry, entry.suggestion)}{also}"


def page(entry: Entry, atlas: Atlas, names: Mapping[str, str]) -> Image.Image:
    """One code: its sweep, where it acts, and what it goes with."""
    columns = len(entry.values)
    sheet = labelled_grid(
        entry.sweep, columns, column_labels=value_labels(entry.values), min_cell=96
    ).convert("RGB")
    height = max(sheet.height, 640)
    side = _side_panel(entry, atlas, (520, height))
    head = 96
    width = max(sheet.width + side.width + 48, 900)
    paper = Image.new("RGB", (width, head + height + 40), PAPER)
    draw = ImageDraw.Draw(paper)
    draw.text((20, 14), shown_name(entry.code.name, names), font=font_of_size(30), fill=INK)
    told = f"{information_text(entry)}   ·   makes {entry.share:.0%} of the image's variance"
    draw.text((20, 52), told, font=font_of_size(16), fill=INK)
    draw.text((20, 73), suggestion_text(entry), font=font_of_size(16), fill=INK)
    paper.paste(sheet, (16, head + 4))
    paper.paste(side, (sheet.width + 32, head + 4))
    rule = (
        f"{atlas.samples} images, codes drawn from their priors; along a row only {entry.code.name} changes"
    )
    draw.text((20, paper.height - 26), rule, font=font_of_size(13), fill=FAINT)
    return paper


def _side_panel(entry: Entry, atlas: Atlas, size: tuple[int, int]) -> Image.Image:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, layout="constrained", facecolor=PAPER)
    above, below = figure.subplots(2, 1, height_ratios=(1.0, 1.05))
    _draw_map(above, entry)
    _draw_links(below, entry, atlas)
    return _rendered(figure)


def _draw_map(axes: Axes, entry: Entry) -> None:
    top = max(float(entry.where.max()), 1e-6)
    shown = axes.imshow(entry.where, cmap="magma", vmin=0, vmax=top, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("where it acts: mean absolute change", loc="left", fontsize=10, color=INK)
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.045, pad=0.03)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("share of the range from black to white", fontsize=8)
    bar.outline.set_visible(False)


def _draw_links(axes: Axes, entry: Entry, atlas: Atlas) -> None:
    links = entry.links[:TOP]
    places = np.arange(len(links))[::-1]
    signed = entry.code.kind != "cat"
    colours = [PIXELS if link.source == "pixels" else PROBE for link in links]
    strengths = [link.strength for link in links]
    axes.barh(places, strengths, color=colours, height=0.66)
    axes.set_yticks(places, [link.what for link in links], fontsize=9)
    axes.set_xlim(-1.0 if signed else 0.0, 1.0)
    axes.set_xticks([-1.0, -0.5, 0.0, 0.5, 1.0] if signed else [0.0, 0.25, 0.5, 0.75, 1.0])
    for place, strength in zip(places, strengths):
        inside = abs(strength) > 0.8
        axes.annotate(
            f"{strength:+.2f}" if signed else f"{strength:.2f}", (strength, place),
            xytext=((-4 if strength >= 0 else 4) if inside else (4 if strength >= 0 else -4), 0),
            textcoords="offset points", va="center", fontsize=8, color=PAPER if inside else INK,
            ha=("right" if strength >= 0 else "left") if inside else ("left" if strength >= 0 else "right"),
        )  # fmt: skip
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.axvspan(-atlas.chance if signed else 0.0, atlas.chance, color="#e4e4e4", zorder=0, linewidth=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    what = "rank correlation" if signed else "correlation ratio"
    axes.set_title(f"what it goes with: {what}", loc="left", fontsize=10, color=INK)
    note = "gray: chance"
    if any(link.source == "probe" for link in links):
        note = "blue: pixels, orange: attributes, gray: chance"
    axes.set_xlabel(note, fontsize=8, color=FAINT, loc="right")


def _rendered(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


# ---- overview ------------------------------------------------------------------------------------------

CELL = 64


def overview(atlas: Atlas, names: Mapping[str, str], title: str) -> Image.Image:
    """Every code in a row: information, one sweep, where it acts, how much, what it goes with."""
    strips = [_strip(entry) for entry in atlas.entries]
    heats = _heat_maps(atlas.entries)
    shown = [shown_name(entry.code.name, names) for entry in atlas.entries]
    big, plain, small = font_of_size(24), font_of_size(15), font_of_size(13)
    name_width = int(max([plain.getlength(text) for text in shown] + [60])) + 24
    strip_width = max([strip.width for strip in strips] + [CELL])
    suggestions = [_short_suggestion(entry) for entry in atlas.entries]
    last = int(max([plain.getlength(text) for text in suggestions] + [160])) + 24
    widths = [name_width, 190, strip_width + 16, CELL + 24, 150, last]
    lefts = [20 + sum(widths[:i]) for i in range(len(widths))]
    row, head = CELL + 12, 92
    paper = Image.new("RGB", (20 + sum(widths), head + row * len(strips) + 44), PAPER)
    draw = ImageDraw.Draw(paper)
    draw.text((20, 14), title, font=big, fill=INK)
    heads = (
        "code",
        "information, of its ceiling",
        "one sample, swept",
        "where",
        "image variance",
        "goes with",
    )
    for left, text in zip(lefts, heads):
        draw.text((left, 62), text, font=small, fill=FAINT)
    for i, entry in enumerate(atlas.entries):
        top = head + i * row
        middle = top + CELL // 2
        draw.line((20, top - 6, paper.width - 20, top - 6), fill="#e4e4e4")
        draw.text((lefts[0], middle), shown[i], font=plain, fill=INK, anchor="lm")
        nats = (
            "unknown"
            if entry.nats is None
            else f"{_unsigned_zero(entry.nats, 2):.2f} of {entry.ceiling:.2f} nats"
        )
        draw.text((lefts[1], middle - 12), nats, font=plain, fill=INK, anchor="lm")
        share = 0.0 if entry.nats is None or entry.ceiling <= 0 else entry.nats / entry.ceiling
        _bar(draw, (lefts[1], middle + 4), 160, share)
        paper.paste(strips[i], (lefts[2], top))
        paper.paste(heats[i], (lefts[3], top))
        draw.text((lefts[4], middle - 12), f"{entry.share:.0%}", font=plain, fill=INK, anchor="lm")
        _bar(draw, (lefts[4], middle + 4), 120, entry.share)
        draw.text((lefts[5], middle), suggestions[i], font=plain, fill=INK, anchor="lm")
    note = (
        f"{atlas.samples} images with codes drawn from their priors; correlations are of ranks, chance stays "
        f"below {atlas.chance:.2f}; maps are on one scale"
    )
    draw.text((20, paper.height - 26), note, font=small, fill=FAINT)
    return paper


def _short_suggestion(entry: Entry) -> str:
    return "–" if entry.suggestion is None else link_text(entry, entry.suggestion)


def _bar(draw: ImageDraw.ImageDraw, at: tuple[int, int], width: int, share: float) -> None:
    x, y = at
    draw.rectangle((x, y, x + width, y + 8), fill="#e4e4e4")
    filled = round(width * min(max(share, 0.0), 1.0))
    if filled:
        draw.rectangle((x, y, x + filled, y + 8), fill=PIXELS)


def _strip(entry: Entry) -> Image.Image:
    """The first sample's sweep; of many values, eight of them."""
    first = entry.sweep[: len(entry.values)]
    if len(first) > 10:
        first = first[np.linspace(0, len(first) - 1, 10).round().astype(int)]
    return _resized(first, len(first))


def _resized(images: Tensor, columns: int) -> Image.Image:
    sheet = image_grid(images, columns, padding=0, min_cell=CELL).convert("RGB")
    scale = CELL / (sheet.width / columns)
    size = (round(sheet.width * scale), CELL)
    return sheet if sheet.size == size else sheet.resize(size, Image.Resampling.LANCZOS)


def _heat_maps(entries: Sequence[Entry]) -> list[Image.Image]:
    from matplotlib import colormaps

    top = max([float(entry.where.max()) for entry in entries] + [1e-6])
    colour: Callable[[Any], Any] = colormaps["magma"]
    maps = [Image.fromarray((colour(entry.where / top)[..., :3] * 255).astype(np.uint8)) for entry in entries]
    nearest, box = Image.Resampling.NEAREST, Image.Resampling.BOX
    return [m.resize((CELL, CELL), nearest if m.width < CELL else box) for m in maps]
