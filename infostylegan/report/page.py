"""The report of a run as one HTML file without scripts: it opens offline, asks for nothing, and prints."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from dnnlib.errors import UserError
from dnnlib.files import atomic_write
from dnnlib.log import format_bytes, format_time
from infostylegan import __version__
from infostylegan.codes import shown_name
from infostylegan.data import Dataset
from infostylegan.render.plots import code_colours
from infostylegan.report.charts import Series, chart, number
from infostylegan.report.gather import Run, gather, kimg_of
from infostylegan.report.markup import Content, Html, definitions, table, tag, text
from infostylegan.report.pictures import BUDGET, Picture, fitted
from metrics.errors import MetricError
from metrics.study import Study

LIMIT = 20 << 20  # bytes of the whole file
FAKES = 9  # stages of training that are shown
# Nothing but what the file itself holds: no scripts, no fonts, no requests.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
BLUE, ORANGE, GREEN, GREY = "var(--blue)", "var(--orange)", "var(--green)", "var(--grey)"


class TooLarge(UserError, ValueError):  # noqa: N818  named for what it is
    """A report that would pass the limit."""


def write_report(
    folder: Path, path: Path, *, dataset: Dataset | None = None, studies: Sequence[Path] = ()
) -> Run:
    """Write the report of a run folder to `path`; what was gathered.

    dataset   the data the run was trained on, for its sheet
    studies   folders of ACM studies; those in the run folder are found by themselves
    Raises NoRun for a folder that holds no run, and TooLarge where its texts alone pass the limit.
    """
    run = gather(folder)
    document = render(run, dataset, studies).encode()
    if len(document) >= LIMIT:
        raise TooLarge(
            f"{folder}: its texts make a report of {len(document):,} bytes; {LIMIT:,} are the limit"
        )
    with atomic_write(path) as file:
        file.write(document)
    return run


def render(run: Run, dataset: Dataset | None, studies: Sequence[Path]) -> str:
    pictures = _pictures(run)
    figures = fitted([p for group in pictures.values() for p in group], BUDGET)

    def drawn(group: str) -> list[Html]:
        return [figures[p.path] for p in pictures[group]]

    title = f"Run {run.folder.resolve().name}"
    sections = [
        ("summary", "Summary", _summary(run)),
        ("information", "What the codes tell", _information(run)),
        ("images", "Images", _grid(drawn("last"), "pair")),
        ("time", "Fakes over time", _grid(drawn("time"), "few")),
        ("codes", "What each code does", _traversals(drawn("atlas"), drawn("codes"))),
        ("metrics", "Metrics", _metrics(run, drawn("metrics"))),
        ("acm", "Attribute control (ACM)", _studies(run, studies)),
        ("training", "Training", _curves(run)),
        ("data", "Data", _data(run, dataset)),
        ("settings", "Settings", _settings(run)),
        ("environment", "Environment", _environment(run)),
        ("log", "Log", _log(run)),
    ]
    shown = [(key, head, body) for key, head, body in sections if text(body)]
    nav = tag(
        "nav",
        tag("ul", [tag("li", tag("a", head, href=f"#{key}")) for key, head, _ in shown]),
        aria_label="Sections",
    )
    main = tag(
        "main",
        [tag("section", tag("h2", head), body, id=key, aria_label=head) for key, head, body in shown],
        id="main",
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))),
    )
    header = tag("header", tag("h1", title), tag("p", _state(run), class_="state"))
    body = tag("body", tag("a", "Skip to content", href="#main", class_="skip"), header, nav, main)
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def finite(value: Any) -> TypeGuard[float]:
    """Whether a record's value is a number that can be reckoned with."""
    return isinstance(value, (int, float)) and abs(value) < 1e18


def _state(run: Run) -> str:
    goal = run.options.get("kimg")
    done = f"{run.images / 1000:.1f}"
    if run.result is not None:
        return f"finished at {done} thousand images"
    of = f" of {number(float(goal))}" if finite(goal) else ""
    return f"unfinished: {done}{of} thousand images"


