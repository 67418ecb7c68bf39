"""A rating study of the Attribute Control Metric: rows rendered beforehand, votes kept, a score.

A folder holds

    study.json            what was rendered: attribute, models with their digests, seeds, what each item is
    rows/<item>.png       one row an item; neither its name nor its look tells the model or the kind of item
    ratings/<rater>.jsonl every vote, in order, with its time; taking a vote back is a line too

Besides the N samples of each model there are hidden controls, which tell whether a rater looks (`still`:
nothing changes along the row) and whether the attribute is told from others (`other`: another code is swept),
and repeats, which tell how consistent a rater is. Controls and repeats do not count for the ACM.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dnnlib.files import DamagedFile, append_jsonl, atomic_write, read_jsonl, sha256_file
from dnnlib.lock import exclusive
from metrics.acm import Agreement, Proportion, acm, cohen_kappa, fleiss_kappa, gwet_ac1, self_consistency
from metrics.errors import MetricError

if TYPE_CHECKING:
    from infostylegan.networks import Generator

KINDS = ("sample", "still", "other", "repeat")
FORMAT = 1
ROWS_PER_SEED = 100_000
APART = 5  # rows, at least, between a row and its repeat


@dataclass(frozen=True)
class Rated:
    """A generator and the one of its codes that is to be rated."""

    G: Generator
    code: str  # as the code specification names it
    name: str  # what the score calls the model
    digest: str  # SHA-256 of its snapshot

    @staticmethod
    def load(path: str | Path, code: str, *, name: str | None = None) -> Rated:
        """The generator of a snapshot. `code`: its name in the specification, or the name people gave it."""
        from infostylegan.codes import CodeError
        from infostylegan.export import load_snapshot
        from infostylegan.naming import code_names
        from infostylegan.render.latents import find_code

        path = Path(path)
        snapshot = load_snapshot(path)
        G: Generator = snapshot["G_ema"]
        try:
            found = G.codes.names[find_code(G.codes, code, code_names(snapshot))]
        except CodeError as error:
            raise MetricError(f"{path}: {error}") from None
        return Rated(G, found, name or f"{path.absolute().parent.name}/{path.name}", sha256_file(path))


@dataclass(frozen=True)
class Item:
    """One row to be judged."""

    kind: str  # one of KINDS
    model: int  # index of the model that drew it
    seed: int  # of z', the other codes and the label
    of: str | None = None  # the item that a repeat repeats
    sha256: str = ""


@dataclass(frozen=True)
class Model:
    """What is remembered of a rated model."""

    name: str
    digest: str
    code: str


@dataclass(frozen=True)
class ModelScore:
    """The ACM of one model: over all raters, and of each."""

    model: Model
    acm: Proportion | None  # None while nobody has voted
    raters: dict[str, Proportion]
    cohen: Agreement | None  # of exactly two raters
    fleiss: Agreement | None  # of two or more
    ac1: Agreement | None


@dataclass(frozen=True)
class RaterScore:
    """What a rater's own votes say of the rater."""

    voted: int
    items: int
    consistency: Proportion | None  # on repeated rows
    still: Proportion | None  # share of rows called controlled in which nothing changes: should be 0
    other: Proportion | None  # the same of rows in which another code is swept


@dataclass(frozen=True)
class StudyScore:
    attribute: str
    models: tuple[ModelScore, ...]
    raters: dict[str, RaterScore]

    @property
    def value(self) -> float | None:
        """The ACM of the (first) model."""
        return self.models[0].acm.value if self.models[0].acm else None


