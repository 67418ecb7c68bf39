"""Facts about one training step: which parameters learn from which term, and by how much."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infostylegan import CodeSpec, Discriminator, Generator
from infostylegan.growth import Phase
from infostylegan.losses import agreed_information, image_gradient, information
from infostylegan.training import step as module
from infostylegan.training.loop import MAX_SKIPPED_IN_A_ROW, TrainingError, check_finite
from infostylegan.training.options import TrainingOptions
from infostylegan.training.state import TrainingState, make_optimizer
from infostylegan.training.step import (
    LossSettings,
    StepStats,
    apply_gradients,
    discriminator_step,
    enough,
    fade_reals,
    generator_step,
    micro_batches,
    read_reals,
    share_codes,
    train_step,
    update_ema,
)
from infostylegan.views import random_view

CODES = "cat:3,bern:1,unif:2"
TINY = {"fmap_base": 64, "fmap_max": 8}
PHASE = Phase(index=0, resolution=8, fading=False, start=0, end=1000, batch=8, lr=0.002, gamma=1.0)


def networks(codes=CODES, labels=0, **options):
    torch.manual_seed(0)
    G = Generator(8, codes, latent_dim=16, labels=labels, mapping_lr=0.5, **TINY, **options)
    D = Discriminator(8, codes, labels=labels, **TINY)
    with torch.no_grad():  # away from the zeros that some parameters start at
        for parameter in [*G.parameters(), *D.parameters()]:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return G, D


def reals(n=8, seed=0):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


def d_step(G, D, *, n=8, settings=LossSettings(), r1_weight=1.0, fade=1.0, seed=1, real=None, label=None):  # noqa: B008
    """One pass of D's half: its gradients by name, and the stats."""
    D.requires_grad_(True)
    D.zero_grad()
    stats = StepStats()
    torch.manual_seed(seed)
    real = reals(n) if real is None else real
    discriminator_step(G, D, real, label, PHASE, fade, settings, r1_weight, stats)
    return gradients(D), stats


def g_step(G, D, *, n=8, settings=LossSettings(), fade=1.0, seed=1, label=None):  # noqa: B008
    D.requires_grad_(False)
    G.zero_grad()
    stats = StepStats()
    torch.manual_seed(seed)
    generator_step(G, D, n, label, torch.device("cpu"), PHASE, fade, settings, stats)
    return gradients(G), stats


def gradients(network):
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def same(one, two, **tolerance):
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], msg=lambda m, name=name: f"{name}: {m}", **tolerance)


def distance(one, two):
    """Of two gradients, as a share of the first's length."""
    total = sum(float(g.square().sum()) for g in one.values())
    return math.sqrt(sum(float((one[name] - two[name]).square().sum()) for name in one) / total)


def without_noise(G):
    """Zero strengths: per-pixel noise is drawn in an order that depends on the micro-batches."""
    for block in G.synthesis.blocks.values():
        for epilogue in (block.epilogue0, block.epilogue1):
            epilogue.noise_strength.data.zero_()


def part(found, name):
    return {key: g for key, g in found.items() if name in key}


def norms(found, name):
    return {key: float(g.norm()) for key, g in part(found, name).items()}


# ---- who learns from what: D's half --------------------------------------------------------------------


def test_in_ds_step_trunk_score_and_q_learn_and_g_does_not():
    G, D = networks()
    found, _ = d_step(G, D)
    unused = {name for name, _ in D.named_parameters() if name.startswith("trunk.from_rgb.4")}
    assert set(found) == {name for name, _ in D.named_parameters()} - unused
    assert all(float(g.norm()) > 0 for g in found.values())
    assert gradients(G) == {}


def test_at_beta_0_q_learns_nothing_from_the_adversarial_loss_and_from_r1():
    G, D = networks()
    found, _ = d_step(G, D, settings=LossSettings(beta=0.0), r1_weight=10.0)
    assert norms(found, "q_head") == {}
    assert all(norms(found, "score_head").values())
    assert all(norms(found, "trunk").values())


