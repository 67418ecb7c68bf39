"""Facts about projection: an image made by a generator is found again, and its codes can then be changed."""

import math

import numpy as np
import pytest
import torch

from infostylegan import Discriminator, Generator
from infostylegan.codes import CodeError, CodeSpec
from infostylegan.losses import information
from infostylegan.projection import (
    ProjectionError,
    change_codes,
    check_fit,
    load_projection,
    pixel_distance,
    project,
    psnr,
    save_projection,
    whiteness,
    with_codes,
)

CODES = "cat:3,bern:1,unif:2"
TINY = {"fmap_base": 128, "fmap_max": 16}


def attributes(images):
    """What can be measured, [N, 4]: the mean of each channel, and the contrast around it."""
    means = images.mean(dim=(2, 3))
    contrast = (images - means[:, :, None, None]).square().mean(dim=(1, 2, 3)).add(1e-6).sqrt()
    return torch.cat([means.expand(-1, 3), contrast[:, None]], dim=1)


def taught(c, channels):
    """What the attributes shall be, of codes cat:3, bern, unif, unif (gray: the last two alone are seen)."""
    means = torch.stack([0.3 * (c[:, 0] - 1), 0.6 * c[:, 1] - 0.3, 0.3 * c[:, 2]], dim=1)
    means = means if channels == 3 else means[:, 2:].expand(-1, 3)
    return torch.cat([means, 0.25 + 0.15 * c[:, 3:]], dim=1)


