"""Every metric that a snapshot can be measured with, by name: what it needs, and how it is computed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

import metrics
from infostylegan.render.grids import labelled_grid, to_uint8
from infostylegan.render.traversal import traverse
from metrics import path_length
from metrics.errors import MetricError
from metrics.evaluation import CHUNK, KEPT, Evaluation, Features, from_bytes
from metrics.figures import heat_map, neighbour_sheet
from metrics.frechet import frechet_distance
from metrics.judges import PIXEL_JUDGES, SLACK, AutomaticACM, automatic_acm
from metrics.memorisation import memorisation
from metrics.probe import linear_probe
from metrics.readers import FactorReader, fit_reader
from metrics.tables import classify
from metrics.total_correlation import aggregate_total_correlation, conditional_total_correlation

Picture = Any  # an image of Pillow's or a figure of matplotlib's, which is imported when it is drawn

FID_SAMPLES = 50_000
OTHER_SAMPLES = 10_000
ALL_PAIRS = ("kid", "pr", "memorisation")  # of feature vectors, of which no more than KEPT are kept
PATH_SAMPLES = 2_000
TC_SAMPLES = 4_000
EVIDENCE = 32  # principal components of what is known of an image, for total correlation
PROBED = 10_000  # images at most that a probe learns from and is tested on
ROWS = 100  # of an ACM, as in the paper
STEPS = 5  # values of a uniform code along a row
JUDGED = 2_000  # real images from which an attribute's standard deviation is taken
REPLICATES = 10  # of a bootstrap


@dataclass
class Outcome:
    """What a metric found: numbers, 95 % intervals of some of them, its own protocol and pictures."""

    results: dict[str, float]
    interval: dict[str, tuple[float, float]] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)  # suffix of the file's name -> picture
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """A metric as it was asked for: `fid5k_full` is fid, 5,000 samples, against all real images."""

    name: str  # under which it is recorded
    kind: str
    samples: int
    full: bool = False


@dataclass(frozen=True)
class Measure:
    """One kind of metric. `lacks` says what it would need and is not there; "" if it can be computed."""

    about: str
    run: Callable[[Evaluation, Request], Outcome]
    lacks: Callable[[Evaluation], str] = lambda ev: ""
    samples: int = 0  # generated images unless the name or --samples says otherwise; 0: it takes no number


def parse(text: str, samples: int | None = None) -> list[Request]:
    """`fid5k,mig,…` -> what is asked for; `all` is every kind. Raises MetricError for an unknown name."""
    requests: list[Request] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        for name in MEASURES if word == "all" else (word,):
            request = _parse_one(name, samples)
            if request not in requests:
                requests.append(request)
    if not requests:
        raise MetricError(f"{text!r} names no metric; there are {', '.join(MEASURES)}, all")
    return requests


def _parse_one(word: str, samples: int | None) -> Request:
    match = re.fullmatch(r"([a-z_]+?)(?:(\d+)(k?))?(_full)?", word)
    kind = match[1] if match else ""
    if match is None or kind not in MEASURES:
        raise MetricError(
            f"metric {word!r}: there is none of that name; there are {', '.join(MEASURES)}, all"
        )
    measure = MEASURES[kind]
    number, full = match[2], match[4] is not None
    if not measure.samples or (full and kind != "fid"):
        if number or full:
            raise MetricError(f"metric {word!r}: {kind} takes no number; write {kind}")
        return Request(kind, kind, 0)
    wanted = int(number) * (1000 if match[3] else 1) if number else samples or measure.samples
    if kind in ALL_PAIRS and not number:
        wanted = min(wanted, KEPT)
    if wanted < 2:
        raise MetricError(f"metric {word!r}: needs 2 samples or more")
    if kind in ALL_PAIRS and wanted > KEPT:
        raise MetricError(f"metric {word!r}: {kind} compares all pairs of images; ask for {KEPT} at most")
    size = f"{wanted // 1000}k" if wanted % 1000 == 0 else str(wanted)
    # `fid` alone is against all real images; a number without `_full` takes as many real ones at most.
    full = kind == "fid" and (full or not number)
    return Request(f"{kind}{size}{'_full' if full else ''}", kind, wanted, full)


# ---- the images ----------------------------------------------------------------------------------------


def run_fid(ev: Evaluation, request: Request) -> Outcome:
    real = ev.real_features(None if request.full else request.samples)
    distances = []
    for estimate in range(ev.estimates):
        generated = ev.generated_moments(request.samples, estimate)
        distances.append(frechet_distance(real.moments, generated).value)
        ev.say(f"  estimate {estimate + 1} of {ev.estimates}: {distances[-1]:.4g}")
    key = request.name + ev.extractor.tag
    mean, n = float(np.mean(distances)), len(distances)
    outcome = Outcome({key: mean})
    if n > 1:
        deviation = float(np.std(distances, ddof=1))
        half = float(student.ppf(0.975, n - 1)) * deviation / np.sqrt(n)
        outcome.results[f"{key}_std"] = deviation
        outcome.interval[key] = (mean - half, mean + half)
    outcome.protocol = {
        **features_protocol(ev, real, request),
        "estimates": distances,
        "interval_of": "the mean of the estimates, Student's t; the real images are the same in each",
    }
    return outcome


def run_kid(ev: Evaluation, request: Request) -> Outcome:
    real, generated = both_features(ev, request)
    found = metrics.kid(real.kept, generated)
    key = request.name + ev.extractor.tag
    return Outcome(
        {key: found.value, f"{key}_error": found.error},
        {key: found.interval},
        {
            **features_protocol(ev, real, request),
            "kernel": "(x·y / D + 1)³, unbiased over all pairs",
            "interval_of": "a two-sample U-statistic, normal",
        },
    )


def run_pr(ev: Evaluation, request: Request) -> Outcome:
    real, generated = both_features(ev, request)
    x = real.kept
    found = metrics.precision_recall(x, generated)
    key, tag = request.name, ev.extractor.tag
    # Six of those taken for real and six that are not, each evenly spread over their distances.
    order = np.argsort(found.nearest_distance)
    inside, outside = order[found.inside[order]], order[~found.inside[order]]
    shown = np.concatenate([side[spread_over(len(side), 6)] for side in (inside, outside)])
    labels = ["within"] * min(6, len(inside)) + ["outside"] * min(6, len(outside))
    sheet = neighbours_of(
        ev, shown, generated, x, real.indices, labels, f"precision {found.precision.value:.2f}"
    )
    return Outcome(
        {f"{key}_precision{tag}": found.precision.value, f"{key}_recall{tag}": found.recall.value},
        {
            f"{key}_precision{tag}": found.precision.interval,
            f"{key}_recall{tag}": found.recall.interval,
        },
        {
            **features_protocol(ev, real, request),
            "neighbours": 3,
            "interval_of": "Wilson, for the samples judged with the manifold given",
        },
        {"": sheet},
    )


def run_memorisation(ev: Evaluation, request: Request) -> Outcome:
    real, generated = both_features(ev, request)
    patients = ev.dataset.patients
    found = memorisation(
        real.kept,
        generated,
        patients=None if patients is None else patients[real.indices],
        seed=ev.seed,
    )
    nearest = np.argsort(found.distance)[:12]
    labels = [f"{found.distance[i]:.2f}" for i in nearest]
    reference = real.kept[found.reference]
    title = f"the 12 nearest of {len(generated)}; among real images {np.median(found.real_distance):.2f}"
    sheet = neighbours_of(ev, nearest, generated, reference, real.indices[found.reference], labels, title)
    key, tag = request.name, ev.extractor.tag
    return Outcome(
        {f"{key}{tag}": found.value, f"{key}_copies{tag}": found.copies.value},
        {f"{key}{tag}": found.interval, f"{key}_copies{tag}": found.copies.interval},
        {
            **features_protocol(ev, real, request),
            "reference_images": len(found.reference),
            "held_out_images": len(found.real_distance),
            "split": "by patient" if patients is not None else "by image; the data set knows no patients",
            "median_distance_generated": float(np.median(found.distance)),
            "median_distance_held_out": float(np.median(found.real_distance)),
        },
        {"": sheet},
    )


def run_ppl(ev: Evaluation, request: Request) -> Outcome:
    G, tag = ev.G, ev.extractor.tag
    places: dict[str, tuple[path_length.Ends, bool]] = {"z": (path_length.in_noise, False)}
    if G.mapping is not None:
        places["w"] = (path_length.in_w, False)
    for index, code in enumerate(G.codes):
        if code.kind == "unif":
            places[code.name] = (path_length.in_code(index), False)
        else:
            places[f"{code.name}_jump"] = (path_length.between_values(index), True)
    labels = ev.dataset.labels
    if G.labels and labels is None:
        raise MetricError(f"{ev.dataset.name} has no labels, and the generator draws by label")
    outcome = Outcome({})
    for name, (ends, jump) in places.items():
        found = path_length.path_length(
            G, ev.extractor, ends, samples=request.samples, seed=ev.seed, per_step=jump, device=ev.device,
            labels=None if labels is None else torch.from_numpy(labels),
        )  # fmt: skip
        key = f"ppl_{name}{tag}"
        outcome.results[key], outcome.interval[key] = found.value, found.interval
        ev.say(f"  {key}: {found.value:.4g}")
    outcome.protocol = {
        **ev.extractor.protocol(),
        "samples": request.samples,
        "epsilon": path_length.EPSILON,
        "distance": "squared distance of features; jumps of discrete codes are not divided by epsilon²",
    }
    return outcome


def both_features(ev: Evaluation, request: Request) -> tuple[Features, np.ndarray]:
    # A copy is looked for among as many real images as can be kept; the other two take equally many of both.
    real = ev.real_sample(KEPT if request.kind == "memorisation" else request.samples)
    return real, ev.generated_sample(request.samples)


def features_protocol(ev: Evaluation, real: Features, request: Request) -> dict[str, Any]:
    used = real.moments.count if request.kind == "fid" else len(real.kept)
    return {**ev.extractor.protocol(), "samples": request.samples, "real_images": used}


def spread_over(n: int, k: int) -> np.ndarray:
    """k places spread evenly over n, or all of them."""
    return np.unique(np.linspace(0, n - 1, min(n, k)).astype(np.int64)) if n else np.zeros(0, np.int64)


def neighbours_of(
    ev: Evaluation,
    shown: np.ndarray,
    generated: np.ndarray,
    real: np.ndarray,
    indices: np.ndarray,
    labels: Sequence[str],
    title: str,
    k: int = 3,
) -> Picture:
    """A sheet of generated images beside their k nearest real ones, by features real [n, D] of `indices`."""
    near = []
    for i in shown:
        distance = np.square(real - generated[i]).sum(axis=1)
        pixels = ev.dataset.images(indices[np.argsort(distance)[:k]])
        near.append(pixels.transpose(0, 2, 3, 1))
    return neighbour_sheet(ev.pictures(shown), near, labels, title)


# ---- the codes -----------------------------------------------------------------------------------------


def lacks_q(ev: Evaluation) -> str:
    return "" if ev.D is not None and ev.D.q_head is not None else "a Q that reads codes"


def lacks_attributes(ev: Evaluation) -> str:
    return lacks_q(ev) or ("" if ev.attributes() else "labels, factors or attributes of the data")


def lacks_two_factors(ev: Evaluation) -> str:
    return lacks_q(ev) or ("" if len(ev.factors()) > 1 else "two or more factors or attributes of the data")


def usable(ev: Evaluation, columns: Mapping[str, np.ndarray], notes: list[str]) -> dict[str, np.ndarray]:
    """The attributes that vary and are known of every image; the others are named in `notes`."""
    kept = {}
    for name, values in columns.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            notes.append(f"{name} is left out: it is unknown of {int((~np.isfinite(values)).sum())} images")
        elif (values == values[0]).all():
            notes.append(f"{name} is left out: it is {values[0]} for every image")
        else:
            kept[name] = values
    if not kept:
        raise MetricError(f"{ev.dataset.name}: no attribute varies and is known of every image")
    return kept


def run_mig(ev: Evaluation, request: Request) -> Outcome:
    notes: list[str] = []
    known, posteriors = usable(ev, ev.known(), notes), ev.reading.posteriors
    found = metrics.mig(posteriors, known)
    draws = np.random.default_rng(ev.seed)
    again = []
    for _ in range(REPLICATES):
        rows = draws.integers(len(ev.labelled), size=len(ev.labelled))
        try:
            again.append(
                metrics.mig([q.rows(rows) for q in posteriors], {k: v[rows] for k, v in known.items()}).value
            )
        except MetricError:  # a class so rare that a draw can miss it
            continue
    attribute, code = found.max_at
    outcome = Outcome(
        {"mig": found.value, "max_information": found.max_information},
        {"mig": bootstrap_interval(found.value, again)} if len(again) > 1 else {},
        {
            **codes_protocol(ev, known),
            "form": "paper (Eq. 15): exact aggregate posteriors of Q, normalised by H(V)",
            "ceilings": {}
            if found.ceiling is None
            else dict(zip(found.names, found.ceiling.max(axis=1).tolist())),
            "max_information_at": [attribute, ev.shown[code]],
            "best_code": {name: ev.shown[i] for name, i in zip(found.names, found.best)},
            "gaps": dict(zip(found.names, found.gaps.tolist())),
            "information": {n: row.tolist() for n, row in zip(found.names, found.information)},
            "interval_of": f"bootstrap over images, {len(again)} replicates",
        },
        {"": information_map(ev, found)},
        notes,
    )
    if found.ceiling is not None:
        outcome.results["max_information_ceiling"] = float(found.ceiling.max())
    return outcome


def information_map(ev: Evaluation, found: metrics.MIG) -> Picture:
    """Codes × attributes: I(V; C) as a share of H(V)."""
    share = (found.information / found.normaliser[:, None]).T
    return heat_map(
        share, ev.shown, found.names, title=f"I(V; C) / H(V), MIG {found.value:.3f}",
        label="share of the attribute's entropy", top=max(1.0, float(share.max())),
    )  # fmt: skip


def run_mig_form(ev: Evaluation, request: Request) -> Outcome:
    """The standard forms, which stand beside the paper's under their own names."""
    notes: list[str] = []
    known = usable(ev, ev.known(), notes)
    if request.kind == "mig_chen":
        found = metrics.mig_chen(ev.reading.posteriors, known)
        form = "Chen et al. 2018: aggregate posteriors, normalised by log |V|"
    else:
        found = metrics.mig_locatello(ev.reading.codes, known, categorical=ev.categorical, seed=ev.seed)
        form = "Locatello et al. 2019: Q's means, 20 bins, 10,000 images, normalised by H(V)"
    protocol = {
        **codes_protocol(ev, known),
        "form": form,
        "gaps": dict(zip(found.names, found.gaps.tolist())),
    }
    return Outcome({request.kind: found.value}, {}, protocol, {}, notes)