def _pictures(run: Run) -> dict[str, list[Picture]]:
    fakes = run.pictures("fakes*.png")
    last, earlier = fakes[-1:], fakes
    if len(earlier) > FAKES:
        step = (len(fakes) - 1) / (FAKES - 1)
        earlier = [fakes[round(i * step)] for i in range(FAKES)]
    earlier = earlier if len(fakes) > 1 else []
    groups: dict[str, list[Picture]] = {
        "last": [Picture(p, "Grid of generated images", f"generated, {_at(p)}") for p in last],
        "time": [Picture(p, f"Grid of generated images, {_at(p)}", _at(p)) for p in earlier if p not in last],
        "atlas": [
            Picture(p, "Overview of what each code does", "the code atlas")
            for p in run.pictures("atlas/overview.png")
        ],
        "codes": [],
        "metrics": [
            Picture(
                p, f"Figure of the metric {p.stem.removeprefix('metric-')}", p.stem.removeprefix("metric-")
            )
            for p in run.pictures("metric-*.png")
        ],
    }
    groups["last"] += [
        Picture(p, "Grid of images of the data", "of the data") for p in run.pictures("reals.png")
    ]
    for path in sorted(run.pictures("traverse-*.png"), key=lambda p: _order(run, p)):
        code = path.stem.removeprefix("traverse-")
        shown = shown_name(code, run.names)
        alt = f"Samples in rows, {shown} swept from left to right"
        groups["codes"].append(Picture(path, alt, shown))
    return groups


def _order(run: Run, path: Path) -> tuple[int, str]:
    """In the order of the codes."""
    code = path.stem.removeprefix("traverse-")
    known = list(run.ceilings)
    return known.index(code) if code in known else len(known), code


def _at(path: Path) -> str:
    kimg = kimg_of(path)
    return path.stem if kimg is None else f"after {kimg:.0f} thousand images"


def _traversals(atlas: Sequence[Html], codes: Sequence[Html]) -> Content:
    intro = tag("p", "A row is a sample; from left to right only the code changes.") if codes else None
    return [_grid(atlas, "wide"), intro, _grid(codes, "pair")]


def _grid(figures: Sequence[Html], kind: str) -> Html | None:
    return tag("div", list(figures), class_=f"grid {kind}") if figures else None


# ---- sections ------------------------------------------------------------------------------------------


def _summary(run: Run) -> Content:
    last = run.stats[-1] if run.stats else {}
    information = run.information
    best = [
        f"{name} {_with_interval(rs[-1], name)}" for rs in run.metrics.values() for name in rs[-1]["results"]
    ]
    seconds = last.get("seconds")
    told = None
    if information and run.ceilings:
        total = sum(v for v in information.values() if math.isfinite(v))
        told = f"{total:.2f} nats in all of {sum(run.ceilings.values()):.2f}"
    pairs = [
        ("data", run.options.get("data") or run.dataset.get("name")),
        ("resolution", _squared(run.options.get("resolution"))),
        ("codes", run.options.get("codes")),
        ("information", told),
        ("generator", _kind(run)),
        ("snapshot", run.snapshot),
        ("metrics", ", ".join(best[:6]) or None),
        ("time spent", format_time(float(seconds)) if finite(seconds) else None),
    ]
    notes = [tag("p", note, class_="note") for note in run.notes]
    return [definitions([(name, value) for name, value in pairs if value not in (None, "")]), notes]


def _kind(run: Run) -> str | None:
    styles = run.options.get("styles")
    kind = {True: "styled (S = 1)", False: "direct (S = 0)"}.get(styles) if isinstance(styles, bool) else None
    count = run.parameters.get("G")
    return ", ".join(filter(None, [kind, f"{count / 1e6:.2f} million parameters" if count else None])) or None


def _squared(value: Any) -> str | None:
    return f"{value} × {value}" if isinstance(value, int) else None


def _information(run: Run) -> Content:
    if not run.ceilings:
        return None
    nats = run.information
    rows: list[list[Content]] = []
    for code, ceiling in run.ceilings.items():
        value = nats.get(code)
        known = value is not None and math.isfinite(value)
        share = value / ceiling if known and ceiling > 0 and value is not None else None
        rows.append(
            [shown_name(code, run.names), f"{value:.3f}" if known else "–", f"{ceiling:.3f}",
             _meter(share), f"{run.entropies.get(code, math.nan):.3f}"]
        )  # fmt: skip
    when = "on fresh samples of the averaged generator" if run.result else "as of the last tick"
    heads: list[Content] = ["code", "nats", "ceiling", "share", "entropy of the prior"]
    sheet = table(heads, rows, f"Information of each code, in nats, {when}")
    colours = code_colours(list(run.ceilings))
    series = [
        Series(
            shown_name(code, run.names),
            [(k, v / ceiling) for k, v in _curve(run, lambda r, c=code: _inner(r, "information", c))],
            colours[code],
            dash=_dash(code, list(run.ceilings)),
        )
        for code, ceiling in run.ceilings.items()
        if ceiling > 0
    ]
    drawn = chart(
        "Each code's information, as a share of its ceiling", series, y_label="share", bounds=(None, 1.05)
    )
    return [sheet, drawn]


def _dash(code: str, codes: list[str]) -> str | None:
    """Codes of a kind have one hue: dashes tell neighbours apart."""
    kind = code.rstrip("0123456789")
    index = [other for other in codes if other.rstrip("0123456789") == kind].index(code)
    return (None, "7 4", "2 3", "10 3 2 3")[index % 4]