@dataclass(frozen=True)
class Study:
    folder: Path
    attribute: str
    models: tuple[Model, ...]
    items: Mapping[str, Item]
    digest: str  # of study.json: what a vote refers to

    @property
    def question(self) -> str:
        return f"Does {self.attribute} change consistently along this row?"

    @classmethod
    def create(
        cls,
        folder: str | Path,
        models: Sequence[Rated],
        *,
        attribute: str,
        samples: int = 100,
        steps: int | None = None,
        controls: float = 0.1,
        repeats: float = 0.1,
        seed: int = 0,
        psi: float = 1.0,
        min_cell: int = 96,
        progress: Callable[[int, int], None] | None = None,
    ) -> Study:
        """Render a study of `samples` rows a model into a new folder.

        models     several are mixed blindly; each with the code that is to control `attribute`
        steps      values of a uniform code along a row (8 by default)
        controls   hidden control rows as a share of `samples`, half `still` and half `other`
        repeats    rows shown twice, as a share of `samples`
        min_cell   smaller images are enlarged by a whole factor to this many pixels a side
        progress   called with (rows rendered, rows in all)

        Raises MetricError where the folder holds a study already: its votes are never lost.
        """
        from infostylegan.render.grids import image_grid

        folder = Path(folder)
        if not models or samples < 1 or not attribute.strip():
            raise MetricError("a study needs a model, an attribute and at least one sample")
        if not (0 <= controls <= 1 and 0 <= repeats <= 1):
            raise MetricError(f"controls and repeats are shares of the samples: got {controls} and {repeats}")
        if (folder / "study.json").exists():
            raise MetricError(f"{folder}: holds a study already; give another folder, or delete it")
        (folder / "rows").mkdir(parents=True, exist_ok=True)
        (folder / "ratings").mkdir(exist_ok=True)

        rng = np.random.default_rng([seed, 0xAC])
        # Rounded up: the smallest study still has a control and a repeat, if it asks for any.
        n_controls, n_repeats = (math.ceil(round(samples * share, 6)) for share in (controls, repeats))
        total = len(models) * (samples + n_controls + n_repeats)
        names = [f"r{number:04d}" for number in rng.permutation(total)]
        items: dict[str, Item] = {}

        def keep(kind: str, model: int, own: int, png: bytes, of: str | None = None) -> str:
            name = names[len(items)]
            with atomic_write(folder / "rows" / f"{name}.png") as file:
                file.write(png)
            items[name] = Item(kind, model, own, of, hashlib.sha256(png).hexdigest())
            if progress:
                progress(len(items), total)
            return name

        for index, rated in enumerate(models):
            drawn: list[str] = []
            for kind, own, images in _rows(rated, samples, n_controls, steps, seed, psi, rng):
                name = keep(kind, index, own, _png(image_grid(images, len(images), min_cell=min_cell)))
                if kind == "sample":
                    drawn.append(name)
            for again in rng.choice(drawn, size=n_repeats, replace=False).tolist():
                keep(
                    "repeat", index, items[again].seed, (folder / "rows" / f"{again}.png").read_bytes(), again
                )

        content = {
            "format": FORMAT,
            "attribute": attribute.strip(),
            "created": _now(),
            "protocol": {"samples": samples, "steps": steps, "seed": seed, "psi": psi, "noise": "const"},
            "models": [{"name": m.name, "digest": m.digest, "code": m.code} for m in models],
            "items": {name: asdict(item) for name, item in sorted(items.items())},
        }
        with atomic_write(folder / "study.json", "w") as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Study:
        """The study in a folder. Raises MetricError where there is none or it cannot be read."""
        path = Path(folder) / "study.json"
        try:
            data = path.read_bytes()
        except OSError:
            raise MetricError(f"{folder}: holds no study (no study.json); make one with acm create") from None
        try:
            content = json.loads(data)
            if content["format"] != FORMAT:
                raise MetricError(
                    f"{path}: is of format {content['format']}, and this program reads {FORMAT}"
                )
            models = tuple(Model(m["name"], m["digest"], m["code"]) for m in content["models"])
            items = {name: Item(**item) for name, item in content["items"].items()}
            return cls(Path(folder), content["attribute"], models, items, hashlib.sha256(data).hexdigest())
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, MetricError):
                raise
            raise MetricError(f"{path}: is no study, or damaged ({error!r})") from None

    def order(self, rater: str) -> list[str]:
        """All items, shuffled for each rater and always so for that rater; repeats keep their distance."""
        key = hashlib.sha256(f"{self.digest}/{_checked(rater)}".encode()).digest()
        rng = np.random.default_rng(np.frombuffer(key, dtype=np.uint32))
        names = sorted(self.items)
        repeated = [(name, item.of) for name, item in self.items.items() if item.of]
        best: tuple[int, list[str]] = (len(names) + 1, names)
        for _ in range(100):
            shuffled = [names[i] for i in rng.permutation(len(names))]
            place = {name: i for i, name in enumerate(shuffled)}
            near = sum(abs(place[a] - place[b]) < APART for a, b in repeated)
            best = min(best, (near, shuffled), key=lambda entry: entry[0])
            if not near:
                break
        return best[1]

    def image(self, item: str) -> Path:
        """The rendered row of an item."""
        if item not in self.items:
            raise MetricError(f"{self.folder}: has no item {item!r}")
        return self.folder / "rows" / f"{item}.png"

    def ratings(self, rater: str) -> Path:
        """Where a rater's votes are kept."""
        return self.folder / "ratings" / f"{_checked(rater)}.jsonl"

    def raters(self) -> list[str]:
        """Everyone who has voted."""
        return sorted(path.stem for path in (self.folder / "ratings").glob("*.jsonl"))

    def votes(self, rater: str) -> dict[str, bool]:
        """What a rater's votes are now: item -> whether the attribute was controlled.

        Raises MetricError for votes of another study, and for lines that are no votes.
        """
        path = self.ratings(rater)
        return self.read_votes(path) if path.exists() else {}

    def vote(self, rater: str, item: str, answer: bool | None) -> None:
        """Append a vote; None takes the last one back."""
        self.image(item)
        if answer is not None and not isinstance(answer, bool):
            raise MetricError(f"a vote is True, False or None, not {answer!r}")
        path = self.ratings(rater)
        path.parent.mkdir(exist_ok=True)
        with exclusive(path.with_name(f".{path.name}.lock")):
            append_jsonl(path, {"study": self.digest, "item": item, "vote": answer, "time": _now()})

    def read_votes(self, path: str | Path) -> dict[str, bool]:
        """The votes in a file of ratings, last one counts; see `votes`."""
        try:
            records = read_jsonl(path)
        except FileNotFoundError:
            raise MetricError(f"{path}: no such file of ratings") from None
        except (DamagedFile, UnicodeDecodeError) as error:
            raise MetricError(
                f"{path}: cannot be read as ratings: {error}; mend or remove the line"
            ) from None
        votes: dict[str, bool] = {}
        for number, record in enumerate(records, start=1):
            where = f"{path}, vote {number}"
            if record.get("study") != self.digest:
                theirs = str(record.get("study", "none"))[:12]
                raise MetricError(
                    f"{where}: was given to another study ({theirs}), of another model or other rows, "
                    f"and not to {self.folder} ({self.digest[:12]}); score it with its own study"
                )
            item, answer = record.get("item"), record.get("vote", "missing")
            if item not in self.items:
                raise MetricError(f"{where}: is for item {item!r}, which the study does not have")
            if answer is not None and not isinstance(answer, bool):
                raise MetricError(
                    f"{where}: {answer!r} is no vote; write true, false, or null to take one back"
                )
            if answer is None:
                votes.pop(str(item), None)
            else:
                votes[str(item)] = answer
        return votes

    def add_ratings(self, path: str | Path) -> str:
        """Take in a file of ratings made elsewhere (the page without a server); the rater, its file name.

        Lines that are here already are not added again. Raises MetricError before anything is written.
        """
        path = Path(path)
        self.read_votes(path)
        rater = _checked(path.stem)
        known = {json.dumps(r, sort_keys=True) for r in self._records(rater)}
        for record in read_jsonl(path):
            line = {key: record.get(key) for key in ("study", "item", "vote", "time")}
            if json.dumps(line, sort_keys=True) not in known:
                append_jsonl(self.ratings(rater), line)
        return rater

    def _records(self, rater: str) -> list[dict[str, Any]]:
        path = self.ratings(rater)
        return read_jsonl(path) if path.exists() else []

    def score(self) -> StudyScore:
        """The ACM of every model, agreement between raters, and what each rater's votes say of the rater."""
        votes = {rater: self.votes(rater) for rater in self.raters()}
        votes = {rater: given for rater, given in votes.items() if given}
        models = tuple(self._score_model(index, votes) for index in range(len(self.models)))
        return StudyScore(self.attribute, models, {r: self._score_rater(v) for r, v in votes.items()})

    def _score_model(self, index: int, votes: Mapping[str, Mapping[str, bool]]) -> ModelScore:
        names = [n for n, item in self.items.items() if item.kind == "sample" and item.model == index]
        table = np.array([[float(v[n]) if n in v else np.nan for v in votes.values()] for n in names])
        table = table.reshape(len(names), len(votes))
        voted = ~np.isnan(table)
        shared = bool((voted.sum(axis=1) >= 2).any())
        return ModelScore(
            self.models[index],
            acm(table) if voted.any() else None,
            {rater: acm(table[:, i]) for i, rater in enumerate(votes) if voted[:, i].any()},
            cohen_kappa(table[:, 0], table[:, 1]) if shared and table.shape[1] == 2 else None,
            fleiss_kappa(table) if shared else None,
            gwet_ac1(table) if shared else None,
        )

    def _score_rater(self, votes: Mapping[str, bool]) -> RaterScore:
        def seen(kind: str) -> Proportion | None:
            given = [float(votes[n]) for n, item in self.items.items() if item.kind == kind and n in votes]
            return acm(given) if given else None

        pairs = [
            (float(votes[n]), float(votes[item.of]))
            for n, item in self.items.items()
            if item.of and n in votes and item.of in votes
        ]
        consistency = self_consistency(*zip(*pairs)) if pairs else None
        return RaterScore(len(votes), len(self.items), consistency, seen("still"), seen("other"))


