"""The mutual information gap, in three forms that must never share a table.

mig            the paper's (Eq. 15 and 16): through Q's posteriors on labelled images
mig_chen       Chen et al. 2018: the same information, divided by log |V|, as for factors drawn uniformly
mig_locatello  Locatello et al. 2019: plug-in information of Q's means in 20 bins of equal width

For a code C_i with posterior Q(c | x) and an attribute V, the first two take the aggregate posteriors

    f_v(c) = mean of Q(c | x) over the images with label v,     f(c) = sum_v p(v) f_v(c),
    I(V; C_i) = H(f) - sum_v p(v) H(f_v),

and compute them without sampling: sums for discrete codes, and for continuous ones a histogram of the
posteriors' locations and scales, convolved with the kernel and integrated. H(C_i) in the paper's formula has
to be H(f), the entropy on those images; with the prior's entropy in its place the value is no information.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import irfft, next_fast_len, rfft
from scipy.integrate import simpson
from scipy.sparse import csr_array

from metrics.errors import MetricError
from metrics.information import entropy, equal_width_bins, joint_counts, mutual_information
from metrics.posteriors import (
    HALF_LOG_2PI,
    DiscreteQ,
    NormalQ,
    PosteriorRows,
    TruncatedNormalQ,
    check_posteriors,
)
from metrics.tables import BINS, Codes, Factors, FactorTable, read_factors, read_pairs

# Steps of the quadrature: of locations in units of the smallest scale, and of scales in log units.
STEP = 1 / 24
SCALE_STEP = 0.05
REACH = 8.0  # how many scales a kernel reaches: 1e-15 of its mass lies beyond
CHUNK = 32768  # images at a time
LARGEST_GRID = 1 << 20


@dataclass(frozen=True)
class MIG:
    """The mean gap, and all that it was made of; arrays are [K attributes] or [K, L codes], in nats."""

    value: float
    form: str  # paper, chen or locatello
    names: tuple[str, ...]  # of the attributes
    gaps: np.ndarray  # [K]: (largest - second largest information) / normaliser
    information: np.ndarray  # [K, L]
    normaliser: np.ndarray  # [K]: H(V), or log |V|
    best: np.ndarray  # int [K]: the code that knows most of each attribute
    ceiling: np.ndarray | None = None  # [K, L]: the most that the posterior's family lets I(V; C) be
    bias: np.ndarray | None = None  # [K, L]: the plug-in estimate's, to first order

    @property
    def max_information(self) -> float:
        """The largest I(V_k; C_i), as the paper's Table 2 reports beside MIG."""
        return float(self.information.max())

    @property
    def max_at(self) -> tuple[str, int]:
        """The attribute and the code that have it."""
        k, i = np.unravel_index(int(self.information.argmax()), self.information.shape)
        return self.names[k], int(i)


def mig(
    posteriors: Sequence[PosteriorRows], attributes: ArrayLike | Mapping[str, ArrayLike], *, bins: int = BINS
) -> MIG:
    """MIG as the paper has it, with the largest information and the ceiling of each pair.

    posteriors  one entry a code, of N images each; a categorical code is one entry
    attributes  [N, K] or name -> [N]; real-valued ones are cut into `bins` classes (see read_factors)

    `ceiling` is what a Q can reach whose locations stay within [-1, 1], at its smallest scale: exact for an
    attribute of two values, an upper bound otherwise. Raises MetricError for labels that do not fit.
    """
    table = read_factors(attributes, check_posteriors(posteriors), bins=bins)
    prevalence = _prevalence(table)
    information = posterior_information(posteriors, table)
    ceiling = np.array([[information_ceiling(q, p) for q in posteriors] for p in prevalence])
    return _gaps(
        "paper", table.names, information, np.array([entropy(p) for p in prevalence]), ceiling=ceiling
    )


def mig_chen(
    posteriors: Sequence[PosteriorRows], factors: ArrayLike | Mapping[str, ArrayLike], *, bins: int = BINS
) -> MIG:
    """MIG as Chen et al. 2018 define it, for factors that occur equally often: normalised by log |V|.

    They estimate the information from draws of the posterior; this is the value that their estimate tends to.
    """
    table = read_factors(factors, check_posteriors(posteriors), bins=bins)
    return _gaps("chen", table.names, posterior_information(posteriors, table), np.log(table.sizes))