def run_on_factors(ev: Evaluation, request: Request) -> Outcome:
    """Metrics over (codes, factors), as arrays or, where the data set can draw its factors, as a world."""
    notes: list[str] = []
    factors = usable(ev, {k: v[ev.labelled] for k, v in ev.factors().items()}, notes)
    codes, options = ev.reading.codes, {"categorical": ev.categorical, "seed": ev.seed}
    protocol = codes_protocol(ev, factors)
    if request.kind == "dci":
        d = metrics.dci(codes, factors, **options)  # type: ignore[arg-type]
        picture = heat_map(
            d.importance, ev.shown, d.names, title=f"importance, D {d.disentanglement:.2f} "
            f"C {d.completeness:.2f} I {d.informativeness:.2f}", label="importance of the code",
        )  # fmt: skip
        results = {
            "dci": d.value,
            "dci_disentanglement": d.disentanglement,
            "dci_completeness": d.completeness,
            "dci_informativeness": d.informativeness,
        }
        return Outcome(results, {}, protocol, {"": picture}, notes)
    scores: dict[str, Callable[..., Any]] = {
        "betavae": metrics.betavae_score,
        "factorvae": metrics.factorvae_score,
        "sap": metrics.sap,
        "modularity": metrics.modularity,
        "explicitness": metrics.explicitness,
    }
    found = scores[request.kind](codes, factors, **options)
    return Outcome({request.kind: found.value}, {}, protocol, {}, notes)


