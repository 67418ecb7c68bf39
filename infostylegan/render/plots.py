"""How much each code tells about the image, over training: the paper's Figure 10."""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dnnlib.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = npt.NDArray[np.float64]

# Hues that stay apart for colour-blind readers (Okabe and Ito); a type of code has a hue, a code a shade.
_HUES = {"cat": "#0072B2", "bern": "#D55E00", "unif": "#009E73"}
_OTHER_HUES = ("#CC79A7", "#56B4E9", "#E69F00")
_TOTAL = "#5B3A8E"
_FADE = "#f1f1f1"
_GREY = "#555555"


def plot_information(
    records: Sequence[dict[str, Any]],
    ceilings: dict[str, float],
    path: str | Path,
    *,
    window: int | None = None,
) -> None:
    """Draw the moving average of L_info (nats) against the images seen, in thousands.

    Left, the discrete codes together beside the entropy they cannot exceed; right, each code as a share of
    its own ceiling. Pale bands are fades to the resolution written above them.

    records   lines of stats.jsonl: "kimg", "information" {code: nats}; with growth "resolution" and "fade"
    ceilings  nats by code, in the order of the codes
    window    how many records are averaged; by default a fiftieth of them
    """
    figure = information_figure(records, ceilings, window=window)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def information_figure(
    records: Sequence[dict[str, Any]], ceilings: dict[str, float], *, window: int | None = None
) -> Figure:
    """What `plot_information` writes, as a matplotlib figure."""
    # The object interface draws without a display and leaves the user's pyplot state alone. Imported here,
    # because matplotlib is slow to load and most of the package never draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = [r for r in records if r.get("kimg") is not None and r.get("information")]
    records.sort(key=lambda r: float(r["kimg"]))
    kimg = np.array([float(r["kimg"]) for r in records])
    window = window or max(1, len(records) // 50)
    raw = {name: _curve(records, name) for name in ceilings}

    figure = Figure(figsize=(13, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _total_panel(left, kimg, raw, ceilings, window)
    _share_panel(right, kimg, raw, ceilings, window)
    titles = "all discrete codes together", "each code, as a share of its ceiling"
    for axes, title in zip((left, right), titles):
        _dress(axes, kimg)
        grown = _mark_growth(axes, records, kimg)
        axes.set_title(title, loc="left", fontsize=11, pad=22 if grown else 8)
        if not records:
            axes.text(0.5, 0.5, "nothing recorded yet", transform=axes.transAxes, ha="center", color=_GREY)
    return figure


def moving_average(values: Curve, window: int) -> Curve:
    """The mean of the last `window` values up to each one, leaving out what is not finite; NaN if none is."""
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - window, 0)
    seen = counts[stop] - counts[start]
    return np.where(seen > 0, (sums[stop] - sums[start]) / np.maximum(seen, 1), np.nan)


def _curve(records: Sequence[dict[str, Any]], name: str) -> Curve:
    """One code's nats; what was not finite came back from the file as None."""
    values = (record["information"].get(name) for record in records)
    return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)


def _type(name: str) -> str:
    match = re.match(r"[A-Za-z]+", name)
    return match[0] if match else name


def _total_panel(
    axes: Axes, kimg: Curve, raw: dict[str, Curve], ceilings: dict[str, float], window: int
) -> None:
    discrete = [name for name in ceilings if _type(name) != "unif"]
    axes.set_ylabel("$L_{info}$ (nats)")
    if not discrete:
        axes.text(0.5, 0.5, "no discrete codes", transform=axes.transAxes, ha="center", color=_GREY)
        return
    entropy = sum(ceilings[name] for name in discrete)
    total = np.sum([raw[name] for name in discrete], axis=0)
    smooth = moving_average(total, window)
    axes.axhline(entropy, color="black", linestyle="--", linewidth=1.2)
    axes.annotate(
        f"Entropy(C), discrete: {entropy:.2f}",
        (0, entropy),
        xycoords=("axes fraction", "data"),
        xytext=(6, -4),
        textcoords="offset points",
        va="top",
        fontsize=9,
    )
    if window > 1:
        axes.plot(kimg, total, color=_TOTAL, alpha=0.3, linewidth=0.8)
    axes.plot(kimg, smooth, color=_TOTAL, linewidth=2, marker="o" if len(kimg) == 1 else None)
    axes.set_ylim(_floor([smooth], -0.3 * entropy) - 0.04 * entropy, 1.1 * entropy)


def _share_panel(
    axes: Axes, kimg: Curve, raw: dict[str, Curve], ceilings: dict[str, float], window: int
) -> None:
    axes.set_ylabel("$L_{info}$ / ceiling")
    axes.axhline(1.0, color="black", linestyle="--", linewidth=1.2)
    # A uniform code read with sigma = 1, as in the paper, has a ceiling below zero: no share to show.
    names = [name for name in ceilings if math.isfinite(ceilings[name]) and ceilings[name] > 0]
    if left_out := [name for name in ceilings if name not in names]:
        listed = ", ".join(left_out) if len(left_out) < 4 else f"{left_out[0]} … {left_out[-1]}"
        note = f"not shown, for want of a positive ceiling: {listed}"
        axes.text(0.01, 0.985, note, transform=axes.transAxes, va="top", fontsize=8, color=_GREY)
    shares = {name: moving_average(raw[name], window) / ceilings[name] for name in names}
    ends: list[tuple[float, str, str]] = []
    for name, colour in code_colours(names).items():
        share = shares[name]
        axes.plot(kimg, share, color=colour, linewidth=1.4, marker="o" if len(kimg) == 1 else None)
        finite = share[np.isfinite(share)]
        if len(finite):
            ends.append((float(finite[-1]), name, colour))
    axes.set_ylim(_floor(list(shares.values()), -0.1) - 0.03, 1.1)
    _name_ends(axes, ends)


def _floor(curves: Sequence[Curve], least: float) -> float:
    """How far down to draw: to the lowest point, but below `least` only for where curves stand now.

    The bound starts far below zero while Q is still confidently wrong; that must not squeeze the rest.
    """
    finite = [curve[np.isfinite(curve)] for curve in curves]
    lowest = min((float(curve.min()) for curve in finite if len(curve)), default=0.0)
    now = min((float(curve[-1]) for curve in finite if len(curve)), default=0.0)
    return min(max(lowest, least), now, 0.0)


def code_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour per code: the hue of its type, from dark to light within the type."""
    types = list(dict.fromkeys(map(_type, names)))
    spare = iter(_OTHER_HUES * (len(types) // len(_OTHER_HUES) + 1))
    colours: dict[str, str] = {}
    for kind in types:
        hue = _HUES.get(kind) or next(spare)
        h, lightness, s = colorsys.rgb_to_hls(*(int(hue[i : i + 2], 16) / 255 for i in (1, 3, 5)))
        members = [name for name in names if _type(name) == kind]
        for i, name in enumerate(members):
            at = i / (len(members) - 1) if len(members) > 1 else 0.5
            rgb = colorsys.hls_to_rgb(h, lightness * (0.6 + 0.8 * at), s)
            colours[name] = "#" + "".join(f"{round(255 * x):02x}" for x in rgb)
    return colours


def _name_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name each curve at its right end: eighteen codes need no legend to look up, and names never overlap."""
    bottom, top = axes.get_ylim()
    size = 9 if len(ends) <= 20 else 9 * 20 / len(ends)
    step = (top - bottom) * size / 9 / 23  # one line of this size, in data units, on a panel this high
    ends = sorted(ends)
    places = _spread([min(end, top) for end, _, _ in ends], step, bottom + step / 2, top - step / 2)
    for place, (end, name, colour) in zip(places, ends):
        axes.annotate(
            f"{name}  {end:.2f}",
            (1, min(end, top)),
            xycoords=("axes fraction", "data"),
            xytext=(1.06, place),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=size,
            color=colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 1,
                "relpos": (0, 0.5),  # from the middle of the name's left edge
            },
        )