def mig_locatello(
    codes: Codes,
    factors: Factors,
    *,
    categorical: Collection[int] = (),
    samples: int = 10_000,
    code_bins: int = 20,
    bins: int = BINS,
    seed: int = 0,
) -> MIG:
    """MIG as Locatello et al. 2019 compute it, from codes [N, L] (Q's means) and factors.

    `code_bins` bins of equal width for each code (its values for a categorical), `samples` samples,
    normalised by the empirical H(V). The plug-in estimate is too large by about (B - 1)(|V| - 1) / 2N nats:
    see `bias`.
    """
    rng = np.random.default_rng(seed)
    table, classes = read_pairs(codes, factors, categorical=categorical, samples=samples, rng=rng, bins=bins)
    information, bias = np.zeros((2, classes.count, table.count))
    for i in range(table.count):
        column = table.values[:, i]
        binned = column.astype(np.int64) if i in table.categorical else equal_width_bins(column, code_bins)
        for k in range(classes.count):
            counts = joint_counts(classes.classes[:, k], binned)
            information[k, i] = mutual_information(counts)
            occupied = (counts.sum(axis=0) > 0).sum()
            bias[k, i] = (occupied - 1) * (classes.sizes[k] - 1) / (2 * len(table))
    normaliser = np.array([entropy(p) for p in _prevalence(classes)])
    return _gaps("locatello", classes.names, information, normaliser, bias=bias)


def _prevalence(table: FactorTable) -> list[np.ndarray]:
    """p(v) of every attribute."""
    n = len(table)
    return [np.bincount(table.classes[:, k], minlength=size) / n for k, size in enumerate(table.sizes)]


def _gaps(
    form: str,
    names: tuple[str, ...],
    information: np.ndarray,
    normaliser: np.ndarray,
    *,
    ceiling: np.ndarray | None = None,
    bias: np.ndarray | None = None,
) -> MIG:
    # A model with one code has no second one to tell it from: its gap is all that the code knows.
    padded = np.pad(information, ((0, 0), (0, max(0, 2 - information.shape[1]))))
    largest = np.sort(padded, axis=1)[:, -2:]
    gaps = (largest[:, 1] - largest[:, 0]) / normaliser
    best = information.argmax(axis=1)
    return MIG(float(gaps.mean()), form, names, gaps, information, normaliser, best, ceiling, bias)


def posterior_information(posteriors: Sequence[PosteriorRows], table: FactorTable) -> np.ndarray:
    """I(V_k; C_i) in nats under the aggregate posterior on the images, [K, L]."""
    members = _Members(table)
    information = np.zeros((table.count, len(posteriors)))
    discrete = [i for i, q in enumerate(posteriors) if isinstance(q, DiscreteQ)]
    if discrete:
        probs = [posteriors[i].probs for i in discrete]  # type: ignore[union-attr]
        sums = members.sum(lambda rows: np.concatenate([p[rows] for p in probs], axis=1))
        starts = np.cumsum([0] + [p.shape[1] for p in probs])
        for i, start, end in zip(discrete, starts, starts[1:]):
            information[:, i] = members.information(sums[:, start:end], entropy)
    for i, q in enumerate(posteriors):
        if not isinstance(q, DiscreteQ):
            density, step = _aggregate_density(q, members)
            information[:, i] = members.information(density, partial(_differential_entropy, step=step))
    return np.maximum(information, 0.0)