def run_tc(ev: Evaluation, request: Request) -> Outcome:
    """Total correlation of the codes given the generated image, and of the aggregate posterior."""
    codes, hidden = ev.generated_reading(request.samples)
    evidence = principal_components(hidden, EVIDENCE)
    given = conditional_total_correlation(codes, evidence, categorical=ev.categorical, seed=ev.seed)
    whole = aggregate_total_correlation(ev.reading.posteriors, seed=ev.seed)
    return Outcome(
        {
            "tc_given_image": given.value,
            "tc_aggregate_low": whole.value,
            "tc_aggregate_high": whole.upper,
        },
        {
            "tc_given_image": around(given.value, given.error),
            "tc_aggregate_low": around(whole.value, whole.error),
        },
        {
            **codes_protocol(ev, {}),
            "samples": request.samples,
            "evidence": f"{evidence.shape[1]} principal components of the layer before Q",
            "joint_log_likelihood": given.joint,
            "mean_field_log_likelihood": given.mean_field,
            "interval_of": "the mean over images, normal; it knows nothing of what the models miss",
        },
    )


def principal_components(x: np.ndarray, k: int) -> np.ndarray:
    """x [N, F] in its k directions of largest variance, or all there are."""
    x = x - x.mean(axis=0)
    _, vectors = np.linalg.eigh(x.T @ x)
    return x @ vectors[:, ::-1][:, :k]