def _rows(
    rated: Rated,
    samples: int,
    controls: int,
    steps: int | None,
    seed: int,
    psi: float,
    rng: np.random.Generator,
) -> Iterator[tuple[str, int, Any]]:
    """(kind, seed, float images [values, C, H, W]) of every row of one model but the repeats, one by one."""
    from infostylegan.render.latents import seeded_latents
    from infostylegan.render.traversal import traverse

    G, at = rated.G, rated.G.codes.names.index(rated.code)

    def row(code: int, number: int) -> tuple[int, Any]:
        """The `number`-th row of the study, whatever the model; its seed is that of other tools too."""
        own = seed * ROWS_PER_SEED + number
        return own, traverse(G, code, latents=seeded_latents(G, [own]), steps=steps, psi=psi)[0]

    for number in range(samples):
        yield "sample", *row(at, number)
    others = [i for i in range(len(G.codes)) if i != at]
    values = len(G.codes[at].traversal(steps))
    still = controls if not others else -(-controls // 2)
    # Controls have seeds of their own: none must be recognised as a row seen before.
    for number in range(samples, samples + controls):
        if number < samples + still:
            own, images = row(at, number)
            yield "still", own, images[int(rng.integers(values))].expand_as(images)
        else:
            own, images = row(int(rng.choice(others)), number)
            # As long as the row of a sample, so that its length does not give it away.
            pick = np.linspace(0, len(images) - 1, values).round().astype(int)
            yield "other", own, images[pick]


def _png(picture: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue()


def _checked(rater: str) -> str:
    """A rater's name that is a safe file name too."""
    if not re.fullmatch(r"[\w][\w.@-]{0,63}", rater):
        raise MetricError(
            f"rater {rater!r}: use letters, digits, and . _ - @, 64 at most, as in anna or reader-2"
        )
    return rater


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
