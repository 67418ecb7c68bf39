"""Total correlation of the codes: given the image (paper, Eq. 1, Lemma 3.1), and of the aggregate posterior.

Both are estimates and no bounds; docs/metrics.md says what they show and what they do not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from metrics.errors import MetricError
from metrics.information import equal_width_bins
from metrics.posteriors import PosteriorRows, check_posteriors
from metrics.tables import check_classes, read_codes

CHUNK = 1 << 22  # densities held at a time
ENOUGH = 10  # samples of each value from which some are set aside to tell when to stop learning


@dataclass(frozen=True)
class ConditionalTC:
    """How much better the codes of an image are predicted jointly than one by one, in nats an image."""

    value: float  # joint - mean_field
    error: float  # standard error over the held-out images; it knows nothing of what the models miss
    joint: (
        float  # mean held-out log-likelihood of all codes, each predicted from the image and those before it
    )
    mean_field: float  # the same, each predicted from the image alone
    per_code: np.ndarray  # [L]: what knowing the codes before it adds; 0 for the first


def conditional_total_correlation(
    codes: ArrayLike,
    evidence: ArrayLike,
    *,
    categorical: Collection[int] = (),
    bins: int = 8,
    train: float = 2 / 3,
    rounds: int = 100,
    seed: int = 0,
) -> ConditionalTC:
    """Estimate E[TC(C | X)] from the codes [N, L] of generated images, and evidence [N, F] of each image.

    TC(C | x) is the mean of log p(c | x) - sum of log p(c_i | x), and by the chain rule a sum over codes. Two
    models of each code are fitted, from the evidence alone and from the evidence and the codes before it
    (boosted trees, which can learn any interaction), and compared on held-out images. Codes that are not
    whole numbers are cut into `bins` classes of equal width, which can only lower TC.

    What is estimated is the total correlation given the evidence: where the evidence leaves out something of
    the image it may be larger or smaller. The second model has more to learn from as many images, which
    lowers the estimate, below 0 where there is nothing to find.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    table = read_codes(codes, categorical)
    x = np.asarray(evidence, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or len(x) != len(table):
        raise MetricError(f"evidence must be [N, F] for {len(table)} samples of codes; got {list(x.shape)}")
    if not np.isfinite(x).all():
        raise MetricError(
            "evidence holds NaN or infinity; the network has diverged, or its images are damaged"
        )
    columns = []
    for i in range(table.count):
        column = table.values[:, i]
        whole = i in table.categorical or (column == np.floor(column)).all()
        binned = column if whole else equal_width_bins(column, bins)
        columns.append(np.unique(binned, return_inverse=True)[1].reshape(-1))
    classes = np.stack(columns, axis=1)
    order = np.random.default_rng(seed).permutation(len(table))
    cut = round(train * len(order))
    learn, held = order[:cut], order[cut:]
    if not len(learn) or not len(held):
        raise MetricError(f"{len(table)} samples are too few to hold some out")

    def log_likelihood(given: np.ndarray, i: int, marked: list[bool]) -> np.ndarray:
        label = classes[:, i]
        size = int(label.max()) + 1
        if size == 1:
            return np.zeros(len(held))
        check_classes(f"code {i}", label[learn], size)
        rarest = int(np.bincount(label[learn]).min())
        model = HistGradientBoostingClassifier(
            max_iter=rounds,
            early_stopping=rarest >= ENOUGH,
            validation_fraction=0.15,
            learning_rate=0.1,
            max_leaf_nodes=15,
            min_samples_leaf=10,
            l2_regularization=1.0,
            categorical_features=marked,
            random_state=seed,
        ).fit(given[learn], label[learn])
        probs = model.predict_proba(given[held])[np.arange(len(held)), label[held]]
        return np.log(np.maximum(probs, 1e-12))

    plain = [False] * x.shape[1]
    alone = np.stack([log_likelihood(x, i, plain) for i in range(table.count)], axis=1)
    after = alone.copy()
    for i in range(1, table.count):
        # Up to 255 categories fit the trees' histograms; bins keep the order of their values.
        marked = plain + [j in table.categorical for j in range(i)]
        after[:, i] = log_likelihood(np.concatenate([x, classes[:, :i]], axis=1), i, marked)
    gap = (after - alone).sum(axis=1)
    return ConditionalTC(
        float(gap.mean()),
        float(gap.std(ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else float("nan"),
        float(after.sum(axis=1).mean()),
        float(alone.sum(axis=1).mean()),
        (after - alone).mean(axis=0),
    )


@dataclass(frozen=True)
class AggregateTC:
    """TC of q(c) = mean over images of the product of Q(c_i | x), in nats, bracketed."""

    value: float  # the lower estimate: draws of some images under the mixture of others
    upper: float  # draws under a mixture that holds their own image too
    error: float  # Monte Carlo standard error of the lower one


def aggregate_total_correlation(
    posteriors: Sequence[PosteriorRows], *, draws: int = 2_000, seed: int = 0
) -> AggregateTC:
    """KL between the aggregate posterior of all codes and the product of its marginals.

    Codes are drawn from the posteriors of half the images. Measured under the mixture of the other half they
    look less related than they are, under the mixture of all images more so (in the extreme every draw is
    explained by its own image alone). The two meet as the number of images grows; where they do not, the
    images are too few for the number of codes, and neither is to be trusted.
    """
    n = check_posteriors(posteriors)
    if n < 4:
        raise MetricError(f"{n} images are too few to estimate a total correlation from")
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    mine, others = order[: n // 2], order[n // 2 :]
    drawn = rng.choice(mine, size=draws)
    values = [q.rows(drawn).draw(rng) for q in posteriors]
    low = _log_ratio([q.rows(others) for q in posteriors], values)
    high = _log_ratio(posteriors, values)
    # A draw that none of the other images allows is as improbable as can be told from so many.
    floor = -np.log(max(1, len(others)))
    low = np.maximum(low, floor)
    return AggregateTC(float(low.mean()), float(high.mean()), float(low.std(ddof=1) / np.sqrt(draws)))


def _log_ratio(posteriors: Sequence[PosteriorRows], values: Sequence[np.ndarray]) -> np.ndarray:
    """log q(c) - sum of log q(c_i) of values [S] of each code under the mixture of the posteriors' images."""
    n, s = len(posteriors[0]), len(values[0])
    out = np.zeros(s)
    for start in range(0, s, max(1, CHUNK // n)):
        part = slice(start, start + max(1, CHUNK // n))
        joint = np.zeros((len(out[part]), n))
        for q, value in zip(posteriors, values):
            log_density = q.log_probs(value[part])
            joint += log_density
            out[part] -= logsumexp(log_density, axis=1) - np.log(n)
        out[part] += logsumexp(joint, axis=1) - np.log(n)
    return np.nan_to_num(out, nan=-np.inf, neginf=-np.inf)