def around(value: float, error: float) -> tuple[float, float]:
    return value - 1.96 * error, value + 1.96 * error


def run_probe(ev: Evaluation, request: Request) -> Outcome:
    """How well each class of the data is read, linearly, from the layer before Q, on images held out."""
    rows = np.sort(np.random.default_rng(ev.seed).permutation(len(ev.labelled))[:PROBED])
    patients = ev.dataset.patients
    groups = None if patients is None else patients[ev.labelled][rows]
    outcome = Outcome({}, protocol=codes_protocol(ev, {}))
    for name, values in usable(ev, ev.known(), outcome.notes).items():
        if classify(name, values)[1]:
            continue  # a number, and no class
        found = linear_probe(ev.reading.hidden[rows], values[rows], groups=groups, seed=ev.seed)
        outcome.results[f"probe_{name}"] = found.value
        outcome.interval[f"probe_{name}"] = found.interval
        outcome.results[f"probe_{name}_majority"] = found.majority
        outcome.results[f"probe_{name}_balanced"] = found.balanced
        outcome.results[f"probe_{name}_kappa"] = found.kappa
        outcome.results[f"probe_{name}_quadratic_kappa"] = found.quadratic_kappa
        outcome.protocol[f"probe_{name}"] = {
            "train": found.train, "held_out": found.held_out,
            "split": "by class" if groups is None else "by patient",
            "confusion": found.confusion.tolist(),
        }  # fmt: skip
    if not outcome.results:
        raise MetricError(f"{ev.dataset.name}: has numbers for its images, and no classes to probe for")
    return outcome


