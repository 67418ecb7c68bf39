"""Facts about the plan of a run: what it says of memory."""

import pytest
import torch

from cuda_ops.backends import default_impl, resolve_impl
from infostylegan.growth import Phase
from infostylegan.training.options import TrainingOptions
from infostylegan.training.plan import LiveBytes, step_bytes
from infostylegan.training.step import StepStats, discriminator_step

PHASE = Phase(0, 32, False, 0, 1000, 4, 0.001, 10.0)


def small(**changes):
    values = {"fmap_base": 256, "fmap_max": 16, "latent_dim": 16, "codes": "cat:3,unif:1", **changes}
    return TrainingOptions(data="x", data_digest="", resolution=32, **values)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bytes_are_counted_while_they_are_alive_once_for_each_storage(device):
    x = torch.zeros(1000, device=device)
    with LiveBytes() as live:
        y = x * 2
        z = y.view(10, 100)
        assert live.now == 4000
        w = z * z
        assert (live.now, live.peak) == (8000, 8000)
        del w, y, z
        assert live.now == 0
        a = x + 1
        a += 1
        x.add_(1)
        assert (live.now, live.peak) == (4000, 8000)


@pytest.mark.parametrize("changes", [{}, {"styles": False}, {"views": 1.0}, {"precision": "bf16"}], ids=str)
@pytest.mark.parametrize("impl", ["ref", "cpu"])
def test_the_plan_counts_what_a_step_on_a_cpu_really_holds(changes, impl):
    """Also what the convolutions under the penalty keep, which no hook of autograd's sees."""
    if impl == "cpu" and resolve_impl("test", "auto", torch.empty(1)) is None:
        pytest.skip("the fused operations are not built here")
    options = small(**changes)
    with default_impl(impl):
        G, D = options.build_generator().to("meta"), options.build_discriminator().to("meta")
        planned = step_bytes(G, D, options, PHASE, options.losses(), 4)
        G, D = options.build_generator(), options.build_discriminator()
        with LiveBytes() as live:
            discriminator_step(
                G, D, torch.randn(4, 3, 32, 32), None, PHASE, 1.0, options.losses(), PHASE.gamma, StepStats()
            )
    assert planned == pytest.approx(live.peak, rel=0.1)
