"""`python -m metrics acm`: a rating study of attribute control, from rendering to its score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dnnlib.cli import Failure

if TYPE_CHECKING:
    from PIL.Image import Image

    from metrics.acm import Agreement, Proportion
    from metrics.study import Study, StudyScore


@click.group(context_settings={"show_default": True, "max_content_width": 100})
def acm() -> None:
    """A rating study of attribute control: create it, rate it, score it.

    (`acm` as a metric, judged automatically: python -m metrics acm --network SNAPSHOT.)
    """


@acm.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option(
    "--network", "networks", type=click.Path(path_type=Path), multiple=True, required=True,
    help="A snapshot; several are mixed blindly.",
)  # fmt: skip
@click.option(
    "--code", "codes", multiple=True, required=True,
    help="The code to sweep, such as unif3; one for all networks, or one for each.",
)  # fmt: skip
@click.option("--attribute", required=True, help="What the code is to control, as raters are asked.")
@click.option("--samples", type=click.IntRange(1), default=100, help="Rows of each network.")
@click.option("--steps", type=click.IntRange(2), help="Values of a uniform code along a row.  [default: 8]")
@click.option("--controls", type=click.FloatRange(0, 1), default=0.1, help="Hidden control rows, as a share.")
@click.option("--repeats", type=click.FloatRange(0, 1), default=0.1, help="Rows shown twice, as a share.")
@click.option("--psi", type=float, default=1.0, help="Truncation; 1: none.")
@click.option("--seed", type=int, default=0, help="Which samples are drawn.")
def create(
    study: Path,
    networks: tuple[Path, ...],
    codes: tuple[str, ...],
    attribute: str,
    samples: int,
    steps: int | None,
    controls: float,
    repeats: float,
    psi: float,
    seed: int,
) -> None:
    """Render STUDY, a new folder, of rows in which one code is swept."""
    from tqdm import tqdm

    from metrics.study import Rated, Study

    if len(codes) not in (1, len(networks)):
        raise Failure(
            f"{len(networks)} networks and {len(codes)} codes: give one --code, or one for each network"
        )
    each = codes if len(codes) == len(networks) else codes * len(networks)
    rated = [Rated.load(network, code) for network, code in zip(networks, each)]
    with tqdm(desc="rendering", unit="row", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        made = Study.create(
            study,
            rated,
            attribute=attribute,
            samples=samples,
            steps=steps,
            controls=controls,
            repeats=repeats,
            seed=seed,
            psi=psi,
            progress=progress,
        )
    click.echo(f"{study}: {len(made.items)} rows, {samples} a model; the others are controls and repeats")
    click.echo(f"Rate it:  python -m metrics acm rate {study} --rater NAME [--page]")


@acm.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--rater", required=True, help="Who rates; names the file of ratings.")
@click.option("--page", is_flag=True, help="Write a page to rate in a browser, and rate nothing here.")
@click.option(
    "--open", "launch", is_flag=True, help="Show each row in this desktop's picture viewer as well."
)
def rate(study: Path, rater: str, page: bool, launch: bool) -> None:
    """Rate the rows of STUDY here in the terminal, or write a page for a browser.

    Every vote is kept at once; the same command goes on where it was left.
    """
    from metrics.study import Study

    opened = Study.open(study)
    if page:
        from metrics.rating_page import write_page

        path = study / f"rate-{rater}.html"
        opened.ratings(rater)  # a name that is none is refused before anything is written
        write_page(opened, rater, path)
        click.echo(f"{path}: open it in any browser; it needs no server")
        click.echo(f"Score what it saves:  python -m metrics acm score {study} {rater}.jsonl")
        return
    _rate_here(opened, rater, launch)


def _rate_here(study: Study, rater: str, launch: bool) -> None:
    order, votes = study.order(rater), study.votes(rater)
    given: list[str] = []
    click.echo(f"{study.question}  y: yes, n: no, u: take the last one back, q: stop for now")
    while left := [item for item in order if item not in votes]:
        item = left[0]
        path = study.image(item)
        click.echo(f"\n{len(votes) + 1} of {len(order)}   {path}")
        _show(path)
        if launch:
            click.launch(str(path))
        click.echo("y/n/u/q: ", nl=False)
        key = click.getchar().lower()
        click.echo(key)
        if key in "yn":
            study.vote(rater, item, key == "y")
            votes[item] = key == "y"
            given.append(item)
        elif key == "u" and given:
            last = given.pop()
            study.vote(rater, last, None)
            votes.pop(last)
        elif key in ("q", "\x03", "\x04", "\x1b"):
            break
    done = "all rated" if len(votes) == len(order) else f"{len(votes)} of {len(order)} rated"
    click.echo(f"{done}; kept in {study.ratings(rater)}")


def _show(path: Path) -> None:
    """The row in coloured half-blocks, two pixels a character, where the output is a terminal."""
    import shutil
    import sys

    from PIL import Image

    if sys.stdout.isatty():
        with Image.open(path) as picture:
            click.echo(half_blocks(picture, shutil.get_terminal_size().columns - 1))


def half_blocks(picture: Image, columns: int) -> str:
    """A picture as text of `columns` characters: each an upper half-block, coloured above and below."""
    import numpy as np

    width = min(columns, picture.width)
    height = max(2, round(picture.height * width / picture.width / 2) * 2)
    pixels = np.asarray(picture.convert("RGB").resize((width, height)))
    lines = []
    for above, below in zip(pixels[0::2], pixels[1::2]):
        cells = (f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m▀" for a, b in zip(above, below))
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


@acm.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.argument("ratings", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--record", "runs", type=click.Path(path_type=Path), multiple=True,
    help="Append the score to metric-acm.jsonl in this run folder, which must hold the rated snapshot.",
)  # fmt: skip
def score(study: Path, ratings: tuple[Path, ...], runs: tuple[Path, ...]) -> None:
    """Score STUDY; RATINGS are files that pages have saved, and are taken in first."""
    from metrics.study import Study

    opened = Study.open(study)
    for path in ratings:
        rater = opened.add_ratings(path)
        click.echo(f"{path}: taken in as {opened.ratings(rater)}")
    found = opened.score()
    if not found.raters:
        raise Failure(f"{study}: nobody has rated it yet; see python -m metrics acm rate --help")
    click.echo(score_table(found))
    for run in runs:
        _record(opened, found, run)


def _share(p: Proportion | None) -> str:
    if p is None:
        return "-"
    low, high = p.interval
    return f"{p.value:.1%} (±{p.margin:.1%})  {low:.1%} … {high:.1%}  n {p.n}"


def _count(p: Proportion | None) -> str:
    return "-" if p is None else f"{round(p.value * p.n)} of {p.n}"


def _kappa(a: Agreement | None) -> str:
    if a is None:
        return "-"
    return f"{a.value:.2f}" if a.value == a.value else "undefined"  # every vote is the same


def score_table(found: StudyScore) -> str:
    """The score as text: a line a model and rater, then what the votes say of the raters."""
    lines = [f"Attribute control, {found.attribute}: share of rows (±95 % margin)  Wilson's interval"]
    for model in found.models:
        lines.append(f"\n{model.model.name}, {model.model.code}")
        lines.append(f"  {'all raters':16} {_share(model.acm)}")
        if len(model.raters) > 1:
            lines += [f"  {rater:16} {_share(p)}" for rater, p in model.raters.items()]
        if model.fleiss is not None:
            lines.append(
                f"  agreement        Cohen's κ {_kappa(model.cohen)}, Fleiss' κ {_kappa(model.fleiss)}, "
                f"Gwet's AC1 {_kappa(model.ac1)}; on {model.fleiss.items} rows"
            )
    lines.append(
        f"\n{'rater':16} {'rated':>11} {'same again':>11} {'nothing moves':>14} {'another code':>13}"
    )
    for rater, r in found.raters.items():
        lines.append(
            f"{rater:16} {f'{r.voted} of {r.items}':>11} {_count(r.consistency):>11} {_count(r.still):>14} "
            f"{_count(r.other):>13}"
        )
    lines.append("(the last two: hidden controls that were called controlled; the fewer, the better)")
    lines += [
        f"{rater} saw the attribute change where nothing does: look at these votes before using them"
        for rater, r in found.raters.items()
        if r.still is not None and r.still.value > 0.2
    ]
    return "\n".join(lines)


def _record(study: Study, found: StudyScore, run: Path) -> None:
    import time

    from dnnlib.files import append_jsonl, sha256_file
    from infostylegan.code_version import code_version
    from infostylegan.export import load_snapshot, snapshots_of

    digests = {sha256_file(path): path.name for path in snapshots_of(run)}
    here = [model for model in found.models if model.model.digest in digests and model.acm]
    if not here:
        raise Failure(f"{run}: holds none of the snapshots that {study.folder} rates; give their run folder")
    for model in here:
        assert model.acm is not None
        append_jsonl(
            run / "metric-acm.jsonl",
            {
                "metric": "acm",
                "results": {"acm": model.acm.value, "acm_margin": model.acm.margin},
                "interval": {"acm": list(model.acm.interval)},
                "snapshot": digests[model.model.digest],
                "images": load_snapshot(run / digests[model.model.digest]).get("images", 0),
                "protocol": {
                    "judge": "raters",
                    "attribute": study.attribute,
                    "code": model.model.code,
                    "raters": list(model.raters),
                    "rows": model.acm.n,
                    "study_digest": study.digest,
                    "model_digest": model.model.digest,
                    "fleiss_kappa": model.fleiss.value if model.fleiss else None,
                    "gwet_ac1": model.ac1.value if model.ac1 else None,
                    **code_version(),
                },
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )
        click.echo(f"{run / 'metric-acm.jsonl'}: {model.model.code}, {model.acm.value:.1%} recorded")