def run_acm(ev: Evaluation, request: Request) -> Outcome:
    """ACM by judges that measure: every code against every attribute that can be measured."""
    G = ev.G
    notes: list[str] = []
    pixels = ev.dataset.images(ev.order(JUDGED))
    judges: dict[str, Callable[[np.ndarray], np.ndarray]] = dict(PIXEL_JUDGES)
    least = {name: float(judge(pixels).std()) for name, judge in judges.items()}
    if ev.dataset.channels == 1:  # gray images have neither
        for name in ("hue", "pigmentation"):
            del judges[name]
    readers = factor_readers(ev, notes) if ev.dataset.factors else {}
    names = [name for name in [*judges, *readers] if name in readers or least[name] > 0]
    score = np.zeros((len(G.codes), len(names)))
    found: dict[tuple[int, str], AutomaticACM] = {}
    sheets: dict[int, np.ndarray] = {}
    for index, code in enumerate(G.codes):
        images, values = traverse(G, index, samples=request.samples, steps=STEPS, seed=ev.seed)
        swept = sheets[index] = to_uint8(images)
        shape = (request.samples, len(values))
        features = what_readers_see(ev, from_bytes(swept)) if readers else np.zeros((0, 0))
        for column, name in enumerate(names):
            if name in readers:
                measured, step = readers[name](features), readers[name].spread
            else:
                measured, step = judges[name](swept.transpose(0, 3, 1, 2)), least[name]
            ordered = code.kind != "cat"
            found[index, name] = automatic_acm(measured.reshape(shape), least=step, ordered=ordered)
            score[index, column] = found[index, name].value
        ev.say(f"  {ev.shown[index]}: {names[int(score[index].argmax())]} {score[index].max():.0%}")
    outcome = Outcome({}, notes=notes)
    best = {}
    for column, name in enumerate(names):
        index = int(score[:, column].argmax())
        judged = found[index, name]
        outcome.results[f"acm_{name}"] = judged.value
        outcome.interval[f"acm_{name}"] = judged.score.interval
        best[name] = {"code": ev.shown[index], "margin": judged.score.margin, "rising": judged.rising}
    outcome.protocol = {
        **codes_protocol(ev, {}),
        "samples": request.samples,
        "judge": "automatic; the best code of each attribute is reported, which favours chance a little",
        "rule": f"moves by one standard deviation of the data or more, turning back by at most {SLACK:.0%}",
        "best_code": best,
        "acm": {ev.shown[i]: dict(zip(names, score[i].tolist())) for i in range(len(G.codes))},
        "readers": {
            name: {"r2": r.r2, "reads": "extractor's features and 8² pixels, ridge"}
            for name, r in readers.items()
        },
        **(ev.extractor.protocol() if readers else {}),
        "interval_of": "Wilson",
    }
    title = f"automatic ACM, {request.samples} rows"
    outcome.pictures[""] = heat_map(score, ev.shown, names, title=title, label="share of rows", top=1.0)
    for column, name in enumerate(names):
        index = int(score[:, column].argmax())
        if score[index, column] >= 0.5:
            outcome.pictures[f"-{name}"] = acm_sheet(sheets[index], found[index, name], ev.shown[index], name)
    return outcome


