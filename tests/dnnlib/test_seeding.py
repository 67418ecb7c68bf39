"""Facts about dnnlib.seeding. The golden values hold for ever: runs of today must resume tomorrow."""

import random

import pytest
import torch

from dnnlib.seeding import seed_everything, seed_step


@pytest.mark.parametrize(
    ("where", "seed"),
    [
        ((0, 0, 0), 5809880761037817570),
        ((1, 2, 3, 4), 7597657864365363701),
        ((9223372036854775808, 1000000000, 511, 1), 246134338253215574),
        ((-1, 0, 0, 0), 8911339968191045075),
    ],
)
def test_golden_values(where, seed):
    assert seed_step(*where) == seed


def test_neighbours_never_share_a_seed():
    places = [(a, b, c, d) for a in range(6) for b in range(50) for c in range(4) for d in range(3)]
    seeds = {seed_step(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_same_place_same_draws():
    def draws():
        seed_everything(seed_step(3, 1000, 1))
        return torch.rand(4).tolist(), random.random()

    first = draws()
    torch.rand(7)
    assert draws() == first