def _meter(share: float | None) -> Content:
    if share is None:
        return "–"
    filled = f"width:{100 * min(max(share, 0.0), 1.0):.1f}%"
    bar = tag("span", tag("span", style=filled), class_="meter", aria_hidden="true")
    return [bar, f" {share:.0%}"]


def _inner(record: dict[str, Any], *keys: str) -> Any:
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _curve(run: Run, value: Any) -> list[tuple[float, float]]:
    points = []
    for record in run.stats:
        x, y = record.get("kimg"), value(record)
        if finite(x) and finite(y):
            points.append((float(x), float(y)))
    return sorted(points)


def _curves(run: Run) -> Content:
    def series(name: str, key: str, colour: str) -> Series:
        return Series(name, _curve(run, lambda record: record.get(key)), colour)

    charts = [
        chart("Losses", [series("generator", "loss_g", BLUE), series("discriminator", "loss_d", ORANGE)]),
        chart(
            "Scores of the discriminator",
            [series("real", "score_real", BLUE), series("fake", "score_fake", ORANGE)],
        ),
        chart(
            "Spread of the fakes, over the data's",
            [series("overall", "spread_overall", BLUE), series("codes held fixed", "spread", ORANGE)],
            bounds=(0.0, None),
        ),
        chart("Gradient penalty (R1)", [series("R1", "r1", GREEN)]),
        chart("Resolution", [series("pixels a side", "resolution", GREY)], bounds=(0.0, None)),
        chart("Speed", [series("seconds a thousand images", "sec_per_kimg", GREY)], bounds=(0.0, None)),
    ]
    return _grid([c for c in charts if c is not None], "charts")


def _interval(record: dict[str, Any], name: str) -> tuple[float, float] | None:
    ends = _inner(record, "interval", name)
    if isinstance(ends, (list, tuple)) and len(ends) == 2 and all(finite(e) for e in ends):
        return float(ends[0]), float(ends[1])
    return None


def _with_interval(record: dict[str, Any], name: str) -> str:
    value = record["results"].get(name)
    if not finite(value):
        return "–"
    ends = _interval(record, name)
    return number(float(value)) + (f" ({number(ends[0])} – {number(ends[1])})" if ends else "")


def _metrics(run: Run, figures: Sequence[Html]) -> Content:
    if not run.metrics:
        return None
    rows: list[list[Content]] = []
    charts: list[Html] = []
    protocols: list[tuple[Content, Content]] = []
    for metric, records in run.metrics.items():
        last = records[-1]
        names = [str(name) for name in last["results"]]
        for name in names:
            images = last.get("images")
            at = f"{images / 1000:.0f}" if finite(images) else "–"
            rows.append([name, _with_interval(last, name), at, last.get("snapshot"), last.get("time")])
            points, bands = [], []
            for record in records:
                x, y = record.get("images"), record["results"].get(name)
                if finite(x) and finite(y):
                    points.append((x / 1000, float(y)))
                    bands.append(_interval(record, name))
            if len(points) > 1:
                drawn = chart(f"{name} over training", [Series(name, points, BLUE, bands)])
                charts += [drawn] if drawn is not None else []
        for note in last.get("notes") or [] if isinstance(last.get("notes"), list) else []:
            protocols.append((metric, tag("span", note, class_="note")))
        if isinstance(last.get("protocol"), dict):
            protocols.append((metric, _flat(last["protocol"])))
    heads: list[Content] = ["metric", "value (95 % interval)", "thousand images", "snapshot", "measured"]
    return [
        table(heads, rows, "The latest value of each metric"),
        _grid(charts, "charts"),
        _grid(figures, "wide"),
        tag("details", tag("summary", "How each was measured"), definitions(protocols))
        if protocols
        else None,
    ]


def _details(summary: str, *content: Content) -> Html:
    return tag("details", tag("summary", summary), *content)


def _flat(values: Any) -> str:
    """Nested settings as one line."""
    if isinstance(values, dict):
        return ", ".join(f"{key}: {_flat(value)}" for key, value in values.items())
    if isinstance(values, (list, tuple)):
        return "[" + ", ".join(_flat(value) for value in values) + "]"
    if values is None or isinstance(values, bool):
        return {None: "–", True: "yes", False: "no"}[values]
    return f"{values:g}" if isinstance(values, float) else str(values)