def factor_readers(ev: Evaluation, notes: list[str]) -> dict[str, FactorReader]:
    """A reader for each generative factor that can be read; the others are named in `notes`."""
    real = ev.real_sample(KEPT)
    places = [layout(batch) for batch in ev.real(real.indices)]
    seen = np.concatenate([real.kept, np.concatenate(places)], axis=1)
    readers = {}
    for name, values in (ev.dataset.factors or {}).items():
        column = np.asarray(values)[real.indices]
        if column.dtype.kind not in "biuf" or len(np.unique(column)) < 2:
            continue
        reader = fit_reader(seen, column, seed=ev.seed)
        if reader.readable:
            readers[f"factor_{name}"] = reader
        else:
            notes.append(f"factor {name} is not judged: held-out R² of its reader is {reader.r2:.2f}")
    return readers


def what_readers_see(ev: Evaluation, images: torch.Tensor) -> np.ndarray:
    """The extractor's features, which know what is in an image, and its layout, which knows where."""
    parts = [ev.extractor(part.to(ev.device)).cpu().numpy() for part in images.split(CHUNK)]
    return np.concatenate([np.concatenate(parts), layout(images)], axis=1)


def layout(images: torch.Tensor) -> np.ndarray:
    """uint8 [n, C, R, R] averaged to 8² pixels, float32 [n, C * 64], of the features' order of size."""
    return torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 8).flatten(1).cpu().numpy()


