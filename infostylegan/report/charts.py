"""Curves as inline SVG: sharp on paper, and in the colours of the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from infostylegan.report.markup import Html, tag

WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 40
MOST = 400  # points of a curve


@dataclass(frozen=True)
class Series:
    """One curve: (x, y), in order of x; `band` is an interval for each point, if known."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str  # any CSS colour
    band: Sequence[tuple[float, float] | None] = ()
    dash: str | None = None  # SVG's stroke-dasharray: curves of like colours told apart


def number(value: float) -> str:
    """A short number: `0.834`, `12.4`, `1200`, `3.1e-05`."""
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    if 1 <= abs(value) < 1e6:
        return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    if abs(value) >= 0.001 and abs(value) < 1:
        return f"{value:.3f}"
    return f"{value:.2g}"


def tick_labels(values: Sequence[float]) -> list[str]:
    """As many decimals as all of them need, up to four."""
    for digits in range(5):
        if all(abs(value - round(value, digits)) < 1e-9 * max(1.0, abs(value)) for value in values):
            return [f"{value:.{digits}f}" for value in values]
    return [f"{value:.2g}" for value in values]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST points: means of neighbours, so that no peak is chosen by chance."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(finite) <= MOST:
        return finite
    size = len(finite) / MOST
    parts = [finite[round(i * size) : round((i + 1) * size)] for i in range(MOST)]
    return [(sum(x for x, _ in p) / len(p), sum(y for _, y in p) / len(p)) for p in parts if p]


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "images seen (thousands)",
    y_label: str = "",
    bounds: tuple[float | None, float | None] = (None, None),
) -> Html | None:
    """A figure with its legend; None where there is nothing to draw. `bounds` fix the ends of the y axis."""
    curves = [(s, thinned(s.points)) for s in series]
    curves = [(s, p) for s, p in curves if p]
    if not curves:
        return None
    xs = [x for _, p in curves for x, _ in p]
    ys = [y for _, p in curves for _, y in p]
    ys += [
        end for s, _ in curves for interval in s.band if interval for end in interval if math.isfinite(end)
    ]
    x0, x1 = min(0.0, min(xs)), max(xs)
    x1 = x1 if x1 > x0 else x0 + 1.0
    y0 = min(ys) if bounds[0] is None else bounds[0]
    y1 = max(ys) if bounds[1] is None else bounds[1]
    if y1 <= y0:
        y0, y1 = y0 - 0.5, y0 + 0.5
    room = 0.04 * (y1 - y0)
    y0, y1 = y0 - (room if bounds[0] is None else 0), y1 + (room if bounds[1] is None else 0)

    def at(x: float, y: float) -> tuple[float, float]:
        y = min(max(y, y0), y1)
        return (
            LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT),
            TOP + (y1 - y) / (y1 - y0) * (HEIGHT - TOP - BOTTOM),
        )

    parts: list[Html] = []
    rows, columns = ticks(y0, y1), ticks(x0, x1, 7)
    for y, shown in zip(rows, tick_labels(rows)):
        _, v = at(x0, y)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{v:.1f}", y2=f"{v:.1f}", class_="grid"))
        parts.append(tag("text", shown, x=LEFT - 6, y=f"{v + 4:.1f}", text_anchor="end"))
    for x, shown in zip(columns, tick_labels(columns)):
        h, _ = at(x, y0)
        parts.append(tag("text", shown, x=f"{h:.1f}", y=HEIGHT - BOTTOM + 18, text_anchor="middle"))
    parts.append(
        tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="axis")
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(tag("text", x_label, x=middle, y=HEIGHT - 6, text_anchor="middle", class_="label"))
    if y_label:
        turn = f"rotate(-90 12 {(TOP + HEIGHT - BOTTOM) / 2})"
        parts.append(
            tag("text", y_label, x=12, y=(TOP + HEIGHT - BOTTOM) / 2, text_anchor="middle", transform=turn,
                class_="label")
        )  # fmt: skip
    for s, points in curves:
        for (x, _), interval in zip(s.points, s.band):
            if interval and all(math.isfinite(end) for end in interval) and math.isfinite(x):
                (h, low), (_, high) = at(x, interval[0]), at(x, interval[1])
                where = {"x1": f"{h:.1f}", "x2": f"{h:.1f}", "y1": f"{low:.1f}", "y2": f"{high:.1f}"}
                parts.append(tag("line", **where, style=f"stroke:{s.colour}", class_="interval"))
        line = " ".join(f"{h:.1f},{v:.1f}" for h, v in (at(x, y) for x, y in points))
        parts.append(tag("polyline", points=line, style=f"stroke:{s.colour}", stroke_dasharray=s.dash))
        if len(points) < 12:
            for x, y in points:
                h, v = at(x, y)
                parts.append(tag("circle", cx=f"{h:.1f}", cy=f"{v:.1f}", r=3, style=f"fill:{s.colour}"))
    last = "; ".join(f"{s.name} ends at {number(p[-1][1])}" for s, p in curves)
    svg = tag(
        "svg", parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title}. {last}.",
        preserveAspectRatio="xMidYMid meet",
    )  # fmt: skip
    legend = tag(
        "ul",
        [tag("li", _swatch(s), f"{s.name} {number(p[-1][1])}") for s, p in curves],
        class_="legend",
    )
    return tag("figure", tag("figcaption", title), svg, legend)


def _swatch(series: Series) -> Html:
    line = tag("line", x1=0, x2=28, y1=4, y2=4, style=f"stroke:{series.colour}", stroke_dasharray=series.dash)
    return tag("svg", line, viewBox="0 0 28 8", class_="swatch", aria_hidden="true")
