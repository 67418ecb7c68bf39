"""Facts about the generator: its size, its start, what enters where, fades and errors."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infostylegan import CodeError, CodeSpec, Generator
from infostylegan.networks.layers import nearest_upsample

CODES = "cat:3,bern:1,unif:1"
TINY = {"latent_dim": 16, "fmap_base": 64, "fmap_max": 8}


def build(resolution=16, codes=CODES, seed=0, **options):
    torch.manual_seed(seed)
    return Generator(resolution, codes, **{**TINY, **options})


def latents(G, n=4, seed=0):
    return G.sample_latents(n, generator=torch.Generator().manual_seed(seed))


def awaken(G):
    """Give every parameter something random, so that nothing is hidden by a zero."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return G


def size(network):
    return sum(p.numel() for p in network.parameters())


# ---- sizes ---------------------------------------------------------------------------------------------


def test_the_generator_at_1024_has_the_published_26219627_parameters():
    assert size(Generator(1024, "none")) == 26_219_627


@pytest.mark.parametrize("codes", ["none", "cat:3,bern:7,unif:10"])
def test_the_generator_at_512_has_26179768_parameters_with_the_codes_inside_its_512_latent_numbers(codes):
    G = Generator(512, codes)
    assert size(G) == 26_179_768
    assert G.noise_dim + G.codes.width == 512


def test_the_direct_generator_at_1024_has_progans_published_23079115_parameters():
    assert size(Generator(1024, "none", styles=False)) == 23_079_115


def test_there_are_two_style_layers_for_each_resolution():
    assert Generator(512, "none", fmap_base=64, fmap_max=4, latent_dim=8).synthesis.num_layers == 16
    assert build(16).synthesis.num_layers == 6


