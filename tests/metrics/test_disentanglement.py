"""Facts about the BetaVAE and FactorVAE scores, DCI, modularity, explicitness and SAP."""

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from metrics import betavae_score, dci, explicitness, factorvae_score, modularity, sap
from metrics.dci import dci_of_importance
from metrics.errors import MetricError
from metrics.factor_source import FactorSource
from metrics.modularity import modularity_of_information
from metrics.worlds import ArrayWorld, SourceWorld

SIZES = (4, 3, 5)
SMALL = {"train": 600, "test": 300}
FAST = {"samples": 1500}


class Grid:
    """A world of images of 1 x K pixels that are the factors themselves."""

    factor_sizes = dict(zip("abc", SIZES))  # noqa: RUF012

    def draw(self, n, rng, fixed=None):
        drawn = rng.integers(0, SIZES, (n, 3))
        for name, value in (fixed or {}).items():
            drawn[:, list(self.factor_sizes).index(name)] = value
        return drawn

    def images(self, factors):
        return factors.astype(np.uint8)[:, None, None, :]


def factors_of(n=3000, seed=0):
    return Grid().draw(n, np.random.default_rng(seed))


def scaled(factors):
    return factors / np.array(SIZES) * 2 - 1


def rotated(codes):
    """The first two codes turned by 45 degrees."""
    turned = codes.copy()
    turned[:, 0], turned[:, 1] = (codes[:, 0] - codes[:, 1]) / 2**0.5, (codes[:, 0] + codes[:, 1]) / 2**0.5
    return turned


BETAVAE = lambda c, f, **o: betavae_score(c, f, **SMALL, **o)  # noqa: E731
FACTORVAE = lambda c, f, **o: factorvae_score(c, f, **SMALL, **o)  # noqa: E731
DCI_ = lambda c, f, **o: dci(c, f, trees=10, **FAST, **o)  # noqa: E731
MODULARITY = modularity
SAP_ = lambda c, f, **o: sap(c, f, **FAST, **o)  # noqa: E731
EXPLICIT = lambda c, f, **o: explicitness(c, f, **FAST, **o)  # noqa: E731
ALL = [
    pytest.param(BETAVAE, id="betavae"),
    pytest.param(FACTORVAE, id="factorvae"),
    pytest.param(DCI_, id="dci"),
    pytest.param(MODULARITY, id="modularity"),
    pytest.param(SAP_, id="sap"),
    pytest.param(EXPLICIT, id="explicitness"),
]


# Perfect codes. SAP's gap is to what guessing reaches; a plug-in information is never quite nought; a linear
# classifier of the middle one of ordered values is no perfect ranking.
PERFECT = {
    "betavae": 1.0,
    "factorvae": 1.0,
    "dci": 0.99,
    "modularity": 0.99,
    "sap": 0.1,
    "explicitness": 0.75,
}


@pytest.mark.parametrize("score", ALL)
def test_perfect_codes_score_highly_and_permuted_ones_alike(score, request):
    least = PERFECT[request.node.callspec.id]
    factors = factors_of()
    codes = scaled(factors)
    straight, crossed = score(codes, factors), score(codes[:, [2, 0, 1]], factors)
    assert least <= straight.value <= 1
    assert crossed.value == pytest.approx(straight.value, abs=0.02)


@pytest.mark.parametrize("score", ALL)
def test_dead_codes_score_what_guessing_scores(score, request):
    guess = {"betavae": 1 / 3, "explicitness": 0.5}.get(request.node.callspec.id, 0.0)
    found = score(np.full((3000, 3), 0.25), factors_of()).value
    assert found == pytest.approx(guess, abs=0.05)


@pytest.mark.parametrize("score", ALL)
def test_the_same_seed_gives_the_same_score(score):
    codes = scaled(factors_of(600)) + np.random.default_rng(1).normal(0, 0.3, (600, 3))
    assert score(codes, factors_of(600), seed=3).value == score(codes, factors_of(600), seed=3).value