def test_what_q_learns_does_not_depend_on_r1_and_the_score_head_learns_nothing_from_information():
    G, D = networks()
    with_r1, _ = d_step(G, D, r1_weight=10.0)
    without, _ = d_step(G, D, r1_weight=0.0)
    adversarial, _ = d_step(G, D, settings=LossSettings(beta=0.0), r1_weight=0.0)
    same(part(with_r1, "q_head"), part(without, "q_head"))
    same(part(without, "score_head"), part(adversarial, "score_head"))
    trunk = "trunk.blocks.8.conv1.weight"
    assert (with_r1[trunk] - without[trunk]).norm() > 1e-4
    assert (without[trunk] - adversarial[trunk]).norm() > 1e-4


@pytest.mark.parametrize("fade", [1.0, 0.4])
def test_ds_gradient_is_that_of_the_mean_loss_with_half_gamma_r1_and_minus_beta_information(fade):
    G, D = networks()
    options = LossSettings(beta=0.7, beta_uniform=0.2)
    found, stats = d_step(G, D, settings=options, r1_weight=3.0, fade=fade)
    # Once more, written out.
    D.zero_grad()
    torch.manual_seed(1)
    z, c = G.sample_latents(8)
    fake = G(z, c, resolution=8, fade=fade).detach()
    real = reals().requires_grad_()
    on_real, on_fake = D(real, fade=fade), D(fake, fade=fade)
    (gradient,) = torch.autograd.grad(on_real.score.sum(), real, create_graph=True)
    r1 = gradient.square().sum() / 8
    nats = information(D.codes, on_fake.posterior, c).mean(0)
    adversarial = -on_fake.score.neg().sigmoid().log().mean() - on_real.score.sigmoid().log().mean()
    loss = adversarial + 3.0 / 2 * r1 - (nats * torch.tensor([0.7, 0.7, 0.2, 0.2])).sum()
    loss.backward()
    same(found, gradients(D), rtol=1e-4, atol=1e-5)
    assert float(stats.loss_d) / 8 == pytest.approx(loss.item(), rel=1e-4)
    assert float(stats.r1) / 8 == pytest.approx(r1.item(), rel=1e-4)
    assert stats.r1_images == 8
    assert float(stats.score_real) == pytest.approx(on_real.score.sum().item(), rel=1e-4)
    assert float(stats.score_fake) == pytest.approx(on_fake.score.sum().item(), rel=1e-4)


def test_reals_never_teach_q():
    """Q learns from fakes alone, whose codes are known: other reals, the same gradient."""
    G, D = networks()
    one, _ = d_step(G, D, real=reals(seed=0))
    two, _ = d_step(G, D, real=reals(seed=5))
    same(part(one, "q_head"), part(two, "q_head"))
    assert not torch.allclose(one["score_head.out.weight"], two["score_head.out.weight"])


def test_reals_teach_q_too_where_what_it_reads_from_them_has_a_weight():
    G, D = networks()
    plain, _ = d_step(G, D, r1_weight=0.0)
    found, _ = d_step(G, D, r1_weight=0.0, settings=LossSettings(beta_real=0.3))
    D.zero_grad()
    posterior = D(reals()).posterior
    agreed_information(D.codes, posterior, posterior).sum().backward()
    extra = gradients(D)
    assert extra.keys() == {name for name in plain if "score_head" not in name}
    expected = {name: g - 0.3 * extra.get(name, 0.0) for name, g in plain.items()}
    same(found, expected, rtol=1e-4, atol=1e-5)


def test_with_views_q_is_taught_to_say_the_same_of_two_views_of_a_real_image():
    _, D = networks()
    torch.manual_seed(0)
    one, two = (D.posterior(random_view(reals(), 0.5)) for _ in range(2))
    expected = agreed_information(D.codes, one, two)
    torch.manual_seed(0)
    torch.testing.assert_close(read_reals(D, reals(), D(reals()), 1.0, 0.5), expected)
    assert not torch.allclose(expected, agreed_information(D.codes, one, one))