def acm_sheet(swept: np.ndarray, judged: AutomaticACM, code: str, attribute: str) -> Picture:
    """The first rows of a sweep, with the judge's vote beside each."""
    steps = len(swept) // len(judged.votes)
    rows = min(10, len(judged.votes))
    labels = ["yes" if vote else "no" for vote in judged.votes[:rows]]
    title = f"{code}: {attribute}, ACM {judged.value:.0%}"
    return labelled_grid(swept[: rows * steps], steps, row_labels=labels, title=title, min_cell=64)


def lacks_codes(ev: Evaluation) -> str:
    return "" if len(ev.G.codes) else "a generator with codes"


def run_match(ev: Evaluation, request: Request) -> Outcome:
    """Each categorical code against the classes of the data, matched one to one."""
    labels = ev.dataset.labels
    assert labels is not None
    y = labels[ev.labelled]
    outcome = Outcome({}, protocol=codes_protocol(ev, {"label": y}))
    for index in ev.categorical:
        found = metrics.matched_accuracy(ev.reading.codes[:, index], y)
        key = f"match_{ev.G.codes.names[index]}"
        outcome.results[key] = found.accuracy
        outcome.interval[key] = metrics.proportion(found.accuracy, len(y)).interval
        outcome.protocol[f"matching_{ev.G.codes.names[index]}"] = found.matching
    return outcome


def lacks_category(ev: Evaluation) -> str:
    if lacks_q(ev):
        return lacks_q(ev)
    if ev.dataset.labels is None:
        return "labels of the data"
    return "" if ev.categorical else "a categorical code"


def codes_protocol(ev: Evaluation, attributes: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        "images_read": len(ev.labelled),
        "attributes": list(attributes),
        "codes": str(ev.G.codes),
        "representation": "Q's mean; a categorical is one code",
    }


def bootstrap_interval(value: float, again: Sequence[float]) -> tuple[float, float]:
    half = 1.96 * float(np.std(again, ddof=1))
    return value - half, value + half


MEASURES: dict[str, Measure] = {
    "fid": Measure("Fréchet distance of features", run_fid, samples=FID_SAMPLES),
    "kid": Measure("kernel distance of features", run_kid, samples=OTHER_SAMPLES),
    "pr": Measure("precision and recall", run_pr, samples=OTHER_SAMPLES),
    "memorisation": Measure("nearness to training images", run_memorisation, samples=OTHER_SAMPLES),
    "ppl": Measure("perceptual path length in z', w and each code", run_ppl, samples=PATH_SAMPLES),
    "mig": Measure("mutual information gap, the paper's", run_mig, lacks_attributes),
    "mig_chen": Measure("the same as Chen et al. define it", run_mig_form, lacks_attributes),
    "mig_locatello": Measure("the same as Locatello et al. define it", run_mig_form, lacks_attributes),
    "match": Measure("categorical codes against classes", run_match, lacks_category),
    "acm": Measure("attribute control, by judges that measure", run_acm, lacks_codes, samples=ROWS),
    "tc": Measure("total correlation of the codes", run_tc, lacks_q, samples=TC_SAMPLES),
    "probe": Measure("a linear probe of the layer before Q", run_probe, lacks_attributes),
    "betavae": Measure("BetaVAE score", run_on_factors, lacks_two_factors),
    "factorvae": Measure("FactorVAE score", run_on_factors, lacks_two_factors),
    "dci": Measure("disentanglement, completeness, informativeness", run_on_factors, lacks_two_factors),
    "sap": Measure("separated attribute predictability", run_on_factors, lacks_two_factors),
    "modularity": Measure("modularity", run_on_factors, lacks_two_factors),
    "explicitness": Measure("explicitness", run_on_factors, lacks_attributes),
}