@pytest.mark.parametrize("styles", [True, False])
@pytest.mark.parametrize("resolution", [4, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_the_size_asked_for_at_every_level_of_growth(resolution, styles, channels):
    G = build(styles=styles, channels=channels)
    image = G(*latents(G, 3), resolution=resolution)
    assert image.shape == (3, channels, resolution, resolution)
    assert image.isfinite().all()


@given(st.integers(1, 30))
def test_noise_fills_what_the_codes_leave_of_the_latent(spare):
    spec = CodeSpec.parse(CODES)
    G = build(latent_dim=spec.width + spare)
    assert G.noise_dim == spare
    assert G.mapping.layers[0].weight.shape == (spec.width + spare, spec.width + spare)


def test_noise_dim_can_be_chosen():
    G = build(noise_dim=40)
    assert G.noise_dim == 40
    assert G.map(*latents(G)).shape == (4, 16)


# ---- how it starts -------------------------------------------------------------------------------------


def test_the_learned_constant_starts_at_ones_and_noise_strengths_biases_and_mean_w_at_zero():
    G = build()
    assert (G.synthesis.blocks["4"].constant == 1).all()
    assert G.synthesis.blocks["4"].constant.shape == (1, 8, 4, 4)
    zero = [p for name, p in G.named_parameters() if name.endswith((".noise_strength", ".bias"))]
    assert len(zero) == 6 + 6 + 6 + 3 + 8  # strengths, biases, affines, toRGB, mapping
    assert all((p == 0).all() for p in zero)
    assert (G.mapping.w_avg == 0).all()


def test_untrained_noise_changes_nothing_and_a_strength_makes_it_matter():
    G = build()
    z, c = latents(G)
    assert torch.equal(G(z, c), G(z, c, noise="none"))
    assert torch.equal(G(z, c), G(z, c, noise="const"))
    G.synthesis.blocks["8"].epilogue1.noise_strength.data[2] = 0.5
    assert not torch.allclose(G(z, c), G(z, c, noise="none"))
    assert not torch.allclose(G(z, c), G(z, c))


def test_every_layer_has_const_noise_of_its_own_size():
    G = build()
    epilogues = [e for b in G.synthesis.blocks.values() for e in (b.epilogue0, b.epilogue1)]
    shapes = [list(e.const_noise.shape) for e in epilogues]
    assert shapes == [[1, 1, r, r] for r in (4, 4, 8, 8, 16, 16)]
    assert not torch.equal(epilogues[2].const_noise, epilogues[3].const_noise)
    assert not any("const_noise" in name for name in G.state_dict())  # follows from the layer's number


def test_const_noise_gives_the_same_image_at_every_call_and_in_every_copy():
    G = awaken(build())
    z, c = latents(G)
    torch.manual_seed(0)
    one = G(z, c, noise="const")
    torch.manual_seed(1)
    assert torch.equal(G(z, c, noise="const"), one)
    copy = build(seed=5)
    copy.load_state_dict(G.state_dict())
    assert torch.equal(copy(z, c, noise="const"), one)


def test_noise_differs_between_the_images_of_a_batch_but_is_shared_by_the_channels_of_a_layer():
    G = build()
    epilogue = G.synthesis.blocks["4"].epilogue0
    epilogue.noise_strength.data.fill_(1.0)
    epilogue.affine.weight.data.zero_()
    x = torch.zeros(3, 8, 4, 4)
    y = epilogue(x, torch.zeros(3, 16), "random")
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert not torch.allclose(y[0], y[1])


def test_a_zero_style_leaves_the_normalised_features_and_they_have_mean_0_and_variance_1():
    G = build()
    epilogue = G.synthesis.blocks["8"].epilogue0
    epilogue.affine.weight.data.zero_()
    torch.manual_seed(0)
    x = torch.randn(2, 8, 8, 8) * 7 + 3
    y = epilogue(x, torch.randn(2, 16), "none")
    torch.testing.assert_close(y.mean((2, 3)), torch.zeros(2, 8), rtol=0, atol=1e-6)
    torch.testing.assert_close(y.var((2, 3), correction=0), torch.ones(2, 8), rtol=1e-5, atol=0)


def test_a_style_scales_by_one_plus_its_first_half_and_shifts_by_its_second():
    epilogue = build().synthesis.blocks["8"].epilogue0
    epilogue.affine.weight.data.zero_()
    torch.manual_seed(0)
    x, w = torch.randn(2, 8, 8, 8), torch.randn(2, 16)
    plain = epilogue(x, w, "none")
    style = torch.randn(16)
    epilogue.affine.bias.data.copy_(style)
    expected = plain * (1 + style[:8].view(1, 8, 1, 1)) + style[8:].view(1, 8, 1, 1)
    torch.testing.assert_close(epilogue(x, w, "none"), expected, rtol=1e-5, atol=1e-6)


# ---- z' and c ------------------------------------------------------------------------------------------


@given(st.integers(0, 999), st.floats(0.01, 100))
def test_changing_the_noise_leaves_the_codes_part_of_the_input_unchanged(seed, factor):
    G = build()
    z, c = latents(G, seed=seed)
    other = latents(G, seed=seed + 1)[0] * factor
    one, two = G.latent(z, c, None), G.latent(other, c, None)
    codes = slice(G.noise_dim, None)
    assert torch.equal(one[:, codes], two[:, codes])
    assert torch.equal(one[:, codes], G.codes.encode(c))
    assert not torch.equal(one, two)


def test_the_length_of_the_noise_is_lost_and_its_direction_kept():
    G = build()
    z, c = latents(G)
    torch.testing.assert_close(G.latent(z * 37, c, None), G.latent(z, c, None), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(G.latent(z, c, None)[:, : G.noise_dim].square().mean(1), torch.ones(4))


def test_in_plain_mode_the_length_of_the_noise_changes_the_codes_part_of_the_input():
    G = build(code_input="plain")
    z, c = latents(G)
    one, two = G.latent(z, c, None), G.latent(z * 3, c, None)
    assert (one[:, G.noise_dim :] != two[:, G.noise_dim :]).any(dim=1).all()
    torch.testing.assert_close(one.square().mean(1), torch.ones(4))


def test_the_scale_of_the_codes_multiplies_their_input_alone():
    whole, fifth = build(), build(code_scale=0.2)
    z, c = latents(whole)
    one, two = whole.latent(z, c, None), fifth.latent(z, c, None)
    split = whole.noise_dim
    assert torch.equal(one[:, :split], two[:, :split])
    torch.testing.assert_close(two[:, split:], one[:, split:] * 0.2)


@pytest.mark.parametrize("styles", [True, False])
def test_each_code_and_the_noise_change_the_image(styles):
    G = build(styles=styles, mapping_lr=1.0)
    z, c = latents(G, 1)
    image = G(z, c, noise="none")
    for i, value in enumerate([(c[0, 0] + 1) % 3, 1 - c[0, 1], -c[0, 2]]):
        other = c.clone()
        other[0, i] = value
        assert (G(z, other, noise="none") - image).abs().max() > 1e-4
    assert (G(-z, c, noise="none") - image).abs().max() > 1e-4


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    for styles in (True, False):
        G = awaken(build(styles=styles))
        z, c = latents(G, 6)
        together = G(z, c, noise="const")
        alone = torch.cat([G(z[i : i + 1], c[i : i + 1], noise="const") for i in range(6)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_without_codes_it_is_a_plain_stylegan():
    G = build(codes="none")
    assert G.noise_dim == 16
    assert G(torch.randn(2, 16), torch.zeros(2, 0)).shape == (2, 3, 16, 16)


def test_labels_change_the_image_and_each_label_has_a_vector_of_its_own():
    G = build(labels=3, mapping_lr=1.0)
    z, c = (t.expand(3, -1) for t in latents(G, 1))
    images = G(z, c, torch.tensor([0, 1, 2]), noise="none")
    assert (images[0] - images[1]).abs().max() > 1e-3
    assert (images[1] - images[2]).abs().max() > 1e-3


# ---- fades and growth ----------------------------------------------------------------------------------


@pytest.mark.parametrize("styles", [True, False])
@pytest.mark.parametrize("resolution", [8, 16])
def test_a_fade_starts_at_the_upsampled_lower_image_ends_at_the_plain_one_and_is_linear(resolution, styles):
    G = awaken(build(styles=styles))
    z, c = latents(G)

    def image(fade, size=resolution):
        return G(z, c, resolution=size, fade=fade, noise="const")

    old, new = nearest_upsample(image(1.0, resolution // 2)), image(1.0)
    torch.testing.assert_close(image(0.0), old, rtol=1e-5, atol=1e-6)
    assert (old - new).abs().max() > 0.01
    for fade in (0.25, 0.5, 0.9):
        torch.testing.assert_close(image(fade), old + (new - old) * fade, rtol=1e-5, atol=1e-5)


def test_new_layers_have_no_gradient_at_the_start_of_their_fade_and_old_ones_have():
    G = build()
    G(*latents(G), resolution=16, fade=0.0).square().mean().backward()
    assert (G.synthesis.to_rgb["16"].conv.weight.grad == 0).all()
    assert (G.synthesis.blocks["16"].conv1.weight.grad == 0).all()
    assert G.synthesis.to_rgb["8"].conv.weight.grad.abs().max() > 0


def test_the_size_and_fade_that_growth_has_reached_are_the_default_and_travel_with_the_weights():
    G = awaken(build())
    z, c = latents(G)
    assert G(z, c).shape[-1] == 16
    G.set_growth(8, 0.25)
    expected = G(z, c, resolution=8, fade=0.25, noise="const")
    copy = build(seed=1)
    copy.load_state_dict(G.state_dict())
    assert torch.equal(copy(z, c, noise="const"), expected)


# ---- truncation ----------------------------------------------------------------------------------------


def test_at_psi_0_the_first_eight_layers_read_the_mean_of_w_so_that_small_images_are_all_alike():
    G = awaken(build())
    G.mapping.w_avg.normal_()
    images = G(*latents(G, 5), psi=0.0, truncation="global", noise="const")
    torch.testing.assert_close(images, images[:1].expand_as(images), rtol=1e-4, atol=1e-5)
    ws = G.mapping.w_avg.expand(1, 6, 16)
    expected = G.synthesis(ws, resolution=16, noise="const")
    torch.testing.assert_close(images[:1], expected, rtol=1e-4, atol=1e-5)


def test_layers_from_the_ninth_on_are_not_truncated():
    G = awaken(build(64))
    z, c = latents(G)
    images = G(z, c, psi=0.0, truncation="global", noise="const")
    assert (images - images[:1]).abs()[1:].amax((1, 2, 3)).min() > 1e-3
    small = G(z, c, psi=0.0, truncation="global", resolution=32, noise="const")
    torch.testing.assert_close(small, small[:1].expand_as(small), rtol=1e-4, atol=1e-5)


def test_the_mean_of_w_given_codes_is_that_of_many_random_z():
    G = awaken(build(codes="cat:3,unif:1", labels=2)).double().eval().requires_grad_(False)
    c = torch.tensor([[0.0, -0.5], [2.0, 1.0]]).double()
    label = torch.tensor([1, 0])
    z = torch.randn(50_000, G.noise_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    for row in range(2):
        one = slice(row, row + 1)
        w = G.map(z, c[one].expand(len(z), -1), label[one].expand(len(z)))
        error = (G.mean_w(c, label)[row] - w.mean(dim=0)).square().mean()
        spread = w.var(dim=0).mean()
        assert error < 1.5 * spread / len(G.noise_bank)


def test_the_mean_of_w_does_not_depend_on_who_else_is_in_the_batch_or_on_what_was_asked_before():
    G = awaken(build(labels=2)).eval().requires_grad_(False)
    _, c = latents(G, 40)
    label = torch.arange(40) % 2
    together = G.mean_w(c, label)
    for row in (3, 17):
        fresh = awaken(build(labels=2)).eval().requires_grad_(False)
        alone = fresh.mean_w(c[row : row + 1], label[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-6)
    assert torch.equal(G.mean_w(c, label), together)
    flipped = G.mean_w(c, 1 - label)
    assert (flipped - together).abs().amax(dim=1).min() > 1e-3


def test_the_mean_of_each_row_is_computed_once_until_a_weight_changes(monkeypatch):
    G = awaken(build()).eval().requires_grad_(False)
    asked = []
    compute = Generator._mean_w
    monkeypatch.setattr(Generator, "_mean_w", lambda self, c, y: asked.append(len(c)) or compute(self, c, y))
    _, c = latents(G, 5)
    first = G.mean_w(c[[0, 1, 0, 2]])
    G.mean_w(c[[2, 1]])
    G.mean_w(c)
    assert asked == [3, 2]
    assert torch.equal(first[0], first[2])
    with torch.no_grad():
        G.mapping.layers[0].weight.mul_(1.5)
    changed = G.mean_w(c[:3])
    assert asked == [3, 2, 3]
    assert (changed - first[[0, 1, 3]]).abs().max() > 1e-3
    G.double()
    assert G.mean_w(c.double()).dtype == torch.float64
    assert len(copy.deepcopy(G)._means.rows) == 0


def test_means_are_kept_for_so_many_rows_and_no_more():
    G = awaken(build(codes="unif:1")).eval().requires_grad_(False)
    G._means.limit = 10
    c = torch.linspace(-1, 1, 37).unsqueeze(1)
    every = G.mean_w(c)
    assert len(G._means.rows) == 10
    assert torch.equal(G.mean_w(c[-10:]), every[-10:])
    torch.testing.assert_close(G.mean_w(c), every, rtol=1e-5, atol=1e-6)


def test_while_it_may_learn_the_mean_of_w_is_made_anew_and_has_gradients():
    G = awaken(build())
    _, c = latents(G, 2)
    G.mean_w(c).sum().backward()
    assert G.mapping.layers[0].weight.grad.abs().max() > 0
    assert not G._means.rows


def test_at_psi_0_all_that_the_codes_do_to_w_is_left_and_nothing_that_z_does():
    G = awaken(build()).eval().requires_grad_(False)
    z, c = latents(G, 6)
    images = G(z, c[:1].expand(6, -1), psi=0.0, noise="const")
    torch.testing.assert_close(images, images[:1].expand_as(images), rtol=1e-4, atol=1e-5)
    others = G(z, c, psi=0.0, noise="const")
    assert (others - images)[1:].abs().amax((1, 2, 3)).min() > 1e-3
    half = G.synthesize(G.mean_w(c).lerp(G.map(z, c), 0.3), noise="const")
    torch.testing.assert_close(G(z, c, psi=0.3, noise="const"), half, rtol=1e-4, atol=1e-5)


def test_psi_may_be_a_tensor_and_one_without_codes_is_pulled_to_the_running_mean():
    G = awaken(build()).eval().requires_grad_(False)
    z, c = latents(G)
    for psi in (0.4, 1.0):
        by_tensor = G(z, c, psi=torch.tensor(psi), noise="const")
        torch.testing.assert_close(by_tensor, G(z, c, psi=psi, noise="const"), rtol=1e-4, atol=1e-5)
    plain = awaken(build(codes="none")).eval().requires_grad_(False)
    plain.mapping.w_avg.normal_()
    z, c = latents(plain)
    pulled = [plain(z, c, psi=0.4, truncation=t, noise="const") for t in ("codes", "global")]
    assert torch.equal(*pulled)


def test_an_unknown_truncation_and_the_mean_of_a_direct_generator_are_refused():
    with pytest.raises(ValueError, match="codes, global"):
        build()(*latents(build()), psi=0.5, truncation="local")
    with pytest.raises(ValueError, match="direct"):
        build(styles=False).mean_w(latents(build())[1])


def test_psi_1_is_no_truncation_and_a_direct_generator_has_none():
    G = awaken(build())
    G.mapping.w_avg.normal_()
    z, c = latents(G)
    assert torch.equal(G(z, c, psi=1.0, noise="const"), G(z, c, noise="const"))
    direct = build(styles=False)
    assert torch.equal(direct(z, c, psi=0.5), direct(z, c))


def test_the_mean_of_w_moves_by_half_a_percent_of_the_batchs_mean():
    G = build()
    G.mapping.w_avg.fill_(2.0)
    w = torch.randn(7, 16)
    G.mapping.update_average(w)
    torch.testing.assert_close(G.mapping.w_avg, 2.0 * 0.995 + w.mean(0) * 0.005)


# ---- types ---------------------------------------------------------------------------------------------


def test_the_network_can_be_cast_to_float64():
    G = build().double()
    z, c = latents(G)
    assert G(z.double(), c.double()).dtype == torch.float64


def test_bfloat16_convolutions_keep_images_and_weights_in_float32_and_nearly_the_same():
    G = awaken(build())
    z, c = latents(G)
    exact = G(z, c, noise="const")
    G.set_precision("bf16")
    rough = G(z, c, noise="const")
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).square().mean().sqrt() < 0.1 * exact.std()
    G.set_precision("fp32")
    assert torch.equal(G(z, c, noise="const"), exact)


# ---- configuration and errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"styles": False}, {"labels": 2}, {"channels": 1}, {"code_input": "plain"}, {"code_scale": 0.3},
     {"noise_dim": 5}, {"mapping_layers": 2, "mapping_lr": 0.3}, {"truncation_layers": 3}],
)  # fmt: skip
def test_a_generator_is_rebuilt_from_its_configuration(options):
    G = awaken(build(codes=CodeSpec.parse(CODES, uniform="gaussian", sigma_min=0.4), **options))
    copy = Generator.from_config(G.config)
    copy.load_state_dict(G.state_dict())
    z, c = latents(G)
    label = torch.tensor([0, 1, 1, 0]) if G.labels else None
    assert torch.equal(copy(z, c, label, 0.5, noise="const"), G(z, c, label, 0.5, noise="const"))
    assert copy.codes == G.codes


@pytest.mark.parametrize("shape", [(4,), (4, 10), (4, 12), (2, 2, 11)])
def test_noise_of_another_shape_is_refused_with_both_shapes(shape):
    G = build()
    with pytest.raises(ValueError) as caught:
        G(torch.zeros(shape), torch.zeros(4, 3))
    assert f"[N, {G.noise_dim}]" in str(caught.value)
    assert str(list(shape)) in str(caught.value)


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 5)])
def test_codes_of_another_shape_are_refused_with_both_shapes(shape):
    G = build()
    with pytest.raises(CodeError) as caught:
        G(torch.zeros(4, G.noise_dim), torch.zeros(shape))
    assert "[N, 3]" in str(caught.value)
    assert str(list(shape)) in str(caught.value)


def test_a_generator_with_labels_demands_them():
    G = build(labels=2)
    with pytest.raises(ValueError, match="2 labels: give label="):
        G(*latents(G))


@pytest.mark.parametrize("resolution", [2, 12, 32])
def test_a_size_outside_the_pyramid_is_refused_with_the_sizes_there_are(resolution):
    G = build()
    with pytest.raises(ValueError, match=r"4, 8, 16"):
        G(*latents(G), resolution=resolution)


def test_an_unknown_kind_of_noise_is_refused_with_the_choices():
    G = build()
    with pytest.raises(ValueError, match="random, const, none"):
        G(*latents(G), noise="fixed")


def test_an_unknown_kind_of_code_input_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="standard or plain"):
        build(code_input="raw")


@pytest.mark.parametrize("latent_dim", [4, 5])
def test_codes_that_leave_no_room_for_noise_are_refused_with_the_widths(latent_dim):
    with pytest.raises(CodeError, match=rf"5 wide .*latent of {latent_dim}"):
        build(latent_dim=latent_dim)
