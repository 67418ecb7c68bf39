"""Facts about infostylegan.render.traversal, seen through a generator that records what it is given."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from infostylegan.render.traversal import effect_map, save_traversals, traverse


@dataclass
class Code:
    name: str
    low: int
    high: int

    def traversal(self, steps=None):
        return (
            torch.linspace(self.low, self.high, steps or 5) if self.low < 0 else torch.arange(self.high + 1.0)
        )


class Spec(list):
    def sample(self, n, *, generator=None):
        return torch.stack([c.low + (c.high - c.low) * torch.rand(n, generator=generator) for c in self], 1)


class Recorder(nn.Module):
    """Images are flat, of the value of code 2; all inputs are kept."""

    def __init__(self, labels=0, channels=3):
        super().__init__()
        self.codes = Spec([Code("cat0", 0, 3), Code("bern0", 0, 1), Code("unif0", -1, 1)])
        self.noise_dim, self.labels, self.channels = 7, labels, channels
        self.calls = []

    def forward(self, z, c, label=None, psi=1.0, *, truncation="codes", noise="random"):
        self.calls.append((z, c, label, psi, noise, self.training))
        return c[:, 2].reshape(-1, 1, 1, 1).expand(-1, self.channels, 8, 8)

    def seen(self, i):
        return torch.cat([call[i] for call in self.calls])


@pytest.mark.parametrize("labels", [0, 5])
@pytest.mark.parametrize(("index", "count"), [(0, 4), (1, 2), (2, 5)])
def test_along_a_row_only_the_swept_code_changes(labels, index, count):
    G = Recorder(labels)
    images, values = traverse(G, index, samples=6, batch=4)
    assert len(values) == count
    assert images.shape == (6 * count, 3, 8, 8)
    z, c = G.seen(0).unflatten(0, (6, count)), G.seen(1).unflatten(0, (6, count))
    assert torch.equal(c[:, :, index], values.expand(6, -1))
    others = [i for i in range(3) if i != index]
    assert torch.equal(c[:, :, others], c[:, :1, others].expand_as(c[:, :, others]))
    assert torch.equal(z, z[:, :1].expand_as(z))
    assert len(torch.unique(z[:, 0], dim=0)) == 6  # rows differ
    if labels:
        label = G.seen(2).unflatten(0, (6, count))
        assert torch.equal(label, label[:, :1].expand_as(label))
        assert 0 <= label.min() <= label.max() < labels
    else:
        assert all(call[2] is None for call in G.calls)
    assert torch.equal(images[:, 0, 0, 0], G.seen(1)[:, 2])  # in the order they were asked for


def test_layer_noise_is_fixed_and_psi_passed_on_and_batches_respected():
    G = Recorder()
    traverse(G, 2, samples=3, psi=0.7, batch=4)
    assert [call[3:5] for call in G.calls] == [(0.7, "const")] * 4
    assert [len(call[0]) for call in G.calls] == [4, 4, 4, 3]


def test_every_code_is_shown_on_the_same_samples_and_seeds_choose_them():
    G, H, other = Recorder(), Recorder(), Recorder()
    traverse(G, 2, samples=4, steps=2)
    traverse(H, 1, samples=4)
    traverse(other, 2, samples=4, steps=2, seed=1)
    assert torch.equal(G.seen(0), H.seen(0))
    assert torch.equal(G.seen(1)[:, 0], H.seen(1)[:, 0])
    assert not torch.equal(G.seen(0), other.seen(0))


def test_global_randomness_gradients_and_training_mode_are_left_alone():
    G = Recorder()
    G.weight = nn.Parameter(torch.ones(1))
    state = torch.get_rng_state()
    images, _ = traverse(G, 0, samples=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert not images.requires_grad
    assert all(call[5] is False for call in G.calls)  # evaluated, not trained
    assert G.training
    traverse(G.eval(), 0, samples=2)
    assert not G.training


@pytest.mark.parametrize("channels", [1, 3])
def test_one_sheet_a_code_under_its_name(tmp_path, channels):
    G = Recorder(channels=channels)
    paths = save_traversals(G, tmp_path / "new", names={"unif0": "Größe"}, samples=2, steps=3)
    assert [p.name for p in paths] == ["traverse-cat0.png", "traverse-bern0.png", "traverse-unif0.png"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    sheet = np.asarray(Image.open(paths[2]).convert("L"))
    grid = sheet[-(2 + 2 * 50) :]  # two rows of 48 pixels, the titles above them
    assert [int(grid[20, 2 + 50 * i]) for i in range(3)] == [0, 128, 255]


def test_names_may_come_in_the_order_of_the_codes(tmp_path):
    plain, named = Recorder(), Recorder()
    a = save_traversals(plain, tmp_path / "a", samples=1)
    b = save_traversals(named, tmp_path / "b", names=["sort", "", "unif0"], samples=1)
    same = [x.read_bytes() == y.read_bytes() for x, y in zip(a, b)]
    assert same == [False, True, True]  # an empty name, or the code's own, adds nothing to the title


def test_the_effect_map_is_zero_where_nothing_changes_and_blind_to_order():
    images = torch.rand(3, 1, 2, 4, 6).expand(-1, 5, -1, -1, -1).clone()  # three rows of five equal images
    sweep = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    images[:, :, :, 1, 2] = sweep.reshape(1, 5, 1)
    effect = effect_map(images.flatten(0, 1), 3)
    assert effect.shape == (4, 6)
    assert effect[1, 2].item() == pytest.approx(1.2)
    effect[1, 2] = 0
    assert effect.max() < 1e-6
    shuffled = images[:, [3, 0, 4, 1, 2]]
    assert effect_map(shuffled.flatten(0, 1), 3)[1, 2].item() == pytest.approx(1.2)