def pair(steps=180, **options):
    """A generator that was taught what its codes do (see `attributes`), and a D whose Q reads them."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    channels, labels = options.get("channels", 3), options.get("labels", 0)
    spec = CodeSpec.parse(CODES, uniform="gaussian")
    G = Generator(
        16, spec, latent_dim=24, mapping_layers=2, mapping_lr=1.0, code_scale=2.0, **TINY, **options
    )
    if G.mapping is not None:
        for block in G.synthesis.blocks.values():
            block.epilogue0.noise_strength.data.fill_(0.1)
            block.epilogue1.noise_strength.data.fill_(0.1)
    D = Discriminator(16, spec, channels=channels, labels=labels, **TINY)
    groups = [{"params": G.parameters(), "lr": 2e-2}, {"params": D.parameters(), "lr": 4e-3}]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
    for _ in range(steps):
        z, c = G.sample_latents(32)
        y = torch.randint(labels, (32,)) if labels else None
        images = G(z, c, y)
        told = information(G.codes, D.posterior(images), c).sum(dim=1).mean()
        aim = taught(c, channels)
        if y is not None:
            aim[:, 3] = 0.1 + 0.2 * y
        wrong = (attributes(images) - aim).square().mean()
        adam.zero_grad()
        (20 * wrong - 0.1 * told).backward()
        adam.step()
    return G.eval().requires_grad_(False), D.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def styled():
    return pair()


@pytest.fixture(scope="module")
def found(styled):
    """(z, c, image, projection) of four images, each with noise maps of its own."""
    G, D = styled
    torch.manual_seed(0)
    made = []
    for seed in range(10, 14):
        z, c = latents(G, seed)
        image = G(z, c, noise="random")
        made.append((z, c, image, project(G, D, image, steps=200)))
    return made


def latents(G, seed):
    return G.sample_latents(1, generator=torch.Generator().manual_seed(seed))


def test_psnr_is_that_of_bytes():
    a, b = torch.rand(1, 3, 8, 8) * 2 - 1, torch.rand(1, 3, 8, 8) * 2 - 1
    mse = np.mean((127.5 * (a - b).numpy().astype(np.float64)) ** 2)
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 / mse))


def test_white_noise_is_white_and_a_picture_is_not():
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2) * 5
    assert whiteness([noise]) < 0.1  # eight squared means of 64 … 4096 products
    assert whiteness([smooth]) > 0.5


def test_the_pixel_distance_is_the_mean_over_the_sizes_of_the_pyramid():
    a, b = torch.rand(2, 3, 32, 32), torch.rand(1, 3, 32, 32)
    d = (a - b).double().numpy()
    sizes = [d.reshape(2, 3, 32 // k, k, 32 // k, k).mean((3, 5)) for k in (1, 2, 4)]
    expected = np.mean([(s**2).mean((1, 2, 3)) for s in sizes], axis=0)
    assert pixel_distance(a, b).numpy() == pytest.approx(expected, rel=1e-5)


def test_images_of_the_generator_are_found_again_at_35_db_with_their_codes(found):
    errors = []
    for _, c, image, p in found:
        assert p.psnr == pytest.approx(psnr(p.image, image))
        assert p.psnr > 35
        assert torch.equal(p.c[:, :2], c[:, :2])  # discrete
        errors.append(p.c[:, 2:] - c[:, 2:])
    # Drawn without looking, uniform codes would be 0.8 off.
    assert torch.cat(errors).square().mean().sqrt() < 0.35


def test_changing_a_code_afterwards_moves_what_it_is_known_to_control(styled, found):
    G, _ = styled
    # By 0.6, 0.6, 0.54 and 0.27 as it was taught.
    sweeps = {"cat0": (0, 2), "bern0": (0, 1), "unif0": (-0.9, 0.9), "unif1": (-0.9, 0.9)}
    moved = torch.zeros(4, 4)  # code, attribute
    for _, _, _, p in found:
        for index, (name, values) in enumerate(sweeps.items()):
            low, high = (change_codes(G, p, {name: value}) for value in values)
            assert [float(low.c[0, index]), float(high.c[0, index])] == pytest.approx(values)
            change = (attributes(high.image) - attributes(low.image))[0]
            assert change[index] > 0.1, name
            moved[index] += change / len(found)
    assert (moved.diag() > torch.tensor([0.3, 0.3, 0.27, 0.13])).all()
    assert torch.equal(moved.abs().argmax(dim=0), torch.arange(4))  # no other code moves it as much


def test_the_codes_as_they_were_found_give_the_projected_image(styled, found):
    G, _ = styled
    p = found[0][3]
    assert torch.allclose(with_codes(G, p, p.c), p.image, atol=1e-5)
    both = with_codes(G, p, torch.cat([p.c, change_codes(G, p, {"unif0": 0.5}).c]))
    assert torch.allclose(both[:1], p.image, atol=1e-5)
    assert torch.allclose(both[1:], change_codes(G, p, {"unif0": 0.5}).image, atol=1e-5)


def test_an_edit_can_be_taken_back(styled, found):
    G, _ = styled
    p = found[0][3]
    there = change_codes(G, p, {"unif0": 0.5, "cat0": 2})
    back = change_codes(G, there, {"unif0": float(p.c[0, 2]), "cat0": float(p.c[0, 0])})
    assert torch.allclose(back.image, p.image, atol=1e-4)


def test_the_noise_maps_stay_white(found):
    for n in found[0][3].noise:
        assert float(n.mean()) == pytest.approx(0, abs=1e-4)
        assert float(n.square().mean()) == pytest.approx(1, abs=1e-3)
    assert whiteness(found[0][3].noise) < 0.2


def test_the_same_seed_gives_the_same_latents_and_touches_nothing(styled, found):
    G, D = styled
    weights = [*G.state_dict().values(), *D.state_dict().values()]
    before = [w.clone() for w in weights]
    image = found[0][2]
    kept = image.clone()
    state = torch.get_rng_state()
    with torch.no_grad():  # as a server may call it
        one, two = (project(G, D, image, steps=10) for _ in range(2))
    for name in ("z", "c", "w", "image"):
        assert torch.equal(getattr(one, name), getattr(two, name))
        assert not getattr(one, name).requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(image, kept)
    assert all(torch.equal(w, b) for w, b in zip(weights, before))


def test_networks_in_training_get_no_gradients_and_stay_in_training(styled, found):
    G, D = Generator.from_config(styled[0].config), Discriminator.from_config(styled[1].config)
    project(G, D, found[0][2], steps=4)
    assert G.training
    assert D.training
    assert all(p.grad is None for p in (*G.parameters(), *D.parameters()))


def test_progress_counts_every_step_and_the_loss_falls(styled, found):
    G, D = styled
    seen = []
    project(G, D, found[0][2], steps=60, progress=lambda *a: seen.append(a))
    assert [s[:2] for s in seen] == [(i + 1, 60) for i in range(60)]
    assert all(s[3].shape == (1, 3, 16, 16) and not s[3].requires_grad for s in seen)
    assert seen[-1][2] < 0.2 * seen[0][2]


@pytest.mark.parametrize(
    "options", [{"styles": False}, {"channels": 1}, {"labels": 3}, {"code_input": "plain"},
                {"styles": False, "code_input": "plain", "labels": 2}],
)  # fmt: skip
def test_direct_gray_conditional_and_plain_generators_work_too(options):
    G, D = pair(30, **options)
    z, c = latents(G, 5)
    label = torch.tensor([1]) if G.labels else None
    image = G(z, c, label, noise="const")
    start = psnr(G(*latents(G, 6), label, noise="const"), image)
    p = project(G, D, image, label=label, steps=200)  # after 100 the gray one is still on its way, at 25
    assert p.psnr > max(25, start + 8)
    assert p.label is None if label is None else torch.equal(p.label, label)
    check_fit(G, p)
    assert torch.allclose(with_codes(G, p, p.c), p.image, atol=1e-5)
    assert not torch.allclose(
        change_codes(G, p, {"unif0": -float(p.c[0, 2].sign())}).image, p.image, atol=0.01
    )


def test_the_label_that_fits_is_chosen_where_none_is_given():
    G, D = pair(100, labels=3)
    for label in range(3):
        z, c = latents(G, label)
        image = G(z, c, torch.tensor([label]), noise="const")
        assert int(project(G, D, image, steps=40).label) == label


def test_without_a_discriminator_or_codes_pixels_are_enough(styled, found):
    G, D = styled
    assert project(G, None, found[0][2], steps=100).psnr > 25
    assert project(G, D, found[0][2], steps=100, perceptual=False).psnr > 25
    bare = Generator(16, "none", latent_dim=16, mapping_layers=2, **TINY).eval()
    p = project(bare, None, bare(*latents(bare, 0)), steps=40)
    assert p.c.shape == (1, 0)
    assert p.psnr > 20


def test_another_extractor_can_take_the_place_of_the_trunk(styled, found):
    seen = []

    def features(images):
        seen.append(images.shape)
        return [torch.nn.functional.avg_pool2d(images, 2)]

    project(*styled, found[0][2], steps=4, features=features)
    assert seen[0] == (1, 3, 16, 16)
    assert len(seen) > 4


def test_a_generator_that_has_grown_half_way_is_projected_at_its_own_size():
    G, D = pair(20)
    G.set_growth(8, 0.5)
    z, c = latents(G, 0)
    image = G(z, c, noise="const")
    p = project(G, D, image, steps=40)
    assert p.image.shape == (1, 3, 8, 8)
    assert p.psnr > 20


def test_latents_come_back_from_their_file(styled, found, tmp_path):
    G, _ = styled
    p = found[0][3]
    save_projection(tmp_path / "a.npz", G, p, photograph="a.jpg")
    q = load_projection(tmp_path / "a.npz", G)
    for name in ("z", "c", "w", "image"):
        assert torch.equal(getattr(p, name), getattr(q, name))
    assert all(torch.equal(a, b) for a, b in zip(p.noise, q.noise))
    assert (q.loss, q.psnr, q.label) == (p.loss, p.psnr, None)
    assert '"photograph": "a.jpg"' in (tmp_path / "a.json").read_text()


def test_latents_of_another_generator_and_other_files_are_refused(styled, found, tmp_path):
    G, _ = styled
    save_projection(tmp_path / "a.npz", G, found[0][3])
    other = Generator.from_config(G.config)
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 nonsense")
    np.savez(tmp_path / "c.npz", z=np.array([{"a": 1}], dtype=object))
    for path, generator in (("a.npz", other), ("b.npz", G), ("c.npz", G), ("none.npz", G)):
        with pytest.raises(ProjectionError) as error:
            load_projection(tmp_path / path, generator)
        assert path in str(error.value)


def test_what_a_code_cannot_take_is_refused(styled, found):
    G, _ = styled
    for name, value in (("unif0", 1.5), ("unif0", math.nan), ("cat0", 1.5), ("cat0", 3), ("unif7", 0)):
        with pytest.raises(CodeError) as error:
            change_codes(G, found[0][3], {name: value})
        assert name in str(error.value)


def test_images_and_labels_that_do_not_fit_are_refused(styled, found):
    G, D = styled
    for image in (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 16, 16), torch.zeros(2, 3, 16, 16)):
        with pytest.raises(ProjectionError):
            project(G, D, image)
    with pytest.raises(ValueError, match="without labels"):
        project(G, D, found[0][2], label=1)
