"""Path length of generators whose images move at a known speed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from infostylegan import CodeSpec
from metrics import path_length
from metrics.path_length import between_values, in_code, in_noise, in_w, slerp


class Line:
    """A stand-in for a generator: the image is a linear function of (z', c), four numbers wide."""

    labels = 0

    def __init__(self, speed: dict[str, float]) -> None:
        self.codes = CodeSpec.parse("cat:3,bern:1,unif:2")
        self.speed = torch.tensor([speed.get(name, 0.0) for name in self.codes.names])
        self.grown_fade = torch.tensor(1.0)
        self.noise_dim = 5

    def sample_latents(self, n: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 5, generator=generator), self.codes.sample(n, generator=generator)

    def map(self, z: Tensor, c: Tensor, y: Tensor | None) -> Tensor:
        return torch.cat([z, c], dim=1)

    def synthesize(self, w: Tensor, *, noise: str) -> Tensor:
        assert noise == "const"
        return (w[:, 5:] * self.speed / 127.5)[:, None, None, :]


class Flat:
    """Features are the pixels, 0 … 255."""

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def measured(ends: path_length.Ends, **options: object) -> float:
    G = Line({"unif0": 3.0, "unif1": 0.5, "cat0": 7.0, "bern0": 2.0})
    return path_length.path_length(G, Flat(), ends, samples=400, **options).value  # type: ignore[arg-type]


def mean_within_1_and_99_percent(values: np.ndarray) -> float:
    low, high = np.percentile(values, [1, 99])
    return float(values[(values >= low) & (values <= high)].mean())


@pytest.mark.parametrize(("index", "speed"), [(2, 3.0), (3, 0.5)])
def test_along_a_uniform_code_it_is_the_squared_speed_times_that_of_the_path(
    index: int, speed: float
) -> None:
    # x(t) runs from one value to another, each uniform on [-1, 1]: E (b - a)² = 2/3. 255 levels are 2 wide.
    draw = np.random.default_rng(0)
    path = np.square(draw.uniform(-1, 1, 10**6) - draw.uniform(-1, 1, 10**6))
    expected = speed**2 * mean_within_1_and_99_percent(path)
    assert measured(in_code(index)) == pytest.approx(expected, rel=0.12)


def test_a_code_that_does_nothing_has_none_and_z_moves_only_z() -> None:
    assert measured(in_noise) == pytest.approx(0, abs=1e-6)


def test_jumps_of_discrete_codes_are_squared_distances_and_always_to_another_value() -> None:
    assert measured(between_values(1), per_step=True) == pytest.approx(4.0, rel=1e-4)
    # From 0, 1 or 2 to another: distances 1, 1 and 2 by equal chance, squared and times 49.
    assert measured(between_values(0), per_step=True) == pytest.approx(49 * 2, rel=0.1)


def test_it_does_not_depend_on_epsilon_where_the_path_is_straight() -> None:
    assert measured(in_code(2), epsilon=1e-2) == pytest.approx(measured(in_code(2), epsilon=1e-3), rel=2e-3)
    assert measured(in_w, epsilon=1e-2) == pytest.approx(measured(in_w, epsilon=1e-3), rel=2e-3)


def test_slerp_keeps_the_angle_even_and_ends_where_it_should() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 50, 7, generator=draw, dtype=torch.float64)
    zero, one, half = (torch.full((50, 1), t, dtype=torch.float64) for t in (0.0, 1.0, 0.5))
    torch.testing.assert_close(slerp(a, b, zero), a)
    torch.testing.assert_close(slerp(a, b, one), b)
    middle = slerp(a, b, half)
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(a, middle), cosine(middle, b))
    torch.testing.assert_close(middle.norm(dim=1), (a.norm(dim=1) + b.norm(dim=1)) / 2)