def test_a_step_without_r1_leaves_it_out_of_the_statistics():
    _, stats = d_step(*networks(), r1_weight=0.0)
    assert (stats.r1, stats.r1_images) == (0.0, 0)


# ---- who learns from what: G's half --------------------------------------------------------------------


def test_in_gs_step_every_active_part_of_g_learns_and_d_and_q_do_not():
    G, D = networks()
    found, _ = g_step(G, D)
    unused = {name for name, _ in G.named_parameters() if "to_rgb.4" in name}
    assert set(found) == {name for name, _ in G.named_parameters()} - unused
    assert all(float(g.norm()) > 0 for g in found.values())
    assert gradients(D) == {}


def test_g_learns_from_information_too():
    G, D = networks()
    without, _ = g_step(G, D, settings=LossSettings(beta=0.0))
    with_it, _ = g_step(G, D, settings=LossSettings(beta=1.0))
    assert all((with_it[name] - without[name]).norm() > 0 for name in with_it)


@pytest.mark.parametrize("fade", [1.0, 0.4])
def test_gs_gradient_is_that_of_the_non_saturating_loss_minus_beta_information(fade):
    G, D = networks()
    found, stats = g_step(G, D, settings=LossSettings(beta=0.7, beta_uniform=0.2), fade=fade)
    G.zero_grad()
    torch.manual_seed(1)
    z, c = G.sample_latents(8)
    judged = D(G(z, c, resolution=8, fade=fade), fade=fade)
    nats = information(D.codes, judged.posterior, c).mean(0)
    loss = -judged.score.sigmoid().log().mean() - (nats * torch.tensor([0.7, 0.7, 0.2, 0.2])).sum()
    loss.backward()
    same(found, gradients(G), rtol=1e-4, atol=1e-5)
    assert float(stats.loss_g) / 8 == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(stats.information / 8, nats.detach(), rtol=1e-4, atol=1e-5)


def test_information_is_reported_unweighted_also_at_beta_0():
    _, one = g_step(*networks(), settings=LossSettings(beta=0.0))
    _, two = g_step(*networks(), settings=LossSettings(beta=5.0))
    torch.testing.assert_close(one.information, two.information)


def test_the_mean_of_w_follows_the_batch_in_gs_step_only():
    G, D = networks()
    start = G.mapping.w_avg.clone()
    d_step(G, D)
    assert torch.equal(G.mapping.w_avg, start)
    torch.manual_seed(1)
    z, c = G.sample_latents(8)
    expected = start * 0.995 + G.map(z, c).mean(0) * 0.005
    g_step(G, D)
    torch.testing.assert_close(G.mapping.w_avg, expected)


# ---- what information may do to D's trunk, and to G ---------------------------------------------------


@pytest.mark.parametrize("views", [0.0, 1.0])
def test_the_trunk_learns_from_its_share_of_the_information_and_q_and_g_from_all_of_it(views):
    G, D = networks()

    def options(share, beta=1.0):
        return LossSettings(beta=beta, beta_real=beta, views=views, trunk_share=share)

    all_of_it, half, none = (d_step(G, D, settings=options(share))[0] for share in (1.0, 0.5, 0.0))
    judged_only, _ = d_step(G, D, settings=options(1.0, beta=0.0))
    same(part(none, "trunk"), part(judged_only, "trunk"))
    assert distance(part(all_of_it, "trunk"), part(none, "trunk")) > 0.01
    middle = {name: (all_of_it[name] + none[name]) / 2 for name in part(all_of_it, "trunk")}
    same(part(half, "trunk"), middle, rtol=1e-4, atol=1e-6)
    for name in ("q_head", "score_head"):
        assert part(none, name)
        same(part(none, name), part(all_of_it, name))
    same(g_step(G, D, settings=options(0.0))[0], g_step(G, D, settings=options(1.0))[0])


