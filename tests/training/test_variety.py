"""What keeps z' alive: codes shared within a minibatch-stddev group, and enough certainty for G."""

from __future__ import annotations

import math

import torch

from infostylegan.networks import Discriminator
from infostylegan.networks.discriminator import minibatch_stddev
from infostylegan.training.step import enough, share_codes


def tiny_discriminator(codes: str = "cat:5,bern:1,unif:2") -> Discriminator:
    return Discriminator(8, codes, channels=1, fmap_base=32, fmap_max=4)


def test_samples_of_one_stddev_group_share_their_discrete_codes_and_keep_their_uniform_ones() -> None:
    D = tiny_discriminator()
    c = D.codes.sample(24, generator=torch.Generator().manual_seed(0))
    shared = share_codes(D, c, True)
    groups = torch.arange(24) % (24 // D.score_head.group)
    for group in groups.unique():
        assert (shared[groups == group, :2] == shared[groups == group, :2][0]).all()
    assert torch.equal(shared[:, 2:], c[:, 2:])


def test_the_groups_of_shared_codes_are_those_of_minibatch_stddev() -> None:
    # Images that depend on the shared code alone have no spread within any stddev group.
    D = tiny_discriminator()
    c = share_codes(D, D.codes.sample(16, generator=torch.Generator().manual_seed(1)), True)
    images = c[:, :1].view(16, 1, 1, 1).expand(16, 3, 4, 4)
    assert torch.allclose(minibatch_stddev(images)[:, -1], torch.tensor(1e-4), atol=1e-6)


def test_codes_stay_as_they_are_unless_sharing_is_asked_for_and_the_batch_divides() -> None:
    D = tiny_discriminator()
    c = D.codes.sample(12, generator=torch.Generator().manual_seed(2))
    assert share_codes(D, c, False) is c
    assert share_codes(D, c[:10], True) is not None
    assert torch.equal(share_codes(D, c[:10], True), c[:10])


def test_certainty_beyond_the_margin_earns_the_generator_no_gradient() -> None:
    D = tiny_discriminator("cat:5,unif:1")
    nats = torch.tensor([[math.log(5) - 0.1, 5.0], [math.log(5) - 0.5, 0.1]], requires_grad=True)
    enough(nats, D, 0.3).sum().backward()
    assert nats.grad is not None
    assert nats.grad.tolist() == [[0.0, 1.0], [1.0, 1.0]]
