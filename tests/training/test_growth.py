"""Facts about growth: the paper's schedule in numbers, fades, the R1 law, the moving average."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infostylegan.growth import Growth, ema_decay, per_resolution
from infostylegan.presets import PRESETS
from infostylegan.training.options import TrainingOptions


def preset(name, **changes):
    values = {k: v for k, v in {**PRESETS[name], **changes}.items() if k != "labels"}
    return TrainingOptions(data="x", data_digest="", **values)


def growth(**changes):
    values = {
        "start": 8, "resolution": 32, "total_kimg": 1.0, "stable_kimg": {8: 0.1, 16: 0.1, 32: 0.1},
        "fade_kimg": {8: 0.2, 16: 0.2, 32: 0.2}, "batch": {8: 8, 16: 4, 32: 2},
        "lr": {8: 0.001, 16: 0.002, 32: 0.003}, "gamma": 10.0,
    }  # fmt: skip
    return Growth(**{**values, **changes})


# ---- the paper -----------------------------------------------------------------------------------------


def test_the_papers_eyepacs_run_grows_from_8_to_512_in_13_phases_and_20_million_images():
    phases = preset("paper-eyepacs").growth().phases()
    expected = [(8, False, 0, 600_000)]
    for i, resolution in enumerate((16, 32, 64, 128, 256, 512)):
        start = 600_000 + i * 1_200_000
        stable_end = 20_000_000 if resolution == 512 else start + 1_200_000
        expected += [(resolution, True, start, start + 600_000)]
        expected += [(resolution, False, start + 600_000, stable_end)]
    assert [(p.resolution, p.fading, p.start, p.end) for p in phases] == expected
    assert [p.index for p in phases] == list(range(13))
    batch = {8: 1024, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32}
    assert all(p.batch == batch[p.resolution] for p in phases)
    assert all(p.lr == (0.003 if p.resolution >= 128 else 0.001) for p in phases)


def test_the_papers_celeba_run_ends_at_128_after_55_million_images():
    phases = preset("paper-celeba").growth().phases()
    assert [p.resolution for p in phases] == [8, 16, 16, 32, 32, 64, 64, 128, 128]
    assert phases[-1].end == 55_000_000
    assert phases[-1].start == 600_000 + 4 * 1_200_000 - 600_000
    assert (phases[-1].batch, phases[-1].lr) == (128, 0.003)


def test_the_papers_r1_is_10_at_512_and_10_over_4096_at_8():
    gamma = {p.resolution: p.gamma for p in preset("paper-eyepacs").growth().phases()}
    assert gamma == {8: 10 / 4096, 16: 10 / 1024, 32: 10 / 256, 64: 10 / 64, 128: 10 / 16, 256: 2.5, 512: 10}


def test_the_paper_states_uniform_codes_as_unit_gaussians_and_feeds_codes_plainly():
    for name in ("paper-eyepacs", "paper-celeba"):
        options = preset(name)
        assert (options.codes, options.uniform) == ("cat:3,bern:7,unif:10", "unit")
        assert (options.code_input, options.beta, options.gamma, options.r1_interval) == ("plain", 1, 10, 1)
        assert (options.latent_dim, options.mapping_layers, options.mapping_lr) == (512, 8, 0.01)
        assert (options.fmap_base, options.fmap_max, options.precision) == (8192, 512, "fp32")


# ---- R1 ------------------------------------------------------------------------------------------------


@given(st.integers(3, 10), st.integers(0, 7), st.floats(0.01, 100))
def test_the_effective_gamma_is_4_to_the_minus_level_of_detail(final, lod, gamma):
    resolution = 2 ** max(3, final - lod)
    g = growth(resolution=2**final, gamma=gamma)
    level = final - math.log2(resolution)
    assert g.effective_gamma(resolution) == pytest.approx(gamma * 4**-level, rel=1e-12)
    native = growth(resolution=2**final, gamma=gamma, r1_reference="native")
    assert native.effective_gamma(resolution) == gamma


# ---- phases --------------------------------------------------------------------------------------------


def test_batch_and_learning_rate_of_a_resolution_hold_from_the_start_of_its_fade():
    phases = growth().phases()
    assert [(p.resolution, p.fading) for p in phases] == [
        (8, False), (16, True), (16, False), (32, True), (32, False)]  # fmt: skip
    assert [p.batch for p in phases] == [8, 4, 4, 2, 2]
    assert [p.lr for p in phases] == [0.001, 0.002, 0.002, 0.003, 0.003]
    assert [(p.start, p.end) for p in phases] == [(0, 100), (100, 300), (300, 400), (400, 600), (600, 1000)]


LENGTHS = st.floats(0, 0.5)


@given(
    st.integers(3, 6), st.integers(3, 6), st.floats(0.001, 4), st.lists(LENGTHS, min_size=8, max_size=8),
    st.lists(st.integers(1, 64), min_size=4, max_size=4),
)  # fmt: skip
def test_phases_cover_the_whole_run_without_gaps_in_growing_order(start, final, total, lengths, batches):
    start, final = min(start, final), max(start, final)
    sizes = [2**r for r in range(3, 7)]
    g = growth(
        start=2**start, resolution=2**final, total_kimg=total,
        stable_kimg=dict(zip(sizes, lengths[:4])), fade_kimg=dict(zip(sizes, lengths[4:])),
        batch=dict(zip(sizes, batches)), lr=dict.fromkeys(sizes, 0.1),
    )  # fmt: skip
    phases = g.phases()
    images = round(total * 1000)
    assert phases[0].start == 0
    assert phases[-1].end == images
    assert all(a.end == b.start for a, b in itertools.pairwise(phases))
    assert all(p.start < p.end for p in phases)
    assert [p.index for p in phases] == list(range(len(phases)))
    order = [(p.resolution, not p.fading) for p in phases]
    assert order == sorted(set(order))
    assert not any(p.fading and p.resolution == 2**start for p in phases)
    for p in phases:
        assert g.phase_at(p.start) == p
        assert g.phase_at(p.end - 1) == p
        assert p.steps == -(-(p.end - p.start) // p.batch)
    assert g.phase_at(images + 5) == phases[-1]


def test_a_run_that_starts_at_its_final_resolution_has_one_phase():
    (phase,) = growth(start=32).phases()
    assert (phase.resolution, phase.fading, phase.start, phase.end) == (32, False, 0, 1000)


def test_a_run_that_ends_within_a_fade_ends_there():
    phases = growth(total_kimg=0.2).phases()
    assert [(p.fading, p.end) for p in phases] == [(False, 100), (True, 200)]
    assert phases[-1].fade_at(200) == pytest.approx(0.5 if phases[-1].end == 300 else 1.0)


def test_lengths_of_zero_leave_out_fades_or_stable_phases():
    no_fades = growth(fade_kimg=dict.fromkeys((8, 16, 32), 0.0)).phases()
    assert not any(p.fading for p in no_fades)
    only_fades = growth(stable_kimg=dict.fromkeys((8, 16, 32), 0.0)).phases()
    assert [(p.resolution, p.fading) for p in only_fades] == [(16, True), (32, True), (32, False)]


# ---- fades ---------------------------------------------------------------------------------------------


def test_a_fade_runs_from_0_at_its_first_image_to_1_at_its_last_and_is_linear():
    phase = growth().phases()[1]
    assert phase.fade_at(100) == 0
    assert phase.fade_at(150) == pytest.approx(0.25)
    assert phase.fade_at(300) == 1
    assert phase.fade_at(10**9) == 1
    assert phase.fade_at(0) == 0


def test_a_stable_phase_has_no_fade():
    phase = growth().phases()[0]
    assert [phase.fade_at(images) for images in (0, 50, 100, 10**9)] == [1, 1, 1, 1]


# ---- the moving average --------------------------------------------------------------------------------


@given(st.integers(1, 512), st.floats(10, 1e6), st.integers(1, 2000))
def test_weights_lose_half_their_share_of_the_average_in_one_half_life(batch, half_life, steps):
    decay = ema_decay(batch, half_life, images=0)
    assert decay**steps == pytest.approx(0.5 ** (batch * steps / half_life), rel=1e-9, abs=1e-300)


def test_stylegans_average_is_0_5_to_the_batch_over_10000():
    assert ema_decay(32, 10_000, images=10**6) == pytest.approx(0.5 ** (32 / 10_000), rel=1e-12)


def test_with_a_rampup_the_half_life_is_at_most_its_share_of_the_images_seen():
    assert ema_decay(32, 10_000, images=50_000, rampup=0.1) == pytest.approx(0.5 ** (32 / 5_000), rel=1e-12)
    assert ema_decay(32, 10_000, images=200_000, rampup=0.1) == ema_decay(32, 10_000, images=0)
    assert ema_decay(32, 10_000, images=0, rampup=0.1) == 0  # the first step: the average is the network


# ---- the end ------------------------------------------------------------------------------------------


@given(st.integers(0, 2000), st.floats(0.01, 2))
def test_the_learning_rate_falls_linearly_to_zero_over_the_last_images_of_the_run(images, length):
    left = max(0, 1000 - images) / 1000
    assert growth(lr_decay_kimg=length).lr_factor(images) == pytest.approx(min(1.0, left / length), rel=1e-9)
    assert growth().lr_factor(images) == 1


# ---- tables --------------------------------------------------------------------------------------------


def test_one_number_holds_for_every_resolution():
    assert per_resolution(5, 8, 64) == {8: 5, 16: 5, 32: 5, 64: 5}


def test_a_gap_in_a_table_takes_the_number_of_the_nearest_lower_resolution():
    assert per_resolution({8: 1, 64: 2}, 8, 128) == {8: 1, 16: 1, 32: 1, 64: 2, 128: 2}
    assert per_resolution({4: 1, 16: 2}, 8, 32) == {8: 1, 16: 2, 32: 2}


def test_below_the_lowest_entry_a_table_takes_the_lowest():
    assert per_resolution({32: 7, 64: 9}, 8, 64) == {8: 7, 16: 7, 32: 7, 64: 9}