class _Members:
    """Which images have which label: sums over the images of every label of every attribute at once.

    Summed are only the images of all labels, and of each attribute's labels but its first; what is left of an
    attribute is its first label's.
    """

    def __init__(self, table: FactorTable) -> None:
        self.n, self.sizes = len(table), table.sizes
        columns = [np.ones(self.n, dtype=np.uint8)]
        for k, size in enumerate(table.sizes):
            columns += [table.classes[:, k] == label for label in range(1, size)]
        self._columns = np.stack(columns, axis=1).astype(np.uint8, copy=False)

    @property
    def width(self) -> int:
        """How many sums are formed."""
        return self._columns.shape[1]

    def indicator(self, rows: slice | np.ndarray) -> np.ndarray:
        """[n, width] of zeros and ones."""
        return self._columns[rows].astype(np.float64)

    def sum(self, values: Callable[[slice], np.ndarray]) -> np.ndarray:
        """[width, W] from `values(rows)` [n, W]."""
        total: np.ndarray | float = 0.0
        for start in range(0, self.n, CHUNK):
            rows = slice(start, min(start + CHUNK, self.n))
            total = total + self.indicator(rows).T @ values(rows)
        return np.asarray(total)

    def information(self, sums: np.ndarray, entropies: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """I(V_k; C) [K] from the sums [width, W] of one code's posteriors, and H of distributions [.., W]."""
        counts = self._columns.sum(axis=0, dtype=np.int64).astype(np.float64)
        whole = float(entropies(sums[:1] / self.n)[0])
        information = np.zeros(len(self.sizes))
        start = 1
        for k, size in enumerate(self.sizes):
            part = slice(start, start + size - 1)
            n = np.concatenate([[self.n - counts[part].sum()], counts[part]])
            of = np.concatenate([sums[:1] - sums[part].sum(axis=0), sums[part]])
            information[k] = whole - (n / self.n) @ entropies(of / n[:, None])
            start += size - 1
        return information


def _minus_f_log_f(f: np.ndarray) -> np.ndarray:
    positive = np.maximum(f, 0.0)  # the transform leaves rounding errors of either sign where f vanishes
    return -positive * np.log(positive, where=positive > 0, out=np.zeros_like(positive))


def _differential_entropy(f: np.ndarray, step: float) -> np.ndarray:
    """Of densities [.., G] on a grid, each divided by its mass."""
    f = f / simpson(f, dx=step, axis=-1)[..., None]
    return simpson(_minus_f_log_f(f), dx=step, axis=-1)


def _aggregate_density(q: NormalQ | TruncatedNormalQ, members: _Members) -> tuple[np.ndarray, float]:
    """Sums of the posterior's density over each label's images, on a grid: ([width, G], its step).

    Locations are shared out between the two nearest nodes, scales likewise (so that the variance is kept, or
    for truncated normals the precision, in which wide ones are all but linear); for every node of scale the
    histogram of locations is convolved with that kernel.
    """
    scale = np.asarray(q.scale)
    smallest, largest = float(scale.min()), float(scale.max())
    truncated = isinstance(q, TruncatedNormalQ)
    if isinstance(q, TruncatedNormalQ):
        low, high, reach = q.low, q.high, q.high - q.low
    else:
        reach = REACH * largest
        low, high = float(q.loc.min()) - reach, float(q.loc.max()) + reach
    cells = 2 * max(8, int(np.ceil((high - low) / (2 * STEP * smallest))))  # even, as Simpson's rule wants it
    if cells > LARGEST_GRID:
        raise MetricError(
            f"scales of the posterior run from {smallest:.3g} to {largest:.3g} over locations that span "
            f"{high - low:.3g}: too wide for any grid; such a Q has diverged"
        )
    step = (high - low) / cells
    nodes = max(1, int(np.ceil(np.log(largest / smallest) / SCALE_STEP - 1e-9)) + 1)
    sigmas = np.geomspace(smallest, largest, nodes)
    length = next_fast_len(cells + 1 + int(np.ceil(reach / step)), real=True)

    at, at_share = _share_out((q.loc - low) / step, cells)
    node = np.clip(np.searchsorted(sigmas, scale, side="right") - 1, 0, max(0, nodes - 2))
    power = -2 if truncated else 2
    lower, upper = sigmas[node] ** power, sigmas[np.minimum(node + 1, nodes - 1)] ** power
    apart = np.where(upper == lower, 1.0, upper - lower)
    node_share = np.clip((scale**power - lower) / apart, 0.0, 1.0)

    # Distances 0, 1, 2, … steps and, wrapped round, the same to the left.
    steps = np.arange(length)
    distance = np.minimum(steps, length - steps) * step
    spectrum = np.zeros((members.width, length // 2 + 1), dtype=np.complex128)
    by_node = np.argsort(node, kind="stable")
    bounds = np.searchsorted(node[by_node], np.arange(nodes + 1))
    # What the images between two nodes of scale leave for the upper one.
    carried = np.zeros((cells + 1, members.width))
    for b in range(nodes):
        histogram, carried = carried, np.zeros_like(carried)
        for start in range(bounds[b], bounds[b + 1], CHUNK):
            rows = by_node[start : min(start + CHUNK, bounds[b + 1])]
            indicator, up = members.indicator(rows), node_share[rows]
            histogram += _histogram(at[rows], at_share[rows], 1 - up, indicator, cells)
            if nodes > 1:
                carried += _histogram(at[rows], at_share[rows], up, indicator, cells)
        if histogram.any():
            # Sharing out between nodes widens every kernel, by a sixth of a step squared on average.
            sigma = np.sqrt(sigmas[b] ** 2 - step**2 / 6)
            kernel = np.exp(-0.5 * (distance / sigma) ** 2 - HALF_LOG_2PI) / sigma
            if truncated:
                inside = TruncatedNormalQ(np.linspace(low, high, cells + 1), sigma, low, high)
                histogram *= np.exp(-inside.log_mass())[:, None]
            spectrum += rfft(histogram.T, length, axis=1) * rfft(kernel)
    return irfft(spectrum, length, axis=1)[:, : cells + 1], step


def _share_out(position: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
    """The node below each position within 0 … last, and the share of the node above."""
    below = np.clip(np.floor(position).astype(np.int64), 0, max(0, last - 1))
    return below, np.clip(position - below, 0.0, 1.0)


def _histogram(
    at: np.ndarray, share: np.ndarray, weight: np.ndarray, indicator: np.ndarray, cells: int
) -> np.ndarray:
    """[cells + 1, width]: n weighted images, each shared out between the nodes at [n] and at + 1."""
    n = len(at)
    data = np.stack([weight * (1 - share), weight * share], axis=1).ravel()
    place = np.stack([at, at + 1], axis=1).ravel()
    spread = csr_array((data, place, np.arange(0, 2 * n + 1, 2)), shape=(n, cells + 1))
    return spread.T @ indicator


def information_ceiling(q: PosteriorRows, p: np.ndarray) -> float:
    """The most that I(V; C) can be, in nats, for a V of prevalence p and a posterior of the family of q.

    Locations are held to the code's range, [-1, 1] (`low … high` of a truncated normal), and the scale is
    the smallest that q has. For two labels, the value with their locations at either end: with a scale of 1,
    0.337 of 0.693 nats, whatever Q learns. For more labels, an upper bound on what any locations tell.
    """
    most = float(entropy(p))
    if isinstance(q, DiscreteQ):
        return min(most, float(np.log(q.probs.shape[1])))
    sigma = float(np.asarray(q.scale).min())
    if isinstance(q, TruncatedNormalQ):
        low, high, ends = q.low, q.high, (q.low, q.high)
    else:
        low, high, ends = -1 - REACH * sigma, 1 + REACH * sigma, (-1.0, 1.0)
    grid = np.linspace(low, high, 2 * int(np.clip((high - low) / sigma * 12, 500, 500_000)) + 1)
    densities = np.exp([_at(q, end, sigma).log_prob(grid) for end in ends])

    def h(f: np.ndarray) -> float:
        return float(simpson(_minus_f_log_f(f), x=grid))

    if len(p) == 2:
        return min(most, h(p @ densities) - float(p @ [h(f) for f in densities]))
    if isinstance(q, TruncatedNormalQ):
        # On the interval nothing has more entropy than the flat density, and none of the family less
        # than the one at an end.
        bound = np.log(high - low) - h(densities[0])
    else:
        # Channels with |input| <= 1 and Gaussian noise: McKellips 2004, and the one limited by power.
        bound = min(np.log1p(2 / (sigma * np.sqrt(2 * np.pi * np.e))), 0.5 * np.log1p(1 / sigma**2))
    return min(most, float(bound))


def _at(q: NormalQ | TruncatedNormalQ, loc: float, sigma: float) -> NormalQ | TruncatedNormalQ:
    """One posterior of q's family, whose density can be read at many values."""
    if isinstance(q, TruncatedNormalQ):
        return TruncatedNormalQ(np.array([loc]), sigma, q.low, q.high)
    return NormalQ(np.array([loc]), sigma)