def _spread(places: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Ascending places moved apart to `step` or more, as little as that takes, and into [low, high]."""
    groups: list[list[float]] = []  # [sum of places, how many]: neighbours that touch move as one
    for place in places:
        groups.append([place, 1])
        while len(groups) > 1 and _bounds(groups[-2], step)[1] + step > _bounds(groups[-1], step)[0]:
            total, count = groups.pop()
            groups[-1] = [groups[-1][0] + total, groups[-1][1] + count]
    spread = [_bounds(g, step)[0] + i * step for g in groups for i in range(int(g[1]))]
    for i in range(len(spread)):  # push up from the floor, then down from the ceiling
        spread[i] = max(spread[i], low + i * step)
    for i in range(len(spread)):
        spread[-1 - i] = min(spread[-1 - i], high - i * step)
    return spread


def _bounds(group: Sequence[float], step: float) -> tuple[float, float]:
    centre, half = group[0] / group[1], step * (group[1] - 1) / 2
    return centre - half, centre + half


def _dress(axes: Axes, kimg: Curve) -> None:
    axes.set_xlabel("images seen (thousands)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if len(kimg) and kimg[-1] > 0:
        axes.set_xlim(0.0, kimg[-1])


def _mark_growth(axes: Axes, records: Sequence[dict[str, Any]], kimg: Curve) -> bool:
    """A pale band for each fade, and the resolution where it begins; False if nothing grew."""
    if len({r.get("resolution") for r in records}) < 2 and all(_fade(r) >= 1 for r in records):
        return False
    previous = None
    for i, record in enumerate(records):
        start = kimg[i - 1] if i else 0.0
        if _fade(record) < 1:
            axes.axvspan(start, kimg[i], color=_FADE, linewidth=0, zorder=0)
        resolution = record.get("resolution")
        if resolution is not None and resolution != previous:
            axes.annotate(
                f"{resolution}²",
                (start, 1),
                xycoords=("data", "axes fraction"),
                xytext=(2, 3),
                textcoords="offset points",
                fontsize=8,
                color=_GREY,
            )
            previous = resolution
    return True


def _fade(record: dict[str, Any]) -> float:
    fade = record.get("fade")
    return 1.0 if fade is None else float(fade)
