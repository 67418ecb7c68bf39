"""Facts about what training measures of itself."""

import math

import numpy as np
import pytest
import torch

from dnnlib.seeding import seed_step
from infostylegan import CodeSpec, Discriminator, Generator
from infostylegan.losses import information
from infostylegan.training.measure import measure_information, measure_spread

CODES = "cat:3,bern:1,unif:1"


class Pictures:
    """A stand-in for G: `picture(z, c)` -> images."""

    def __init__(self, picture):
        self.picture, self.codes, self.calls = picture, CodeSpec.parse(CODES), []

    def sample_latents(self, n, *, generator=None, device="cpu"):
        return torch.randn(n, 48, generator=generator), self.codes.sample(n, generator=generator)

    def __call__(self, z, c, label=None, *, resolution, noise):
        self.calls.append((z, c, label))
        assert (resolution, noise) == (4, "const")  # random noise would pass for variety
        return self.picture(z, c).view(-1, 3, 4, 4)


def by_codes(c):
    return c.repeat(1, 16)[:, :48]


def reals(n=50):
    return torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_generator_that_ignores_the_noise_has_no_spread_within_codes():
    found = measure_spread(Pictures(lambda z, c: by_codes(c)), reals(), None, codes=16, noises=4)
    assert found.within == pytest.approx(0, abs=1e-6)
    assert found.overall > 0.1


def test_a_generator_that_ignores_the_codes_has_the_same_spread_within_as_overall():
    found = measure_spread(Pictures(lambda z, c: z), reals(), None, codes=64, noises=16)
    assert found.within == pytest.approx(found.overall, rel=0.02)
    assert found.within == pytest.approx(1, rel=0.05)  # the reals too are normal


def test_spread_is_the_root_mean_variance_over_that_of_the_reals():
    G = Pictures(lambda z, c: z * 0.3 + by_codes(c))
    real = reals()
    found = measure_spread(G, real, None, codes=8, noises=5)
    z, c = (torch.cat([call[i] for call in G.calls]) for i in (0, 1))
    fakes = (z * 0.3 + by_codes(c)).double().numpy().reshape(8, 5, 48)
    reference = math.sqrt(real.double().numpy().reshape(50, 48).var(axis=0).mean())
    assert found.within == pytest.approx(math.sqrt(fakes.var(axis=1, ddof=1).mean()) / reference, rel=1e-5)
    overall = math.sqrt(fakes.reshape(40, 48).var(axis=0).mean())
    assert found.overall == pytest.approx(overall / reference, rel=1e-5)
    assert (c.view(8, 5, -1) == c.view(8, 5, -1)[:, :1]).all()
    assert len(np.unique(z.numpy(), axis=0)) == 40


def test_spread_within_does_not_depend_on_how_many_draws_of_noise_there_are():
    few = measure_spread(Pictures(lambda z, c: z), reals(), None, codes=256, noises=2)
    many = measure_spread(Pictures(lambda z, c: z), reals(), None, codes=32, noises=16)
    assert few.within == pytest.approx(many.within, rel=0.05)


def test_the_label_stays_fixed_within_a_group_of_the_spread():
    G = Pictures(lambda z, c: z)
    measure_spread(G, reals(), torch.tensor([1, 0, 2]), codes=6, noises=4)
    labels = torch.cat([call[2] for call in G.calls]).view(6, 4)
    assert labels[:, 0].tolist() == [1, 0, 2, 1, 0, 2]
    assert (labels == labels[:, :1]).all()


def test_spread_is_finite_for_reals_that_are_all_alike():
    found = measure_spread(Pictures(lambda z, c: z), torch.zeros(5, 3, 4, 4), None, codes=4, noises=2)
    assert math.isfinite(found.within)


def networks(labels=0):
    torch.manual_seed(0)
    options = {"fmap_base": 64, "fmap_max": 8, "labels": labels}
    return Generator(8, CODES, latent_dim=16, **options), Discriminator(8, CODES, **options)


@pytest.mark.parametrize("labels", [0, 3])
def test_a_reader_that_says_nothing_measures_no_information_of_discrete_codes(labels):
    G, D = networks(labels)
    D.q_head.out.weight.data.zero_()
    nats = measure_information(G, D, samples=70, batch=32, seed=0, device=torch.device("cpu"))
    assert list(nats) == ["cat0", "bern0", "unif0"]
    assert nats["cat0"] == pytest.approx(0, abs=1e-5)
    assert nats["bern0"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 20, 64])
def test_measured_information_is_the_mean_over_all_samples_whatever_the_batch(batch):
    G, D = networks()
    G.set_growth(8, 0.3)
    nats = measure_information(G, D, samples=20, batch=batch, seed=5, device=torch.device("cpu"))
    draw = torch.Generator().manual_seed(seed_step(5, 0, 0, stream=2))
    parts = []
    for start in range(0, 20, batch):
        z, c = G.sample_latents(min(batch, 20 - start), generator=draw)
        parts.append(information(G.codes, D(G(z, c, noise="none"), fade=0.3).posterior, c))
    expected = torch.cat(parts).mean(0)
    torch.testing.assert_close(torch.tensor(list(nats.values())), expected, rtol=1e-4, atol=1e-5)


def test_the_same_seed_measures_the_same():
    G, D = networks()
    one, two, other = (
        measure_information(G, D, samples=16, batch=8, seed=s, device=torch.device("cpu")) for s in (1, 1, 2)
    )
    assert one == two
    assert one != other
