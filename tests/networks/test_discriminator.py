"""Facts about the discriminator: its size, minibatch-stddev, the score, Q, fades and errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infostylegan import CodeSpec, Discriminator
from infostylegan.networks.discriminator import minibatch_stddev
from infostylegan.networks.layers import box_downsample

CODES = "cat:3,bern:1,unif:1"
TINY = {"fmap_base": 64, "fmap_max": 8}


def build(resolution=16, codes=CODES, seed=0, **options):
    torch.manual_seed(seed)
    return Discriminator(resolution, codes, **{**TINY, **options})


def images(n=8, resolution=16, seed=0, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, resolution, resolution, generator=generator)


def size(network):
    return sum(p.numel() for p in network.parameters())


def q_output(D, x, **options):
    """Everything that Q says, [N, numbers]."""
    cat, bern, unif = D.posterior(x, **options)
    return torch.cat([cat.logits, torch.stack([bern.logit, unif.loc, unif.scale], dim=1)], dim=1)


# ---- sizes ---------------------------------------------------------------------------------------------


def test_the_discriminator_at_1024_has_the_published_23087249_parameters():
    assert size(Discriminator(1024, "none")) == 23_087_249


def test_the_discriminator_at_512_has_23080225_parameters_and_q_comes_on_top():
    D = Discriminator(512, "cat:3,bern:7,unif:10")
    q = size(D.q_head)
    assert size(D) - q == 23_080_225
    assert q == 512 * 16 * 512 + 512 + 512 * 30 + 30
    assert Discriminator(512, "none", fmap_base=64, fmap_max=4).q_head is None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [4, 8, 16])
def test_it_judges_images_of_every_size_of_the_pyramid(resolution, channels):
    judged = build(channels=channels)(images(5, resolution, channels=channels))
    assert judged.score.shape == (5,)
    assert [q.mean.shape for q in judged.posterior] == [(5, 3), (5,), (5,)]


# ---- minibatch-stddev ----------------------------------------------------------------------------------


@given(st.integers(1, 13), st.integers(1, 5), st.integers(1, 3), st.integers(1, 6), st.integers(0, 999))
def test_minibatch_stddev_appends_the_spread_of_each_strided_group(n, channels, side, group, seed):
    x = np.random.default_rng(seed).normal(size=(n, channels, side, side))
    members = max(g for g in range(1, min(group, n) + 1) if n % g == 0)
    groups = n // members
    expected = np.empty(n)
    for i in range(n):
        mates = [j for j in range(n) if j % groups == i % groups]
        assert len(mates) == members
        expected[i] = np.sqrt(x[mates].var(axis=0) + 1e-8).mean()
    y = minibatch_stddev(torch.tensor(x), group).numpy()
    assert y.shape == (n, channels + 1, side, side)
    assert np.array_equal(y[:, :channels], x)
    np.testing.assert_allclose(y[:, channels], np.tile(expected[:, None, None], (1, side, side)), rtol=1e-12)


def test_minibatch_stddev_of_equal_images_is_the_root_of_its_epsilon():
    x = torch.ones(4, 2, 3, 3, dtype=torch.float64)
    np.testing.assert_allclose(minibatch_stddev(x)[:, 2], 1e-4, rtol=1e-9)


def test_the_groups_of_minibatch_stddev_have_four_images_by_default():
    x = torch.zeros(8, 1, 1, 1)
    x[[1, 3, 5, 7]] = torch.tensor([0.0, 2.0, 4.0, 6.0]).view(4, 1, 1, 1)  # group 1 of 2, by i mod 2
    feature = minibatch_stddev(x)[:, 1, 0, 0]
    np.testing.assert_allclose(feature[1::2], np.sqrt(5), rtol=1e-6)
    np.testing.assert_allclose(feature[::2], 1e-4, rtol=1e-6)


# ---- batch-mates ---------------------------------------------------------------------------------------


def test_q_does_not_depend_on_the_other_images_of_the_batch_while_the_score_does():
    D = build()
    x = images(8)
    other = x.clone()
    other[1:] = images(7, seed=1) * 3
    assert torch.equal(q_output(D, x)[0], q_output(D, other)[0])
    assert (D(x).score[0] - D(other).score[0]).abs() > 1e-4


@settings(max_examples=10)
@given(st.permutations(range(6)))
def test_q_follows_its_images_wherever_they_stand(order):
    D = build()
    x = images(6)
    torch.testing.assert_close(q_output(D, x[list(order)]), q_output(D, x)[list(order)], rtol=1e-4, atol=1e-5)


def test_reading_the_codes_alone_gives_what_judging_gives():
    D = build()
    x = images(4, 8)
    judged = D(x, fade=0.5).posterior
    for a, b in zip(judged, D.posterior(x, fade=0.5), strict=True):
        assert torch.equal(a.mean, b.mean)


def test_codes_read_without_a_share_for_the_trunk_leave_nothing_of_it_in_memory():
    D = build()
    features = []
    D.trunk.register_forward_hook(lambda trunk, args, result: features.append(result))
    read = [q_output(D, images(4), trunk_share=share) for share in (1.0, 0.0)]
    assert [x.requires_grad for x in features] == [True, False]
    assert [x.requires_grad for x in read] == [True, True]


def test_without_codes_there_is_a_score_and_nothing_else():
    D = build(codes="none")
    judged = D(images(4))
    assert judged.posterior == []
    assert judged.score.shape == (4,)
    assert D.posterior(images(4)) == []


# ---- labels --------------------------------------------------------------------------------------------


def test_the_score_is_the_logit_that_the_label_selects():
    D = build(labels=4)
    D.score_head.group = 1  # so that copies of one image can be compared
    x = images(1).expand(4, -1, -1, -1)
    logits = D(x, torch.arange(4)).score
    assert len(set(logits.tolist())) == 4
    for label in range(4):
        torch.testing.assert_close(D(x, torch.full((4,), label)).score, logits[label].expand(4))
    D.score_head.out.bias.data[2] += 1
    torch.testing.assert_close(D(x, torch.arange(4)).score - logits, torch.tensor([0.0, 0.0, 1.0, 0.0]))


def test_labels_do_not_change_what_q_reads():
    D = build(labels=4)
    x = images(4)
    one, two = (D(x, torch.tensor(y)).posterior for y in ([0, 0, 0, 0], [3, 1, 2, 0]))
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(one, two))


def test_a_discriminator_with_labels_demands_them():
    with pytest.raises(ValueError, match="3 labels: give label="):
        build(labels=3)(images(2))


# ---- fades ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [8, 16])
def test_a_fade_starts_at_the_judgement_of_the_box_downsampled_image(resolution):
    D = build()
    x = images(8, resolution)
    torch.testing.assert_close(D(x, fade=0.0).score, D(box_downsample(x)).score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(q_output(D, x, fade=0.0), q_output(D, box_downsample(x)), rtol=1e-4, atol=1e-5)


def test_a_fade_mixes_features_linearly():
    D = build(8)  # the features of the fade are those of the trunk
    x = images(4, 8)
    old, new = D.trunk(box_downsample(x)), D.trunk(x)
    assert (old - new).abs().max() > 0.01
    for fade in (0.0, 0.3, 0.5, 1.0):
        torch.testing.assert_close(D.trunk(x, fade), old + (new - old) * fade, rtol=1e-4, atol=1e-5)


# ---- types, configuration, errors ----------------------------------------------------------------------


def test_the_network_can_be_cast_to_float64():
    assert build().double()(images(4).double()).score.dtype == torch.float64


def test_bfloat16_convolutions_leave_the_judgement_in_float32():
    D = build()
    x = images(8)
    exact, _ = D(x).score, D.set_precision("bf16")
    rough = D(x).score
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1
    assert q_output(D, x).dtype == torch.float32


def test_a_discriminator_is_rebuilt_from_its_configuration():
    D = build(codes=CodeSpec.parse(CODES, uniform="gaussian", sigma_min=0.4), labels=2, channels=1)
    copy = Discriminator.from_config(D.config)
    copy.load_state_dict(D.state_dict())
    x, y = images(4, channels=1), torch.tensor([0, 1, 1, 0])
    assert torch.equal(copy(x, y).score, D(x, y).score)
    assert torch.equal(q_output(copy, x), q_output(D, x))
    assert copy.codes == D.codes


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 3, 12, 12), (2, 3, 2, 2), (2, 3, 16, 8)])
def test_an_image_outside_the_pyramid_is_refused_with_its_shape_and_the_sizes_there_are(shape):
    with pytest.raises(ValueError) as caught:
        build()(torch.zeros(shape))
    assert str(list(shape)) in str(caught.value)
    assert "[4, 8, 16]" in str(caught.value)


def test_an_image_with_other_channels_is_refused_with_its_shape():
    with pytest.raises(ValueError, match=r"2, 1, 16, 16"):
        build()(torch.zeros(2, 1, 16, 16))