@given(st.floats(0.01, 100.0), st.floats(0.0, 100.0), st.integers(0, 2**31))
def test_the_second_loss_is_given_at_most_clip_times_the_gradient_of_the_first(clip, size, seed):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 3, 4, 4, generator=draw).double().requires_grad_()
    first, second = torch.randn(2, 2, 3, 4, 4, generator=draw).double()
    second = second * size
    got = image_gradient((images * first).sum(), (images * second).sum(), images, clip)
    length = min(float(second.norm()), clip * float(first.norm()))
    torch.testing.assert_close(got, first + second * (length / max(float(second.norm()), 1e-300)))
    unlimited = image_gradient((images * first).sum(), (images * second).sum(), images, 0.0)
    torch.testing.assert_close(unlimited, first + second)


def test_clipped_information_reaches_g_shorter_and_clipped_to_nothing_not_at_all():
    G, D = networks()
    unlimited, before = g_step(G, D, settings=LossSettings(beta=100.0))
    never, _ = g_step(G, D, settings=LossSettings(beta=100.0, information_clip=1e9))
    hardly, after = g_step(G, D, settings=LossSettings(beta=100.0, information_clip=1e-9))
    adversarial, _ = g_step(G, D, settings=LossSettings(beta=0.0))
    assert distance(unlimited, never) < 1e-5
    assert distance(adversarial, hardly) < 1e-5
    assert distance(unlimited, adversarial) > 0.5
    torch.testing.assert_close(after.information, before.information)
    same(g_step(G, D, settings=LossSettings(beta=0.0, information_clip=1.0))[0], adversarial)


def test_information_is_clipped_within_each_micro_batch(monkeypatch):
    G, D = networks()
    found = []

    def measured(adversarial, informative, images, clip):
        (first,) = torch.autograd.grad(adversarial, images, retain_graph=True)
        both = image_gradient(adversarial, informative, images, clip)
        found.append((len(images), float((both - first).norm() / first.norm())))
        return both

    monkeypatch.setattr(module, "image_gradient", measured)
    g_step(G, D, settings=LossSettings(beta=100.0, information_clip=0.25, micro_batch=4))
    assert [size for size, _ in found] == [4, 4]
    assert [share for _, share in found] == pytest.approx([0.25, 0.25], rel=1e-4)


# ---- labels, views, margins, shared codes --------------------------------------------------------------


def test_with_labels_both_halves_score_the_logit_of_the_real_images_label():
    G, D = networks(labels=3)
    label = torch.tensor([2, 2, 2, 2, 0, 0, 0, 2])
    found, _ = d_step(G, D, label=label)
    rows = found["score_head.out.weight"].norm(dim=1)
    assert rows[1] == 0
    assert (rows[[0, 2]] > 0).all()
    found, _ = g_step(G, D, label=label)
    rows = found["latent.label_embedding"].norm(dim=1)
    assert rows[1] == 0
    assert (rows[[0, 2]] > 0).all()


def test_with_views_the_discrete_codes_are_read_from_a_random_view_and_the_uniform_ones_from_the_image():
    G, D = networks()
    torch.manual_seed(0)
    z, c = G.sample_latents(8)
    fake = G(z, c)
    judged = D(fake)
    torch.manual_seed(3)
    nats = module.read_information(D, fake, judged, c, 1.0, views=1.0)
    torch.manual_seed(3)
    seen = information(D.codes, D(random_view(fake, 1.0)).posterior, c)
    plain = information(D.codes, judged.posterior, c)
    torch.testing.assert_close(nats[:, :2], seen[:, :2])
    torch.testing.assert_close(nats[:, 2:], plain[:, 2:])
    assert not torch.allclose(seen[:, 2:], plain[:, 2:])