def _studies(run: Run, given: Sequence[Path]) -> Content:
    folders = [path.parent for path in sorted(run.folder.glob("*/study.json"))] + list(given)
    parts: list[Content] = []
    for folder in dict.fromkeys(folders):
        try:
            score = Study.open(folder).score()
        except (MetricError, OSError, ValueError) as error:
            parts.append(tag("p", f"{folder.name}: {error}", class_="note"))
            continue
        rows: list[list[Content]] = []
        for entry in score.models:
            agreement = entry.cohen or entry.fleiss
            kind = "Cohen's" if entry.cohen else "Fleiss'"
            acm = entry.acm
            rows.append(
                [entry.model.name, shown_name(entry.model.code, run.names),
                 f"{acm.value:.1%} ± {acm.margin:.1%}" if acm else "no votes yet",
                 f"{acm.interval[0]:.1%} – {acm.interval[1]:.1%}" if acm else "–", acm.n if acm else 0,
                 f"{kind} κ {agreement.value:.2f}" if agreement else "–"]
            )  # fmt: skip
        heads: list[Content] = [
            "model",
            "code",
            "ACM ± 95 % margin",
            "Wilson's 95 % interval",
            "rows",
            "agreement",
        ]
        parts.append(table(heads, rows, f"Does {score.attribute} change consistently? ({folder.name})"))
        raters: list[list[Content]] = [
            [name, f"{r.voted} of {r.items}", _share(r.consistency), _share(r.still), _share(r.other)]
            for name, r in score.raters.items()
        ]
        if raters:
            heads = ["rater", "rated", "same answer to repeats", "said yes to still rows", "to other codes"]
            parts.append(table(heads, raters, "Raters"))
    return parts


def _share(value: Any) -> str:
    return "–" if value is None else f"{value.value:.0%}"


def _data(run: Run, dataset: Dataset | None) -> Content:
    digest = run.options.get("data_digest") or run.dataset.get("digest")
    pairs: list[tuple[Content, Content]] = [
        ("name", run.dataset.get("name") or run.options.get("data")),
        ("images", run.dataset.get("images")),
        ("resolution", _squared(run.options.get("resolution"))),
        ("channels", {"1": "1 (gray)", "3": "3 (RGB)"}.get(str(run.options.get("channels")))),
        ("classes", ", ".join(run.label_names) or run.options.get("label_count") or None),
        ("digest", tag("code", digest) if digest else None),
    ]
    parts: list[Content] = []
    if dataset is not None:
        same = "the same as the run's" if dataset.digest == digest else "another than the run was trained on"
        pairs += [
            ("looked at", f"{dataset.name}, {len(dataset)} images; its digest is {same}"),
            ("left out", f"{len(dataset.skipped)} files" if dataset.skipped else None),
            ("factors", ", ".join(dataset.factors or {}) or None),
            ("attributes", ", ".join(dataset.attributes or {}) or None),
        ]
        if dataset.labels is not None:
            values = dataset.labels.tolist()
            names = dataset.label_names or ()
            rows: list[list[Content]] = [
                [
                    names[v] if v < len(names) else str(v),
                    values.count(v),
                    f"{values.count(v) / len(values):.1%}",
                ]
                for v in sorted(set(values))
            ]
            parts.append(table(["class", "images", "share"], rows, "Images of each class"))
    return [definitions([(name, value) for name, value in pairs if value not in (None, "", 0)]), parts]


def _settings(run: Run) -> Content:
    plain = {k: v for k, v in run.options.items() if k != "run"}
    if not plain:
        return None
    settings = definitions([(key, _flat(value)) for key, value in sorted(plain.items())])
    return tag("details", tag("summary", f"All {len(plain)} settings"), settings, open="")


def _environment(run: Run) -> Content:
    import torch

    started = run.options.get("run")
    started = started if isinstance(started, dict) else {}
    command = started.get("command")
    held = [record.get("memory_bytes") for record in run.stats]
    peak = max([value for value in held if finite(value)] + [0])
    made_with = (
        f"infostylegan {__version__}", f"torch {torch.__version__}", f"Python {platform.python_version()}"
    )  # fmt: skip
    pairs: list[tuple[Content, Content]] = [
        ("started as", tag("code", " ".join(map(str, command))) if isinstance(command, list) else None),
        ("version of the run", started.get("version")),
        ("commit", started.get("commit")),
        ("precision", run.options.get("precision")),
        ("peak memory", format_bytes(peak) if peak else None),
        ("report made", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("report made with", ", ".join(made_with)),
        ("on", f"{platform.system()} {platform.machine()}"),
    ]
    return definitions([(name, value) for name, value in pairs if value])


def _log(run: Run) -> Content:
    if not run.log:
        return None
    warnings = [line for line in run.log if line.startswith("warning")]
    parts: list[Content] = [tag("p", line, class_="note") for line in warnings[-5:]]
    lines = tag("pre", "\n".join(run.log[-120:]), tabindex="0", aria_label="The end of log.txt")
    return [parts, _details("The end of log.txt", lines)]
