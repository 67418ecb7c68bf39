"""Facts about the options of a run: what is refused, and that they survive their file."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infostylegan.presets import PRESETS, preset_for
from infostylegan.training.options import OptionError, TrainingOptions


def options(**values):
    return TrainingOptions(**{"data": "x", "data_digest": "d", "resolution": 32, **values})


def test_every_preset_is_a_set_of_possible_options():
    fields = {field.name for field in dataclasses.fields(TrainingOptions)}
    for name, values in PRESETS.items():
        assert set(values) - {"labels"} <= fields, name
        settled = {"precision": "fp32"} if values.get("precision") == "auto" else {}  # by the machine
        assert options(**{k: v for k, v in values.items() if k != "labels"} | settled)


def test_each_named_data_set_starts_from_its_preset_and_any_other_from_small():
    assert preset_for("eyepacs") == "paper-eyepacs"
    assert preset_for("celeba") == "paper-celeba"
    assert preset_for("mnist") == "mnist"
    assert preset_for("fundus") == "fundus"
    assert preset_for("my pictures") == "small"


def tables(number):
    return st.one_of(number, st.dictionaries(st.sampled_from([8, 16, 32]), number, min_size=1))


@given(
    tables(st.floats(1, 99)), tables(st.integers(1, 99)), tables(st.floats(1e-5, 1)), st.booleans(),
    st.one_of(st.none(), st.floats(0, 5)),
)  # fmt: skip
def test_options_survive_their_file_with_tables_and_all(stable, batch, lr, styles, beta_uniform):
    written = options(stable_kimg=stable, batch=batch, lr=lr, styles=styles, beta_uniform=beta_uniform)
    read = TrainingOptions.from_json(written.to_json())
    assert read == written
    assert read.growth() == written.growth()
    assert read.differences(written) == []


def test_differences_are_named_with_both_values():
    assert options(beta=1.0, seed=3).differences(options(beta=0.5, seed=3)) == ["beta: 1.0 / 0.5"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"resolution": 48}, ["--resolution 48", "power of two"]),
        ({"resolution": 4}, ["--resolution 4", "power of two"]),
        ({"start_resolution": 64}, ["--start-resolution 64", "32"]),
        ({"start_resolution": 12}, ["--start-resolution 12", "power of two"]),
        ({"beta": -1.0}, ["--beta -1.0"]),
        ({"beta": float("nan")}, ["--beta nan"]),
        ({"beta_uniform": -0.5}, ["--beta-uniform -0.5"]),
        ({"gamma": -1.0}, ["--gamma -1.0"]),
        ({"views": -1.0}, ["--views -1.0"]),
        ({"margin": -1.0}, ["--margin -1.0"]),
        ({"information_clip": -1.0}, ["--information-clip -1.0"]),
        ({"trunk_share": -0.1}, ["--trunk-share -0.1"]),
        ({"trunk_share": 1.5}, ["--trunk-share 1.5", "at most 1"]),
        ({"seed": -1}, ["--seed -1"]),
        ({"kimg": 0.0}, ["--kimg 0"]),
        ({"kimg": -5.0}, ["--kimg -5"]),
        ({"kimg": 0.0001}, ["--kimg 0.0001"]),
        ({"kimg": float("inf")}, ["--kimg inf"]),
        ({"batch": 0.0}, ["--batch"]),
        ({"batch": -8.0}, ["--batch"]),
        ({"batch": {8: 16, 32: 0}}, ["--batch"]),
        ({"batch": 7.5}, ["--batch", "7.5"]),
        ({"lr": 0.0}, ["--lr"]),
        ({"lr": -0.1}, ["--lr"]),
        ({"lr": float("nan")}, ["--lr"]),
        ({"stable_kimg": -1.0}, ["--stable-kimg"]),
        ({"fade_kimg": {8: 10, 16: -1.0}}, ["--fade-kimg"]),
        ({"fmap_max": 100_000_000}, ["--fmap-max 100000000", "4096"]),
        ({"latent_dim": 100_000}, ["--latent-dim 100000", "4096"]),
        ({"micro_batch": 0}, ["--micro-batch 0"]),
        ({"micro_batch": -4}, ["--micro-batch -4"]),
        ({"r1_interval": 0}, ["--r1-interval 0"]),
        ({"ema_kimg": 0.0}, ["--ema-kimg 0"]),
        ({"fmap_base": 0}, ["--fmap-base 0"]),
        ({"fmap_max": -1}, ["--fmap-max -1"]),
        ({"latent_dim": 0}, ["--latent-dim 0"]),
        ({"mapping_layers": -1}, ["--mapping-layers -1"]),
        ({"mapping_lr": 0.0}, ["--mapping-lr 0"]),
        ({"batch": {7: 32}}, ["--batch 7", "power of two"]),
        ({"lr": {8: 0.1, 100: 0.2}}, ["--lr 100", "power of two"]),
        ({"codes": "cat:1"}, ["cat:1", "at least 2"]),
        ({"codes": "nonsense"}, ["nonsense", "cat:3,bern:7,unif:10"]),
        ({"codes": "cat:20", "latent_dim": 20}, ["--codes cat:20", "20 wide", "--latent-dim"]),
        ({"codes": "bern:30", "latent_dim": 16}, ["30 wide", "16"]),
        ({"uniform": "laplace"}, ["laplace", "truncnormal"]),
        ({"sigma_min": 3.0}, ["sigma_min 3.0"]),
        ({"r1_reference": "middle"}, ["--r1-reference middle", "final, native"]),
        ({"precision": "fp8"}, ["--precision fp8", "fp32, bf16"]),
        ({"code_input": "raw"}, ["--code-input raw", "standard, plain"]),
    ],
)  # fmt: skip
def test_an_impossible_option_is_refused_with_its_name_and_the_remedy(values, words):
    with pytest.raises(OptionError) as caught:
        options(**values)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_the_codes_may_fill_all_but_one_number_of_the_latent():
    options(codes="cat:3,bern:12", latent_dim=16)
    with pytest.raises(OptionError):
        options(codes="cat:3,bern:13", latent_dim=16)


def test_growth_takes_the_tables_and_the_networks_their_sizes():
    made = options(
        batch={8: 64.0, 32: 16.0}, lr={8: 0.001, 32: 0.002}, stable_kimg={8: 10}, fade_kimg=5, kimg=100,
        fmap_base=64, fmap_max=8, latent_dim=24, mapping_layers=3, mapping_lr=0.5, label_count=4, channels=1,
        styles=True, code_scale=0.5, uniform="gaussian", sigma_min=0.3,
    )  # fmt: skip
    growth = made.growth()
    assert growth.batch == {8: 64, 16: 64, 32: 16}
    assert all(isinstance(size, int) for size in growth.batch.values())
    assert growth.lr == {8: 0.001, 16: 0.001, 32: 0.002}
    assert growth.stable_kimg == {8: 10, 16: 10, 32: 10}
    G, D = made.build_generator(), made.build_discriminator()
    assert (G.resolution, G.labels, G.channels, len(G.mapping.layers)) == (32, 4, 1, 3)
    assert (D.resolution, D.labels, D.channels) == (32, 4, 1)
    assert G.codes == D.codes == made.spec()
    assert G.codes[-1].family == "gaussian"
    assert G.codes[-1].sigma_min == 0.3
    assert G.latent.code_scale == 0.5
    assert G.noise_dim + G.codes.width == 24


def test_the_weights_of_discrete_codes_rise_linearly_over_the_ramp_and_stay():
    made = options(beta=1.0, beta_start=0.2, beta_real=0.4, beta_ramp_kimg=10.0)
    losses = [made.losses(images) for images in (0, 2_500, 10_000, 99_000)]
    assert [found.beta for found in losses] == pytest.approx([0.2, 0.4, 1.0, 1.0])
    assert [found.beta_real for found in losses] == [0.4] * 4
    assert [found.beta_uniform for found in losses] == [1.0] * 4  # uniform codes have theirs from the start
    assert options(beta=0.7).losses(0).beta == 0.7


def test_a_run_is_informed_where_the_information_of_some_code_has_a_weight_in_the_end():
    assert options(beta=1.0, beta_start=0.0, beta_ramp_kimg=10.0).informed
    assert options(beta=0.0, beta_uniform=0.1, codes="cat:3,unif:1").informed
    assert not options(beta=0.0, beta_uniform=0.1, codes="cat:3").informed
    assert not options(beta=0.0, beta_start=0.5, beta_ramp_kimg=1.0).informed
    assert not options(beta=0.0).informed
    assert not options(codes="none").informed


def test_the_folder_name_says_what_sets_the_run_apart():
    assert options(data="my images", beta=0.3).describe() == "my-images32-beta0.3"
    assert options(styles=False, beta=0).describe() == "x32-beta0-nostyles"
    assert "/" not in options(data="../up").describe()


def test_a_file_that_is_no_set_of_options_is_an_error_and_not_a_crash():
    for text in ("{", "[]", "null", "3", '"x"', "{}", '{"data": "x"}', json.dumps({"colour": "red"})):
        with pytest.raises((ValueError, TypeError)):
            TrainingOptions.from_json(text)


def test_a_run_made_before_an_option_was_there_is_read_as_one_without_it():
    options = TrainingOptions(data="x", data_digest="", resolution=32)
    values = json.loads(options.to_json())
    del values["information_clip"], values["trunk_share"]
    assert TrainingOptions.from_json(json.dumps(values)) == options
    assert (options.information_clip, options.trunk_share) == (0.0, 1.0)