def test_without_views_nothing_random_is_drawn_for_reading():
    G, D = networks()
    fake, c = G(*(latents := G.sample_latents(4))), latents[1]
    state = torch.get_rng_state()
    module.read_information(D, fake, D(fake), c, 1.0, views=0.0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_margin_caps_what_a_discrete_code_can_earn_sample_by_sample_and_leaves_uniform_ones():
    _, D = networks()
    nats = torch.tensor([[2.0, 2.0, 2.0, 2.0], [0.1, -3.0, 0.1, 0.1]])
    capped = enough(nats, D, 0.2)
    expected = [[math.log(3) - 0.2, math.log(2) - 0.2, 2.0, 2.0], [0.1, -3.0, 0.1, 0.1]]
    torch.testing.assert_close(capped, torch.tensor(expected))
    assert enough(nats, D, 0.0) is nats


def test_codes_that_are_certain_enough_give_g_no_gradient_but_still_teach_q():
    G, D = networks("bern:1")
    everything, nothing = LossSettings(beta=1.0), LossSettings(beta=1.0, margin=1e6)
    g_all, _ = g_step(G, D, settings=everything)
    g_none, stats = g_step(G, D, settings=nothing)
    g_adversarial, unweighted = g_step(G, D, settings=LossSettings(beta=0.0))
    same(g_none, g_adversarial)
    assert distance(g_all, g_none) > 0.01
    same(d_step(G, D, settings=everything)[0], d_step(G, D, settings=nothing)[0])
    torch.testing.assert_close(stats.information, unweighted.information)


@given(st.integers(1, 6), st.integers(0, 2**31))
def test_shared_codes_make_each_minibatch_stddev_group_agree_on_its_discrete_codes(groups, seed):
    _, D = networks()
    n = 4 * groups
    c = D.codes.sample(n, generator=torch.Generator().manual_seed(seed))
    shared = share_codes(D, c, True)
    for i in range(n):
        mates = [j for j in range(n) if j % groups == i % groups]
        assert (shared[mates, :2] == shared[i, :2]).all()
        assert len(mates) == D.score_head.group
    assert torch.equal(shared[:groups], c[:groups])
    assert torch.equal(shared[:, 2:], c[:, 2:])
    assert torch.equal(share_codes(D, c, False), c)


@pytest.mark.parametrize("codes", ["none", "unif:2", "cat:3", CODES])
def test_a_step_with_shared_codes_runs_whatever_the_codes_are(codes):
    G, D = networks(codes)
    options = LossSettings(share_codes=True)
    d_step(G, D, settings=options)
    found, stats = g_step(G, D, settings=options)
    assert all(g.isfinite().all() for g in found.values())
    assert stats.information.shape == (len(D.codes),)


# ---- micro-batches -------------------------------------------------------------------------------------


def test_micro_batches_cover_the_batch_in_order():
    for n in range(1, 12):
        for size in (None, *range(1, 14)):
            parts = list(micro_batches(n, size))
            assert [i for part in parts for i in range(n)[part]] == list(range(n))
            assert max(len(range(n)[part]) for part in parts) <= (size or n)


@pytest.mark.parametrize("size", [4, 3, 1])
def test_micro_batches_give_ds_gradient_of_the_whole_batch_where_minibatch_stddev_is_off(size):
    G, D = networks()
    without_noise(G)
    D.score_head.group = 1  # each image is its own group: nothing is shared between images
    whole, one = d_step(G, D)
    parts, two = d_step(G, D, settings=LossSettings(micro_batch=size))
    assert whole.keys() == parts.keys()
    assert distance(whole, parts) < 1e-5
    for name in ("loss_d", "r1", "score_real", "score_fake", "r1_images"):
        assert float(getattr(two, name)) == pytest.approx(float(getattr(one, name)), rel=1e-5, abs=1e-5)


def test_minibatch_stddev_sees_the_micro_batch_only_so_that_ds_gradient_differs():
    G, D = networks()
    without_noise(G)
    assert distance(d_step(G, D)[0], d_step(G, D, settings=LossSettings(micro_batch=4))[0]) > 1e-3


@pytest.mark.parametrize("size", [4, 3, 1])
def test_micro_batches_give_gs_gradient_of_the_whole_batch_where_minibatch_stddev_is_off(size):
    G, D = networks()
    without_noise(G)
    D.score_head.group = 1
    found = [g_step(G, D, settings=LossSettings(micro_batch=s)) for s in (None, size)]
    # A strength's gradient is made of the noise drawn.
    whole, parts = ({k: v for k, v in g.items() if "noise_strength" not in k} for g, _ in found)
    assert distance(whole, parts) < 1e-5
    (_, one), (_, two) = found
    assert float(two.loss_g) == pytest.approx(float(one.loss_g), rel=1e-5)
    torch.testing.assert_close(two.information, one.information, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [4, 3, 1])
def test_the_mean_of_w_moves_once_a_step_towards_the_mean_of_the_whole_batch_whatever_the_micro_batch(size):
    averages = []
    for micro_batch in (None, size):
        G, D = networks()
        g_step(G, D, settings=LossSettings(micro_batch=micro_batch))
        averages.append(G.mapping.w_avg)
    torch.testing.assert_close(averages[1], averages[0], rtol=1e-5, atol=1e-7)


# ---- the whole step ------------------------------------------------------------------------------------


def state(codes=CODES, **options):
    values = {
        "data": "x", "data_digest": "", "resolution": 16, "codes": codes, "latent_dim": 16, "kimg": 0.4,
        "stable_kimg": 0.1, "fade_kimg": 0.1, "batch": 8, "lr": {8: 0.002, 16: 0.004}, "mapping_layers": 2,
        **TINY,
    }  # fmt: skip
    options = TrainingOptions(**{**values, **options})
    return TrainingState.start(options, torch.device("cpu")), options


def full_step(s, *, step=0, decay=0.5, settings=LossSettings(), phase=PHASE, real=None, label=None):  # noqa: B008
    torch.manual_seed(4)
    real = reals() if real is None else real
    return train_step(
        s.G, s.D, s.G_ema, s.g_optimizer, s.d_optimizer, real, label, phase, 1.0, step, decay, settings
    )


def weights(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def moved(before, network):
    return {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}


def test_a_step_moves_both_networks_and_gs_half_leaves_ds_gradients_as_they_were(monkeypatch):
    s, _ = state()
    seen = []
    original = module.generator_step

    def watched(G, D, *args):
        seen.append((weights(D), gradients(D)))
        assert not any(p.requires_grad for p in D.parameters())
        original(G, D, *args)
        seen.append((weights(D), gradients(D)))

    monkeypatch.setattr(module, "generator_step", watched)
    before_d, before_g = weights(s.D), weights(s.G)
    stats = full_step(s)
    same(seen[0][0], seen[1][0], rtol=0, atol=0)
    same(seen[0][1], seen[1][1], rtol=0, atol=0)
    heads = {"q_head.out.weight", "score_head.out.weight"}
    assert heads | {"trunk.blocks.8.conv0.weight"} <= moved(before_d, s.D)
    assert {"synthesis.blocks.4.constant", "mapping.layers.0.weight"} <= moved(before_g, s.G)
    assert not any("16" in name.split(".") for name in moved(before_d, s.D) | moved(before_g, s.G))
    assert (stats.images, stats.skipped) == (8, 0)


def test_at_beta_0_the_step_leaves_q_where_it_was():
    s, _ = state()
    before = weights(s.D)
    full_step(s, settings=LossSettings(beta=0.0))
    assert not any("q_head" in name for name in moved(before, s.D))


@given(st.integers(1, 5))
@settings(max_examples=5)
def test_lazy_r1_is_taken_every_so_many_steps_and_weighs_as_much_in_all(interval):
    s, _ = state()
    seen = []
    original = module.discriminator_step

    def watched(G, D, real, label, phase, fade, options, r1_weight, stats):
        seen.append(r1_weight)

    module.discriminator_step, apply = watched, module.apply_gradients
    module.apply_gradients = lambda *args: True
    try:
        for step in range(2 * interval):
            full_step(s, step=step, settings=LossSettings(r1_interval=interval))
    finally:
        module.discriminator_step, module.apply_gradients = original, apply
    assert seen == ([interval * PHASE.gamma] + [0.0] * (interval - 1)) * 2


def test_the_average_moves_by_one_minus_decay_and_buffers_are_copied():
    G, _ = networks()
    ema = copy.deepcopy(G)
    with torch.no_grad():
        for p in G.parameters():
            p.add_(torch.randn_like(p))
    G.mapping.w_avg.normal_()
    G.set_growth(8, 0.3)
    before = weights(ema)
    update_ema(ema, G, 0.9)
    for name, p in ema.named_parameters():
        expected = before[name] * 0.9 + G.get_parameter(name) * 0.1
        torch.testing.assert_close(p, expected, rtol=1e-5, atol=1e-6)
    for name, buffer in ema.named_buffers():
        assert torch.equal(buffer, G.get_buffer(name)), name


def test_an_average_of_decay_0_is_the_network_itself():
    G, _ = networks()
    ema = networks()[0]
    with torch.no_grad():
        for p in G.parameters():
            p.add_(1.0)
    update_ema(ema, G, 0.0)
    assert all(torch.equal(p, G.get_parameter(name)) for name, p in ema.named_parameters())


@given(st.floats(0, 1), st.integers(0, 99))
def test_faded_reals_move_towards_their_own_box_downsampled_copies(fade, seed):
    real = np.random.default_rng(seed).normal(size=(2, 3, 8, 8))
    coarse = real.reshape(2, 3, 4, 2, 4, 2).mean((3, 5)).repeat(2, 2).repeat(2, 3)
    got = fade_reals(torch.tensor(real), fade).numpy()
    np.testing.assert_allclose(got, coarse + (real - coarse) * fade, rtol=1e-9, atol=1e-12)


def test_the_step_fades_the_reals_that_d_sees(monkeypatch):
    s, _ = state()
    seen = []
    monkeypatch.setattr(module, "discriminator_step", lambda G, D, real, *rest: seen.append(real) or None)
    monkeypatch.setattr(module, "apply_gradients", lambda *args: True)
    real = reals()
    torch.manual_seed(0)
    optimizers = s.g_optimizer, s.d_optimizer
    train_step(s.G, s.D, s.G_ema, *optimizers, real, None, PHASE, 0.25, 0, 0.5, LossSettings())
    torch.testing.assert_close(seen[0], fade_reals(real, 0.25))
    assert (int(s.G.grown_resolution), float(s.G.grown_fade)) == (8, 0.25)
    assert (int(s.G_ema.grown_resolution), float(s.G_ema.grown_fade)) == (8, 0.25)


def test_statistics_add_up():
    total = StepStats()
    for i in range(3):
        total.add(StepStats(8, 1.0, 2.0, 3.0, 8 if i == 0 else 0, 4.0, 5.0, torch.tensor([1.0, i]), i))
    assert (total.images, total.loss_g, total.loss_d, total.r1, total.r1_images) == (24, 3, 6, 9, 8)
    assert (total.score_real, total.score_fake, total.skipped) == (12, 15, 3)
    assert total.information.tolist() == [3, 3]


# ---- gradients that are not finite ---------------------------------------------------------------------


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_skips_the_update_and_leaves_weights_and_moments(poison):
    G, _ = networks()
    optimizer = torch.optim.Adam(G.parameters(), 0.1)
    for p in G.parameters():
        p.grad = torch.ones_like(p)
    assert apply_gradients(G, optimizer)
    before, moments = weights(G), copy.deepcopy(optimizer.state_dict()["state"])
    for p in G.parameters():
        p.grad = torch.ones_like(p)
    next(iter(G.parameters())).grad.view(-1)[3] = poison
    assert not apply_gradients(G, optimizer)
    assert moved(before, G) == set()
    for key, value in optimizer.state_dict()["state"].items():
        assert torch.equal(value["exp_avg_sq"], moments[key]["exp_avg_sq"])
        assert value["step"] == moments[key]["step"]


def test_a_nan_image_skips_ds_update_and_is_counted_while_g_goes_on():
    s, _ = state()
    before_d, before_g = weights(s.D), weights(s.G)
    real = reals()
    real[3, 0, 0, 0] = float("nan")
    stats = full_step(s, real=real)
    assert stats.skipped == 1
    assert moved(before_d, s.D) == set()
    assert moved(before_g, s.G)
    assert all(p.isfinite().all() for p in [*s.G.parameters(), *s.G_ema.parameters()])


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_nan_in_gs_loss_skips_gs_update_and_leaves_its_average_as_it_was(monkeypatch, clip):
    s, _ = state()
    before_g, before_ema, before_d = weights(s.G), weights(s.G_ema), weights(s.D)
    monkeypatch.setattr(module, "generator_logistic", lambda score: score * float("nan"))
    stats = full_step(s, settings=LossSettings(information_clip=clip))
    assert stats.skipped == 1
    assert moved(before_g, s.G) == set()
    assert moved(before_ema, s.G_ema) == set()
    assert moved(before_d, s.D)
    assert s.G.mapping.w_avg.isfinite().all()


def test_fifty_skipped_steps_in_a_row_end_the_run_with_advice_and_a_sound_step_starts_the_count_anew():
    s, _ = state()
    for _ in range(MAX_SKIPPED_IN_A_ROW - 1):
        check_finite(s, StepStats(skipped=2))
    check_finite(s, StepStats(skipped=0))
    assert (s.skipped, s.skipped_in_a_row) == (2 * (MAX_SKIPPED_IN_A_ROW - 1), 0)
    for _ in range(MAX_SKIPPED_IN_A_ROW - 1):
        check_finite(s, StepStats(skipped=1))
    with pytest.raises(TrainingError, match=r"50 steps in a row.*--lr"):
        check_finite(s, StepStats(skipped=1))


# ---- optimisers ----------------------------------------------------------------------------------------


def test_the_optimiser_is_adam_without_first_moment_and_with_beta2_of_0_99():
    G, _ = networks()
    (group,) = make_optimizer(G, PHASE).param_groups
    assert group["lr"] == PHASE.lr
    assert group["betas"] == (0.0, 0.99)
    assert group["eps"] == 1e-8
    assert group["weight_decay"] == 0
    assert len(group["params"]) == len(list(G.parameters()))


def test_entering_a_phase_resets_both_optimisers_to_its_learning_rate_and_staying_keeps_them():
    s, options = state()
    phases = options.growth().phases()
    assert [p.lr for p in phases] == [0.002, 0.004, 0.004]
    full_step(s, phase=phases[0])
    kept = s.g_optimizer, s.d_optimizer
    assert all(o.state for o in kept)
    s.enter(phases[0])
    assert (s.g_optimizer, s.d_optimizer) == kept
    for phase in phases[1:]:
        s.enter(phase)
        for optimizer, network in ((s.g_optimizer, s.G), (s.d_optimizer, s.D)):
            assert not optimizer.state
            assert optimizer.param_groups[0]["lr"] == 0.004
            held = {id(p) for p in optimizer.param_groups[0]["params"]}
            assert held == {id(p) for p in network.parameters()}
        full_step(s, phase=phases[0])
        assert s.phase == phase.index


def test_codes_of_the_family_all_make_a_step():
    for codes in ("none", "cat:3,bern:5", "unif:1"):
        spec = CodeSpec.parse(codes)
        s, _ = state(codes)
        stats = full_step(s)
        assert stats.information.shape == (len(spec),)
        assert stats.skipped == 0
