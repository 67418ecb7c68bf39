"""A linear probe: how well features predict a label on samples that were held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metrics.acm import proportion
from metrics.errors import MetricError
from metrics.tables import classify

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # inverse penalties of the logistic regression that are tried


@dataclass(frozen=True)
class LinearProbe:
    value: float  # accuracy on held-out samples
    interval: tuple[float, float]  # Wilson's, 95 %
    balanced: float  # mean over classes of the share found of each
    kappa: float  # Cohen's: agreement beyond chance
    quadratic_kappa: (
        float  # the same, a mistake weighted by the square of its size: for grades, in their order
    )
    majority: float  # accuracy of always saying the commonest class
    train: int
    held_out: int
    penalty: float  # the inverse penalty that was chosen, without sight of the held-out samples
    confusion: np.ndarray  # int64 [classes, classes]: true, said


def linear_probe(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    held_out: float | ArrayLike = 0.25,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> LinearProbe:
    """Logistic regression on standardised features [N, F], scored on held-out samples.

    labels    [N], classes
    held_out  a share, taken class by class; or bool [N]: the samples to hold out
    groups    [N], such as patients: none is on both sides of the split

    Standardisation and penalty (by accuracy, 3 folds) are learned from the other samples. Raises MetricError
    for labels of another length, and names a class that has no sample to learn from.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import cohen_kappa_score, confusion_matrix
    from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise MetricError(f"features must be [N, F]; got {list(x.shape)}")
    if not np.isfinite(x).all():
        raise MetricError(
            "features hold NaN or infinity; the network has diverged, or its images are damaged"
        )
    if labels is None or np.shape(labels) != (len(x),):
        raise MetricError(f"labels must be one a sample: got {np.shape(labels)} for {len(x)} samples")
    y, continuous = classify("label", np.asarray(labels))
    if continuous or y.max() == 0:
        raise MetricError(
            "a probe needs two classes or more; these labels are " + ("numbers" if continuous else "one")
        )
    patients = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    if patients is not None and len(patients) != len(x):
        raise MetricError(f"groups must be one a sample: got {len(patients)} for {len(x)} samples")
    held = _hold_out(y, held_out, patients, seed)
    learn = ~held
    counts = np.bincount(y[learn], minlength=int(y.max()) + 1)
    if counts.min() == 0 or not held.any():
        empty = int(counts.argmin())
        raise MetricError(
            f"class {np.unique(np.asarray(labels))[empty]} has no sample to learn from"
            if held.any()
            else "no sample is held out; give more samples, or a larger share"
        )
    folds = min(3, int(counts.min()))
    if patients is not None:
        folds = min(3, len(np.unique(patients[learn])))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    name = "logisticregression__C"
    if folds >= 2:
        splitter = (
            StratifiedKFold(folds, shuffle=True, random_state=seed) if patients is None else GroupKFold(folds)
        )
        search = GridSearchCV(model, {name: STRENGTHS}, cv=splitter)
        search.fit(x[learn], y[learn], groups=None if patients is None else patients[learn])
        model, penalty = search.best_estimator_, float(search.best_params_[name])
    else:
        penalty = STRENGTHS[1]
        model.set_params(**{name: penalty}).fit(x[learn], y[learn])
    said, true = model.predict(x[held]), y[held]
    right = proportion(float((said == true).mean()), int(held.sum()))
    return LinearProbe(
        right.value,
        right.interval,
        _balanced(true, said),
        float(cohen_kappa_score(true, said)),
        float(cohen_kappa_score(true, said, weights="quadratic")),
        float((true == counts.argmax()).mean()),
        int(learn.sum()),
        int(held.sum()),
        penalty,
        confusion_matrix(true, said, labels=np.arange(int(y.max()) + 1)),
    )


def _balanced(true: np.ndarray, said: np.ndarray) -> float:
    """Mean over the classes that occur of the share found of each."""
    return float(np.mean([(said[true == v] == v).mean() for v in np.unique(true)]))


def _hold_out(y: np.ndarray, held_out: float | ArrayLike, groups: np.ndarray | None, seed: int) -> np.ndarray:
    """bool [N]: the samples to hold out, class by class; whole groups where there are any."""
    if not np.isscalar(held_out):
        held = np.asarray(held_out)
        if held.shape != y.shape or held.dtype != bool:
            raise MetricError("held_out must be a share, or true and false for each sample")
        if groups is not None and np.intersect1d(groups[held], groups[~held]).size:
            raise MetricError("a group (patient) is on both sides of the given split")
        return held
    share = float(held_out)  # type: ignore[arg-type]
    if not 0 < share < 1:
        raise MetricError(f"held_out {share:g}: give a share between 0 and 1")
    rng = np.random.default_rng(seed)
    # A group goes by the class of its first sample.
    units = np.arange(len(y)) if groups is None else groups
    _, first = np.unique(units, return_index=True)
    chosen = []
    for v in np.unique(y):
        mine = rng.permutation(units[first][y[first] == v])
        chosen.append(mine[: round(share * len(mine))])
    return np.isin(units, np.concatenate(chosen))