@pytest.mark.parametrize("score", ALL)
def test_factors_may_be_a_table_or_named_columns(score):
    factors, codes = factors_of(600), scaled(factors_of(600))
    named = dict(zip("abc", factors.T))
    assert score(codes, named).value == score(codes, factors).value
    assert score(codes, named).names == ("a", "b", "c")


@pytest.mark.parametrize("score", ALL)
@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (np.zeros((50, 2)), None, "no labels"),
        (np.zeros((50, 2)), factors_of(49), "for 50 samples"),
        (np.zeros((50, 2)), np.zeros((50, 2)), "'factor0': is 0.0 for all 50 samples"),
        (np.full((50, 2), np.nan), factors_of(50), "code 0 of sample 0 is nan, and 100 of 100 in all"),
        (lambda images: images, factors_of(50), "must then be a FactorSource"),
        (np.zeros((50, 2)), Grid(), "must then be an encoder"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(score, codes, factors, message):
    with pytest.raises(MetricError, match=message):
        score(codes, factors)


@pytest.mark.parametrize("score", ALL)
def test_a_world_that_draws_on_request_gives_the_score_of_its_codes(score):
    encode = lambda images: images[:, 0, 0, :] / np.array(SIZES) * 2 - 1  # noqa: E731
    assert isinstance(Grid(), FactorSource)
    arrays, drawn = score(scaled(factors_of()), factors_of()), score(encode, Grid())
    assert drawn.value == pytest.approx(arrays.value, abs=0.06)
    assert drawn.names == ("a", "b", "c")


# ---------------------------------------------------------------------- duplicated, rotated, noisy


def test_duplicated_codes_leave_the_votes_and_modularity_alone_and_take_saps_gap_and_completeness():
    factors = factors_of()
    codes = scaled(factors)
    twice = np.concatenate([codes, codes], axis=1)
    assert BETAVAE(twice, factors).value == FACTORVAE(twice, factors).value == 1
    assert modularity(twice, factors).value == pytest.approx(modularity(codes, factors).value)
    assert SAP_(twice, factors).value == pytest.approx(0, abs=1e-12)
    # Every tree may take either copy: at most even shares, 1 - log 2 / log 6.
    both = dci_of_importance(np.tile(np.eye(3), (2, 1)) / 2, np.ones(3), ("a", "b", "c"))
    assert both.disentanglement == pytest.approx(1)
    assert both.completeness == pytest.approx(1 - np.log(2) / np.log(6))


def test_rotated_codes_lose_disentanglement_and_keep_what_a_linear_classifier_can_read():
    rng = np.random.default_rng(0)
    t = rng.integers(0, 8, (4000, 2))
    codes = rotated(t / 8.0)
    assert FACTORVAE(codes, t).value == pytest.approx(0.5, abs=0.08)
    assert modularity(codes, t).value < 0.1
    assert DCI_(codes, t).disentanglement < 0.1
    assert abs(SAP_(codes, t).value) < 0.05
    # All codes together tell as much as before the turn: a linear map can be undone.
    assert EXPLICIT(codes, t).value == pytest.approx(EXPLICIT(t / 8.0, t).value, abs=0.03)


def test_a_noisy_code_loses_to_a_clean_one():
    factors = factors_of(1500)
    rng = np.random.default_rng(2)
    clean, noisy = scaled(factors), scaled(factors) + rng.normal(0, 3, (1500, 3))
    for score in (BETAVAE, FACTORVAE, DCI_, SAP_, EXPLICIT):
        assert score(noisy, factors).value < score(clean, factors).value - 0.02


def test_a_code_of_noise_beside_perfect_ones_changes_no_vote():
    factors = factors_of()
    codes = np.concatenate([scaled(factors), np.random.default_rng(0).normal(size=(3000, 1))], axis=1)
    score = FACTORVAE(codes, factors)
    assert score.value == 1
    assert not score.votes[3].any()


# ---------------------------------------------------------------------- BetaVAE and FactorVAE


@pytest.mark.parametrize("world", ["arrays", "source"])
def test_within_a_group_the_held_factor_stands_still_and_others_move(world):
    factors = factors_of(500)
    if world == "arrays":
        drawn = ArrayWorld(factors, factors, (), 10)
    else:
        drawn = SourceWorld(lambda images: images[:, 0, 0, :], Grid(), ())
    for k in range(3):
        groups = drawn.held(k, 200, 8, np.random.default_rng(k)).values.reshape(200, 8, 3)
        assert (groups[:, :, k] == groups[:, :1, k]).all()
        assert len(np.unique(groups[:, 0, k])) == SIZES[k]
        for other in {0, 1, 2} - {k}:
            assert (groups[:, :, other] != groups[:, :1, other]).any(axis=1).mean() > 0.95


def test_a_pair_of_samples_is_never_one_sample_twice():
    index = np.arange(40.0)
    world = ArrayWorld(index, index.astype(int) // 4, (), 10)
    pairs = world.held(0, 500, 2, np.random.default_rng(0)).values.reshape(500, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert (pairs[:, 0] // 4 == pairs[:, 1] // 4).all()


def test_a_value_that_a_single_sample_has_is_never_held():
    factors = np.array([0, 0, 0, 1, 2, 2])
    world = ArrayWorld(np.arange(6.0), factors, (), 10)
    assert 3.0 not in world.held(0, 300, 2, np.random.default_rng(0)).values
    with pytest.raises(MetricError, match="no two samples share"):
        ArrayWorld(np.arange(3.0), np.arange(3), (), 10)


def test_each_held_sample_occurs_as_often_as_its_share():
    factors = np.array([0] * 10 + [1] * 30)
    world = ArrayWorld(np.arange(40.0), factors, (), 10)
    drawn = world.held(0, 20_000, 3, np.random.default_rng(0)).values
    counts = np.bincount(drawn[:, 0].astype(int), minlength=40)
    assert counts / counts.mean() == pytest.approx(np.ones(40), abs=0.1)


def test_the_score_is_that_of_held_out_votes_and_not_of_the_votes_that_made_the_table():
    # Codes know nothing: two votes make a table that is right of itself far more often than of others.
    rng = np.random.default_rng(0)
    own, held_out = [], []
    for seed in range(40):
        codes = rng.normal(size=(400, 12))
        score = factorvae_score(codes, factors_of(400), train=24, test=300, size=8, seed=seed)
        own.append(score.train)
        held_out.append(score.value)
    assert np.mean(own) > 0.45
    assert np.mean(held_out) == pytest.approx(1 / 3, abs=0.03)


def test_dead_codes_are_pruned_by_count_of_the_living_and_not_by_the_length_of_the_mask():
    factors = factors_of()
    codes = np.concatenate([scaled(factors), np.full((3000, 2), 0.5)], axis=1)
    codes[:, 4] += np.random.default_rng(0).normal(0, 0.02, 3000)  # alive, but barely: below 0.05
    score = FACTORVAE(codes, factors)
    assert score.active.tolist() == [True, True, True, False, False]
    assert score.value == 1
    assert not score.votes[3:].any()
    assert FACTORVAE(codes[:, 3:], factors).value == 0


def test_variance_is_relative_so_that_a_codes_scale_does_not_matter():
    factors = factors_of()
    stretched = scaled(factors) * np.array([1, 50, 0.3])
    assert FACTORVAE(stretched, factors).value == 1


def test_a_categorical_votes_by_ginis_variance_whatever_its_values_are_called():
    factors = factors_of()
    renamed = np.array([2, 0, 3, 1])[factors[:, 0]]
    codes = np.concatenate([renamed[:, None], scaled(factors)[:, 1:]], axis=1)
    score = FACTORVAE(codes, factors, categorical=[0])
    assert score.value == 1
    assert (score.votes.argmax(axis=0) == [0, 1, 2]).all()


def test_the_factorvae_score_of_noisy_codes_is_that_of_a_plain_loop():
    factors = factors_of(1200)
    codes = scaled(factors) + np.random.default_rng(0).normal(0, 0.9, (1200, 3))
    rng = np.random.default_rng(5)

    def votes(n):
        table = np.zeros((3, 3))
        for _ in range(n):
            k, row = rng.integers(3), rng.integers(1200)
            alike = np.flatnonzero(factors[:, k] == factors[row, k])
            table[np.argmin(codes[rng.choice(alike, 32)].var(axis=0) / codes.var(axis=0)), k] += 1
        return table

    answer, held_out = votes(1500).argmax(axis=1), votes(1500)
    want = sum(held_out[i, answer[i]] for i in range(3)) / held_out.sum()
    ours = factorvae_score(codes, factors, train=1500, test=3000, size=32)
    assert ours.value == pytest.approx(want, abs=0.04)
    assert 0.4 < want < 0.9


def test_ginis_variance_is_half_the_share_of_unequal_pairs():
    from metrics.factorvae import _variance
    from metrics.tables import read_codes

    index = np.random.default_rng(0).integers(0, 4, 30).astype(float)
    unequal = (index[:, None] != index).sum()
    found = _variance(read_codes(index, [0]), 30)[0, 0]
    assert found == pytest.approx(unequal / (30 * 29))
    assert _variance(read_codes(index), 30)[0, 0] == pytest.approx(index.var(ddof=1))


def test_the_betavae_score_of_one_factor_known_to_one_code_is_that_of_a_plain_loop():
    factors = factors_of(800)
    codes = scaled(factors) + np.random.default_rng(0).normal(0, 0.8, (800, 3))
    rng = np.random.default_rng(9)

    def points(n):
        x, y = np.zeros((n, 3)), np.arange(n) % 3
        for row, k in enumerate(y):
            i = rng.integers(800, size=16)
            j = [rng.choice(np.flatnonzero(factors[:, k] == factors[a, k])) for a in i]
            x[row] = np.abs(codes[i] - codes[j]).mean(axis=0)
        return x, y

    model = LogisticRegression(max_iter=2000).fit(*points(600))
    ours = betavae_score(codes, factors, train=600, test=1500, pairs=16)
    assert ours.value == pytest.approx(model.score(*points(600)), abs=0.06)
    assert 0.4 < ours.value < 0.95
    assert ours.chance == 1 / 3


def test_with_one_factor_there_is_nothing_to_tell_apart():
    factor = factors_of(200)[:, 0]
    assert BETAVAE(np.zeros((200, 1)), factor).value == 1
    assert FACTORVAE(factor + 0.0, factor).value == 1
    with pytest.raises(MetricError, match="only one"):
        modularity(factor, factor)


# ---------------------------------------------------------------------- DCI


def test_dci_of_known_importances():
    names = ("a", "b")
    perfect = dci_of_importance(np.eye(2), np.ones(2), names)
    assert (perfect.value, perfect.disentanglement, perfect.completeness) == (1, 1, 1)
    even = dci_of_importance(np.full((2, 2), 0.5), np.ones(2), names)
    assert (even.disentanglement, even.completeness) == pytest.approx((0, 0))
    # One code serves both factors: complete, and not disentangled. A dead code weighs nothing.
    shared = dci_of_importance(np.array([[1.0, 1.0], [0.0, 0.0]]), np.ones(2), names)
    assert (shared.disentanglement, shared.completeness) == (0, 1)
    none = dci_of_importance(np.zeros((2, 2)), np.ones(2), names)
    assert (none.disentanglement, none.completeness) == (0, 0)


def test_a_continuous_factor_is_regressed_and_scored_by_r2():
    rng = np.random.default_rng(0)
    t = rng.uniform(size=(1500, 2))
    codes = np.stack([t[:, 1], t[:, 0] + rng.normal(0, 0.15, 1500)], axis=1)
    found = dci(codes, t)
    # The best guess of t leaves at least the variance that the noise hides from it.
    assert found.accuracy[1] > 0.99
    assert 0.65 < found.accuracy[0] < 0.85
    assert found.disentanglement > 0.9


def test_rows_weigh_by_their_importance():
    importance = np.array([[0.9, 0.0], [0.1, 0.1], [0.0, 0.9]])
    assert dci_of_importance(importance, np.ones(2), ("a", "b")).disentanglement == pytest.approx(0.9)


def test_dci_is_that_of_scikit_learns_trees_and_scipys_entropy():
    from scipy.stats import entropy

    rng = np.random.default_rng(0)
    factors = factors_of(900)
    codes = scaled(factors) @ rng.normal(size=(3, 4)) + rng.normal(0, 0.1, (900, 4))
    ours = dci(codes, factors, trees=8, samples=900)
    # The importances' own mathematics, from trees on another split: the same up to the split.
    R = np.stack(
        [
            GradientBoostingClassifier(n_estimators=8, random_state=0)
            .fit(codes[:600], factors[:600, k])
            .feature_importances_
            for k in range(3)
        ],
        axis=1,
    )
    assert np.abs(ours.importance - R).max() < 0.15
    D = 1 - entropy(ours.importance.T, base=3)
    rows = ours.importance.sum(axis=1)
    assert ours.disentanglement == pytest.approx(D @ rows / rows.sum())
    assert ours.completeness == pytest.approx((1 - entropy(ours.importance, base=4)).mean())
    assert ours.importance.sum(axis=0) == pytest.approx(np.ones(3))


def test_the_columns_of_one_categorical_count_as_one_code():
    factors = factors_of(1500)
    codes = np.stack([np.array([2, 0, 3, 1])[factors[:, 0]], factors[:, 1] % 3], axis=1).astype(float)
    found = DCI_(codes, factors[:, :2], categorical=[0, 1])
    assert found.importance.shape == (2, 2)
    assert found.value > 0.98
    assert found.informativeness == 1


# ---------------------------------------------------------------------- modularity, explicitness, SAP


def test_modularity_of_known_information():
    one = modularity_of_information(np.array([[0.7], [0.0], [0.0]]))
    two = modularity_of_information(np.array([[0.7], [0.7], [0.0]]))
    flat = modularity_of_information(np.array([[0.7], [0.7], [0.7]]))
    dead = modularity_of_information(np.zeros((3, 1)))
    assert [float(m[0]) for m in (one, two, flat, dead)] == pytest.approx([1.0, 0.5, 0.0, 0.0])


def test_modularity_is_that_of_scikit_learns_information():
    factors = factors_of(2000)
    codes = scaled(factors) + 0.5 * scaled(factors)[:, [1, 2, 0]]
    binned = [np.digitize(c, np.histogram(c, 20)[1][:-1]) for c in codes.T]
    m = np.array([[mutual_info_score(f, b) for b in binned] for f in factors.T])
    want = []
    for i in range(3):
        best = m[:, i].argmax()
        want.append(1 - sum(m[k, i] ** 2 for k in range(3) if k != best) / (m[best, i] ** 2 * 2))
    assert modularity(codes, factors).per_code == pytest.approx(want)


def test_a_dead_code_lowers_modularity_by_its_share():
    factors = factors_of()
    codes = scaled(factors)
    alive = modularity(codes, factors)
    with_dead = modularity(np.concatenate([codes, np.zeros((3000, 1))], axis=1), factors)
    assert with_dead.per_code[3] == 0
    assert with_dead.value == pytest.approx(alive.value * 3 / 4)


def test_explicitness_is_the_mean_area_under_scikit_learns_roc_curve_on_held_out_samples():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 4000)
    codes = rng.normal(size=(4000, 2)) + label[:, None]
    scaler = StandardScaler().fit(codes[:3000])
    model = LogisticRegression().fit(scaler.transform(codes[:3000]), label[:3000])
    probs = model.predict_proba(scaler.transform(codes[3000:]))
    want = np.mean([roc_auc_score(label[3000:] == v, probs[:, v]) for v in (0, 1)])
    assert explicitness(codes, label).value == pytest.approx(want, abs=0.02)


def test_sap_of_classes_is_the_gap_between_the_two_best_linear_svms():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 3000)
    codes = rng.normal(size=(3000, 3))
    codes[:, 0] += 3 * label
    codes[:, 1] += label
    found = sap(codes, label)
    for i, shift in enumerate((3, 1, 0)):
        model = LinearSVC(C=0.01, class_weight="balanced").fit(codes[:2000, [i]], label[:2000])
        assert found.scores[0, i] == pytest.approx(model.score(codes[2000:, [i]], label[2000:]), abs=0.03), (
            shift
        )
    assert found.value == pytest.approx(found.scores[0, 0] - found.scores[0, 1])
    assert found.best[0] == 0


def test_sap_of_a_continuous_factor_is_the_gap_of_squared_correlations():
    rng = np.random.default_rng(0)
    t = rng.uniform(size=2000)
    codes = np.stack([t + rng.normal(0, 0.1, 2000), t + rng.normal(0, 1, 2000), np.zeros(2000)], axis=1)
    found = sap(codes, t)
    want = [np.corrcoef(codes[:, i], t)[0, 1] ** 2 for i in (0, 1)]
    assert found.scores[0] == pytest.approx([*want, 0])
    assert found.value == pytest.approx(want[0] - want[1])


def test_a_categorical_code_explains_the_variance_between_its_values():
    rng = np.random.default_rng(0)
    index = rng.integers(0, 3, 2000)
    t = np.array([5.0, 1.0, 3.0])[index] + rng.normal(0, 0.5, 2000)
    found = sap(index.astype(float), t, categorical=[0])
    within = np.mean(
        [(t[index == v] - t[index == v].mean()) ** 2 @ np.ones((index == v).sum()) for v in range(3)]
    )
    assert found.value == pytest.approx(1 - within * 3 / 2000 / t.var())


def test_a_class_that_is_missing_from_the_samples_to_learn_from_is_named():
    factors = np.zeros(60, dtype=int)
    factors[:20] = 1
    factors[20] = 2
    seed = next(s for s in range(50) if 20 in np.random.default_rng(s).permutation(60)[40:])
    with pytest.raises(MetricError, match=r"'factor0': class 2 has no sample among the 40 to learn from"):
        sap(np.arange(60.0), factors, seed=seed)


# ---------------------------------------------------------------------- a world that is drawn


def moments(images):
    """Where the sprite is and how large: codes that anyone can compute, float64 [n, 3]."""
    ink = (np.asarray(images)[:, 0] > 0).astype(float)
    area = ink.sum(axis=(1, 2))
    at = np.arange(ink.shape[1])
    x, y = (ink.sum(axis=1) @ at) / area, (ink.sum(axis=2) @ at) / area
    return np.stack([x / 32 - 1, y / 32 - 1, np.sqrt(area) / 16 - 1], axis=1)


def test_moments_of_a_drawn_sprite_vote_for_its_place_and_its_scale():
    from infostylegan.data.factors import DspritesSource

    source = DspritesSource()
    assert isinstance(source, FactorSource)
    score = factorvae_score(moments, source, train=60, test=30, size=12, spread_samples=300)
    names = [name.lower() for name in score.names]
    votes = {name: score.votes[:, k] for k, name in enumerate(names)}
    x = next(v for n, v in votes.items() if n.endswith("x"))
    y = next(v for n, v in votes.items() if n.endswith("y"))
    assert x[0] > 0.9 * x.sum()
    assert y[1] > 0.9 * y.sum()
    assert votes["scale"][2] > 0.9 * votes["scale"].sum()
