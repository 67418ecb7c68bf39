"""The networks against a second implementation, in numpy and float64, written from the published description.

Nothing here is shared with the package but the names of the parameters.
"""

import math

import numpy as np
import pytest
import torch

from infostylegan import Discriminator, Generator
from infostylegan.networks.layers import Blur

CODES = "cat:3,bern:1,unif:2"
SMALL = {"fmap_base": 64, "fmap_max": 12}
SQRT2 = math.sqrt(2)


def in_float64(network):
    """The network in float64, with every parameter moved away from where it started (zeros, ones)."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    network.double()
    for module in network.modules():
        if isinstance(module, Blur):
            module.float()  # filters are float32; 1, 2 and 1 sixteenths are exact in it
    return network, {name: p.detach().numpy() for name, p in network.state_dict().items()}


# ---- the second implementation -------------------------------------------------------------------------


def conv(x, weight, gain=SQRT2):
    """Zero-padded correlation with a square kernel, equalised."""
    k = weight.shape[2]
    padded = np.pad(x, [(0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, weight * gain / math.sqrt(weight[0].size))


def dense(x, weight, bias, gain=SQRT2, multiplier=1.0):
    return x @ weight.T * (gain / math.sqrt(weight.shape[1]) * multiplier) + bias * multiplier


def blur(x):
    h, w = x.shape[2:]
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    return sum(weights[i, j] * padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3))


def lrelu(x, bias=None):
    if bias is not None:
        x = x + bias.reshape(1, -1, *[1] * (x.ndim - 2))
    return np.where(x > 0, x, 0.2 * x)


def up(x):
    return x.repeat(2, axis=2).repeat(2, axis=3)


def down(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))


def unit(x):
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-8)


def standardised(c):
    """Codes of CODES: the one-hot, the coin and the uniforms with mean 0 and variance 1."""
    one_hot = (np.eye(3)[c[:, 0].astype(int)] - 1 / 3) / (math.sqrt(2) / 3)
    return np.concatenate([one_hot, 2 * c[:, 1:2] - 1, c[:, 2:] * math.sqrt(3)], axis=1)


def plain(c):
    return np.concatenate([np.eye(3)[c[:, 0].astype(int)], c[:, 1:]], axis=1)


def mapping(x, p, layers, multiplier):
    for i in range(layers):
        x = lrelu(
            dense(x, p[f"mapping.layers.{i}.weight"], p[f"mapping.layers.{i}.bias"], multiplier=multiplier)
        )
    return x


def epilogue(x, ws, p, at, noise):
    x = x + noise * p[f"{at}.noise_strength"].reshape(1, -1, 1, 1)
    x = lrelu(x, p[f"{at}.bias"])
    x = (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-8)
    style = dense(ws, p[f"{at}.affine.weight"], p[f"{at}.affine.bias"], gain=1.0)
    s0, s1 = np.split(style[:, :, None, None], 2, axis=1)
    return x * (s0 + 1) + s1


def to_rgb(x, p, res):
    at = f"synthesis.to_rgb.{res}"
    return conv(x, p[f"{at}.conv.weight"], gain=1.0) + p[f"{at}.bias"].reshape(1, -1, 1, 1)


def styled(ws, p, resolution, fade, noises):
    """ws [N, layers, w_dim]."""
    x, layer, previous = None, 0, None
    for res in (4, 8, 16, 32):
        if res > resolution:
            break
        previous, at = x, f"synthesis.blocks.{res}"
        if res == 4:
            x = np.repeat(p[f"{at}.constant"], len(ws), axis=0)
        else:
            x = blur(conv(up(x), p[f"{at}.conv0.weight"]))
        x = epilogue(x, ws[:, layer], p, f"{at}.epilogue0", noises[layer])
        x = conv(x, p[f"{at}.conv1.weight"])
        x = epilogue(x, ws[:, layer + 1], p, f"{at}.epilogue1", noises[layer + 1])
        layer += 2
    image = to_rgb(x, p, resolution)
    return image * fade + up(to_rgb(previous, p, resolution // 2)) * (1 - fade) if fade < 1 else image


def direct(x, p, resolution, fade):
    previous = None
    for res in (4, 8, 16, 32):
        if res > resolution:
            break
        previous, at = x, f"synthesis.blocks.{res}"
        if res == 4:
            bias = p.get(f"{at}.dense.bias", 0)
            x = dense(x, p[f"{at}.dense.weight"], bias, gain=math.sqrt(2) / 4).reshape(len(x), -1, 4, 4)
        else:
            x = conv(up(x), p[f"{at}.conv0.weight"])
        x = unit(lrelu(x, p[f"{at}.bias0"]))
        x = unit(lrelu(conv(x, p[f"{at}.conv1.weight"]), p[f"{at}.bias1"]))
    image = to_rgb(x, p, resolution)
    return image * fade + up(to_rgb(previous, p, resolution // 2)) * (1 - fade) if fade < 1 else image


def stddev_channel(x):
    """Sample i belongs to group i mod (N / G)."""
    n = len(x)
    groups = n // min(4, n)
    column = np.empty((n, 1, *x.shape[2:]))
    for g in range(groups):
        members = [i for i in range(n) if i % groups == g]
        column[members] = np.sqrt(x[members].var(axis=0) + 1e-8).mean()
    return np.concatenate([x, column], axis=1)


def from_rgb(image, p, res):
    at = f"trunk.from_rgb.{res}"
    return lrelu(conv(image, p[f"{at}.conv.weight"]), p[f"{at}.bias"])


def trunk(image, p, fade):
    top = image.shape[-1]
    x = from_rgb(image, p, top)
    for res in (32, 16, 8):
        if res > top:
            continue
        at = f"trunk.blocks.{res}"
        x = lrelu(conv(x, p[f"{at}.conv0.weight"]), p[f"{at}.bias0"])
        x = lrelu(down(conv(blur(x), p[f"{at}.conv1.weight"])), p[f"{at}.bias1"])
        if res == top and fade < 1:
            x = x * fade + from_rgb(down(image), p, res // 2) * (1 - fade)
    return x


def scores(features, p):
    x = lrelu(conv(stddev_channel(features), p["score_head.conv.weight"]), p["score_head.bias"])
    x = x.reshape(len(x), -1)
    x = lrelu(dense(x, p["score_head.dense.weight"], p["score_head.dense.bias"]))
    return dense(x, p["score_head.out.weight"], p["score_head.out.bias"], gain=1.0)


# ---- the comparison ------------------------------------------------------------------------------------


def latents(G, n=4):
    z, c = G.sample_latents(n, generator=torch.Generator().manual_seed(3))
    return z.double(), c.double()


def const_noises(G):
    blocks = G.synthesis.blocks.values()
    return [e.const_noise.numpy() for b in blocks for e in (b.epilogue0, b.epilogue1)]


@pytest.mark.parametrize(("resolution", "fade"), [(8, 1.0), (8, 0.25), (16, 1.0), (16, 0.6), (32, 1.0)])
def test_the_styled_generator_is_the_published_one(resolution, fade):
    G, p = in_float64(Generator(32, CODES, latent_dim=20, mapping_layers=3, mapping_lr=0.1, **SMALL))
    z, c = latents(G)
    joined = np.concatenate([unit(z.numpy()), standardised(c.numpy())], axis=1)
    w = G.map(z, c).detach().numpy()
    np.testing.assert_allclose(w, mapping(joined, p, 3, 0.1), rtol=0, atol=1e-6)  # codes are float32
    ws = w[:, None].repeat(8, axis=1)
    for noise, maps in (("const", const_noises(G)), ("none", [0.0] * 8)):
        got = G(z, c, resolution=resolution, fade=fade, noise=noise).detach().numpy()
        np.testing.assert_allclose(got, styled(ws, p, resolution, fade, maps), rtol=0, atol=1e-9)


def test_truncation_pulls_the_w_of_the_first_eight_layers_towards_its_mean():
    G, p = in_float64(Generator(64, CODES, latent_dim=20, mapping_layers=2, mapping_lr=0.1, **SMALL))
    assert G.synthesis.num_layers == 10
    torch.manual_seed(0)
    G.mapping.w_avg.normal_()
    z, c = latents(G)
    w = G.map(z, c).detach().numpy()
    ws = w[:, None].repeat(10, axis=1)
    average = G.mapping.w_avg.numpy()
    ws[:, :8] = average + 0.7 * (ws[:, :8] - average)
    got = G(z, c, psi=0.7, truncation="global", resolution=32, noise="none").detach().numpy()
    np.testing.assert_allclose(got, styled(ws, p, 32, 1.0, [0.0] * 8), rtol=0, atol=1e-9)
    # Layers 8 and 9, of the 64² block, read the w as it is.
    with torch.no_grad():
        by_layer = G.synthesis(torch.tensor(ws), resolution=64, noise="none")
    torch.testing.assert_close(
        G(z, c, psi=0.7, truncation="global", resolution=64, noise="none"), by_layer, rtol=0, atol=1e-12
    )


def test_the_papers_reading_of_the_codes_is_pixel_normalised_as_a_whole():
    G, p = in_float64(Generator(8, CODES, latent_dim=20, code_input="plain", mapping_layers=2, **SMALL))
    z, c = latents(G)
    joined = unit(np.concatenate([z.numpy(), plain(c.numpy())], axis=1))
    np.testing.assert_allclose(G.map(z, c).detach(), mapping(joined, p, 2, 0.01), rtol=0, atol=1e-7)


def test_a_label_enters_as_a_learned_vector_beside_noise_and_codes():
    G, p = in_float64(Generator(8, CODES, latent_dim=20, labels=3, mapping_layers=2, **SMALL))
    z, c = latents(G)
    label = torch.tensor([2, 0, 1, 2])
    embedded = unit(p["latent.label_embedding"][label.numpy()])
    joined = np.concatenate([unit(z.numpy()), standardised(c.numpy()), embedded], axis=1)
    assert p["latent.label_embedding"].shape == (3, 20)
    np.testing.assert_allclose(G.map(z, c, label).detach(), mapping(joined, p, 2, 0.01), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("resolution", "fade"), [(8, 0.3), (16, 1.0), (16, 0.6)])
def test_the_direct_generator_is_progans_and_reads_the_latent_once(resolution, fade):
    G, p = in_float64(Generator(16, CODES, latent_dim=20, styles=False, **SMALL))
    z, c = latents(G)
    joined = G.map(z, c).numpy()
    np.testing.assert_allclose(
        joined, np.concatenate([unit(z.numpy()), standardised(c.numpy())], axis=1), rtol=0, atol=1e-6
    )
    got = G(z, c, resolution=resolution, fade=fade).detach().numpy()
    np.testing.assert_allclose(got, direct(joined, p, resolution, fade), rtol=0, atol=1e-9)
    readers = [name for name, q in p.items() if q.ndim == 2 and q.shape[1] == 20]
    assert readers == ["synthesis.blocks.4.dense.weight"]


@pytest.mark.parametrize(("resolution", "fade"), [(4, 1.0), (8, 0.25), (16, 1.0), (16, 0.6), (32, 1.0)])
def test_the_discriminator_is_the_published_one(resolution, fade):
    D, p = in_float64(Discriminator(32, CODES, **SMALL))
    torch.manual_seed(2)
    image = torch.randn(8, 3, resolution, resolution, dtype=torch.float64)
    expected = scores(trunk(image.numpy(), p, fade), p)[:, 0]
    np.testing.assert_allclose(D(image, fade=fade).score.detach(), expected, rtol=0, atol=1e-9)


def test_the_score_of_a_conditional_discriminator_is_the_logit_of_the_label():
    D, p = in_float64(Discriminator(16, CODES, labels=5, **SMALL))
    torch.manual_seed(2)
    image, label = torch.randn(8, 3, 16, 16, dtype=torch.float64), torch.tensor([4, 0, 0, 3, 2, 1, 1, 2])
    logits = scores(trunk(image.numpy(), p, 1.0), p)
    assert logits.shape == (8, 5)
    np.testing.assert_allclose(D(image, label).score.detach(), logits[range(8), label], rtol=0, atol=1e-9)


def test_q_reads_the_trunk_by_two_dense_layers():
    D, p = in_float64(Discriminator(16, CODES, **SMALL))
    torch.manual_seed(2)
    image = torch.randn(5, 3, 16, 16, dtype=torch.float64)
    x = trunk(image.numpy(), p, 0.5).reshape(5, -1)
    x = lrelu(dense(x, p["q_head.dense.weight"], p["q_head.dense.bias"]))
    params = dense(x, p["q_head.out.weight"], p["q_head.out.bias"], gain=1.0)
    cat, bern, *_ = D(image, fade=0.5).posterior
    np.testing.assert_allclose(cat.logits.detach(), params[:, :3], rtol=0, atol=1e-5)
    np.testing.assert_allclose(bern.logit.detach(), params[:, 3], rtol=0, atol=1e-5)
