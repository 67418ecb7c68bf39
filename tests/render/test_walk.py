"""Facts about latent walks: where each frame stands, what moves and what does not."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infostylegan import CodeError, Generator
from infostylegan.render.latents import seeded_latents
from infostylegan.render.walk import Path, WalkSpec, slerp, walk_frames

CODES = "cat:3,bern:1,unif:2"


@pytest.fixture(scope="module", name="G")
def _generator():
    torch.manual_seed(0)
    network = Generator(16, CODES, latent_dim=16, fmap_base=64, fmap_max=8, mapping_layers=2, mapping_lr=1.0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return network.eval().requires_grad_(False)


def frames(G, **options):
    return list(walk_frames(G, WalkSpec(**{"seconds": 1.0, "fps": 12, "size": 16, **options})))


def still(G, c=None, seed=0, psi=1.0, **codes):
    """The picture of one seed with some codes set, as bytes [H, W, 3]."""
    z, own, label = seeded_latents(G, [seed])
    c = own if c is None else c
    for name, value in codes.items():
        c[:, G.codes.names.index(name)] = value
    image = G(z, c, label, psi=psi, noise="const")[0]
    return image.add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def gap(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


# ---- slerp ---------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(2, 40))
def test_slerp_stays_on_the_great_circle_and_turns_evenly(seed, t, d):
    a, b = torch.randn(2, d, generator=torch.Generator().manual_seed(seed)).double()
    cos = torch.nn.functional.cosine_similarity(a, b, dim=0)
    between = slerp(a, b, t).double()
    assert between.norm() == pytest.approx(float(a.norm() + t * (b.norm() - a.norm())), rel=1e-5)
    closeness = torch.nn.functional.cosine_similarity(a, between, dim=0)
    assert math.acos(min(1, closeness)) == pytest.approx(t * math.acos(cos), abs=2e-3)
    basis = torch.linalg.qr(torch.stack([a, b], 1))[0]
    torch.testing.assert_close(basis @ (basis.T @ between), between, rtol=1e-5, atol=1e-5)


def test_slerp_between_equal_and_between_opposite_vectors_is_finite_and_keeps_its_length():
    a = torch.randn(4, 8)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    half = slerp(a, -a, 0.5)
    torch.testing.assert_close(half.norm(dim=1), a.norm(dim=1))
    assert (half * a).sum(dim=1).abs().max() < 1e-4
    torch.testing.assert_close(slerp(a, -a, 1.0), -a, rtol=1e-5, atol=1e-5)


# ---- what a frame is -----------------------------------------------------------------------------------


def test_each_key_is_the_picture_of_its_seed(G):
    film = frames(G, seeds=(5, 9, 7), easing="linear")
    for key, seed in enumerate((5, 9, 7)):
        assert gap(film[4 * key], still(G, seed=seed)) <= 1


def test_a_loop_closes_and_an_open_walk_ends_at_its_last_key(G):
    film = frames(G, seconds=4.0, seeds=(5, 9), easing="linear")
    steps = [gap(a, b) for a, b in itertools.pairwise(film)]
    assert gap(film[-1], film[0]) <= 2 * max(steps)
    line = frames(G, seeds=(5, 9), loop=False)
    assert gap(line[0], still(G, seed=5)) <= 1
    assert gap(line[-1], still(G, seed=9)) <= 1


def test_a_sweep_passes_through_every_value_while_all_else_stands_still(G):
    film = frames(G, seeds=(5,), codes={"cat0": "sweep"}, easing="linear")
    for value in range(3):
        assert gap(film[4 * value], still(G, seed=5, cat0=value)) <= 1
    film = frames(G, seeds=(5,), codes={"unif1": "sweep"})
    for frame, value in ((0, 0), (3, 1), (6, 0), (9, -1)):
        assert gap(film[frame], still(G, seed=5, unif1=value)) <= 1
    assert gap(film[3], film[9]) > 5


def test_between_two_categories_w_is_mixed_and_never_a_third_category(G):
    half = frames(G, seeds=(5,), codes={"cat0": "sweep"}, easing="linear")[2]
    z, c, _ = seeded_latents(G, [5])
    ends = []
    for value in (0.0, 1.0):
        c[:, 0] = value
        ends.append(G.map(z, c))
    image = G.synthesize((ends[0] + ends[1]) / 2, noise="const")[0]
    assert gap(half, image.add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()) <= 1


def test_held_and_set_codes_keep_their_values_while_z_wanders_and_faded_ones_go_from_key_to_key(G):
    path = Path(G, WalkSpec(seeds=(3, 4, 5), codes={"unif0": 0.25, "bern0": "hold", "unif1": "fade"}))
    _, c, _ = seeded_latents(G, [3, 4, 5])
    names = G.codes.names
    for phase in np.linspace(0, 1, 13):
        instant = path.at(float(phase))
        for weight, setting in instant.settings:
            assert 0 <= weight <= 1
            assert setting[0, names.index("unif0")] == 0.25
            assert setting[0, names.index("bern0")] == c[0, names.index("bern0")]
            low, high = c[:, names.index("unif1")].min(), c[:, names.index("unif1")].max()
            assert low - 1e-6 <= setting[0, names.index("unif1")] <= high + 1e-6
        assert sum(weight for weight, _ in instant.settings) == pytest.approx(1)
    at_key = path.at(1 / 3).settings[0][1][0, names.index("unif1")]
    assert at_key == pytest.approx(float(c[1, names.index("unif1")]))


@given(st.floats(0, 1), st.sampled_from(["smooth", "linear"]), st.booleans())
def test_shares_always_sum_to_one_and_discrete_codes_have_values_that_exist(phase, easing, in_turn):
    torch.manual_seed(0)
    G = Generator(8, "cat:3,cat:4,bern:2,unif:1", latent_dim=16, fmap_base=64, fmap_max=8)
    codes = {"cat0": "sweep", "cat1": "sweep", "bern1": "sweep", "unif0": "sweep", "bern0": "fade"}
    instant = Path(G, WalkSpec(samples=2, codes=codes, easing=easing, in_turn=in_turn)).at(phase)
    assert sum(weight for weight, _ in instant.settings) == pytest.approx(1)
    for _, c in instant.settings:
        discrete = c[:, :4]
        assert torch.equal(discrete, discrete.round())
        assert (discrete >= 0).all()
        assert (discrete < torch.tensor([3, 4, 2, 2])).all()
        assert c[:, 4].abs().max() <= 1


def test_in_turn_only_one_code_moves_at_a_time(G):
    codes = dict.fromkeys(G.codes.names, "sweep")
    path = Path(G, WalkSpec(seeds=(3,), codes=codes, in_turn=True))
    for turn in range(4):
        settings = [s for k in range(1, 8) for _, s in path.at((turn + k / 8) / 4).settings]
        moved = (torch.stack(settings) != 0).any(dim=0)[0].nonzero().flatten().tolist()
        assert moved == [turn]


def test_tiles_are_laid_out_row_by_row_and_each_has_keys_of_its_own(G):
    film = frames(G, seeds=(1, 2, 3, 4, 5, 6), samples=3, columns=2)
    assert film[0].shape == (32, 32, 3)
    for tile, seed in enumerate((1, 3, 5)):
        y, x = tile // 2 * 16, tile % 2 * 16
        assert gap(film[0][y : y + 16, x : x + 16], still(G, seed=seed)) <= 1
    assert not film[0][16:, 16:].any()


@pytest.mark.parametrize("truncation", ["codes", "global"])
def test_psi_pulls_towards_the_mean_that_was_asked_for(G, truncation):
    film = frames(G, seeds=(5,), codes={"cat0": 1}, psi=0.5, truncation=truncation)
    z, c, _ = seeded_latents(G, [5])
    c[:, 0] = 1.0
    image = G(z, c, psi=0.5, truncation=truncation, noise="const")[0]
    assert gap(film[0], image.add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()) <= 1


def test_frames_are_made_when_asked_for_and_at_most_a_batch_ahead(G, monkeypatch):
    made = []
    synthesize = Generator.synthesize
    monkeypatch.setattr(
        Generator, "synthesize", lambda self, w, **k: made.append(len(w)) or synthesize(self, w, **k)
    )
    film = walk_frames(G, WalkSpec(seconds=3600, samples=2), batch=6)
    assert len(film) == 90_000
    for _ in range(7):
        next(film)
    assert made == [6, 6, 6]
    assert len(film) == 89_993


def test_the_frame_does_not_depend_on_the_batch(G):
    spec = WalkSpec(seconds=1, fps=9, samples=3, psi=0.7, size=16)
    for a, b in zip(walk_frames(G, spec, batch=1), walk_frames(G, spec, batch=64)):
        assert gap(a, b) <= 1


def test_a_gray_generator_without_codes_and_a_direct_one_walk_too():
    for options in ({"channels": 1, "codes": "none"}, {"styles": False, "codes": CODES}, {"labels": 4}):
        torch.manual_seed(0)
        G = Generator(8, **{"codes": CODES, "latent_dim": 16, "fmap_base": 64, "fmap_max": 8, **options})
        film = frames(G, samples=2, seconds=0.5, fps=8)
        assert film[0].shape == (16, 32, 3)
        assert gap(film[0], film[2]) > 0
        assert G.training


@pytest.mark.parametrize(
    ("options", "words"),
    [({"codes": {"unif9": "sweep"}}, "unif9"), ({"codes": {"cat0": 3}}, "0 to 2"),
     ({"codes": {"unif0": 2}}, "-1 to 1"), ({"codes": {"bern0": "wobble"}}, "sweep"),
     ({"label": 1}, "without labels")],
)  # fmt: skip
def test_what_the_generator_does_not_have_is_refused(G, options, words):
    with pytest.raises(ValueError, match=words):
        walk_frames(G, WalkSpec(**options))


@pytest.mark.parametrize(
    "options",
    [{"seconds": 0}, {"fps": -1}, {"fps": 1000}, {"samples": 0}, {"easing": "bouncy"}, {"rest": "x"},
     {"seeds": ()}, {"seeds": (1, 2, 3), "samples": 2}, {"seeds": (1, 2), "keys": 3}, {"size": 0},
     {"seconds": math.nan}],
)  # fmt: skip
def test_impossible_walks_are_refused(options):
    with pytest.raises(ValueError):
        WalkSpec(**options)


def test_a_code_goes_by_the_name_that_people_gave_it(G):
    names = {"unif1": "Pigmentation"}
    a = walk_frames(G, WalkSpec(seconds=0.2, codes={"pigmentation": 0.5}), names=names)
    b = walk_frames(G, WalkSpec(seconds=0.2, codes={"unif1": 0.5}))
    assert np.array_equal(next(a), next(b))
    with pytest.raises(CodeError, match="pigment"):
        walk_frames(G, WalkSpec(codes={"pigment": 0.5}), names=names)
