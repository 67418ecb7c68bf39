"""Facts about kernels that are kept: when, until when, and what never sees them."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from infostylegan import Generator, load_generator, save_generator
from infostylegan.networks.layers import EqualizedConv2d, channels_first
from infostylegan.training.step import update_ema

RESAMPLE = ["", "up", "down"]


def frozen(resample="up", seed=0):
    torch.manual_seed(seed)
    return EqualizedConv2d(3, 4, resample=resample).eval().requires_grad_(False)


def generator(seed=0):
    torch.manual_seed(seed)
    G = Generator(16, "cat:3,unif:1", latent_dim=16, fmap_base=64, fmap_max=8)
    with torch.no_grad():
        for parameter in G.parameters():  # the constant as it starts has no variance to normalise
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return G.eval().requires_grad_(False)


def image(G, seed=0):
    z, c = G.sample_latents(3, generator=torch.Generator().manual_seed(seed))
    return G(z, c, noise="const")


def kept(network):
    return [m._kept for m in network.modules() if isinstance(m, EqualizedConv2d) and m._kept is not None]


def anew(layer, x):
    """What the layer gives when it makes its kernel for this call."""
    return copy.deepcopy(layer).train()(x)


X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def made(monkeypatch):
    """Counts how often a kernel is made."""
    calls = []
    make_kernel = EqualizedConv2d.make_kernel
    monkeypatch.setattr(
        EqualizedConv2d, "make_kernel", lambda self, dtype: calls.append(dtype) or make_kernel(self, dtype)
    )
    return calls


# ---- when --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resample", RESAMPLE)
def test_a_frozen_layer_in_eval_mode_makes_its_kernel_once_and_gives_what_it_gave_before(resample, made):
    layer = frozen(resample)
    expected = anew(layer, X)
    made.clear()
    for _ in range(3):
        torch.testing.assert_close(layer(X), expected, rtol=1e-5, atol=1e-6)
    assert len(made) == 1


@pytest.mark.parametrize("why", ["training", "wants gradients"])
def test_a_layer_that_may_learn_makes_its_kernel_at_every_call(why, made):
    layer = frozen()
    layer.train() if why == "training" else layer.requires_grad_(True)
    with torch.no_grad():
        layer(X), layer(X)
    assert len(made) == 2
    assert layer._kept is None


def test_a_whole_frozen_generator_makes_each_of_its_kernels_once(made):
    G = generator()
    image(G), image(G)
    assert len(made) == sum(isinstance(m, EqualizedConv2d) for m in G.modules()) - 2  # two toRGB are unused


def test_a_call_with_gradients_of_the_weight_lets_the_kernel_go():
    """A fused optimiser does not count as an in-place change, but no gradient comes without such a call."""
    layer = frozen()
    layer(X)
    layer.requires_grad_(True)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=True)
    layer(X).sum().backward()
    optimizer.step()
    layer.requires_grad_(False)
    torch.testing.assert_close(layer(X), anew(layer, X), rtol=1e-5, atol=1e-6)


# ---- changes of the weight ---------------------------------------------------------------------------------


def in_place(layer):
    with torch.no_grad():
        layer.weight.mul_(2)


def one_element(layer):
    layer.weight[1, 2, 0, 0] = 7.0


def assignment(layer):
    layer.weight = nn.Parameter(torch.randn_like(layer.weight), requires_grad=False)


def data(layer):
    layer.weight.data = torch.randn_like(layer.weight)


def loading(layer):
    layer.load_state_dict(frozen(seed=5).state_dict())


def loading_by_assignment(layer):
    layer.load_state_dict({k: v.clone() for k, v in frozen(seed=5).state_dict().items()}, assign=True)


def data_in_place_and_train(layer):
    layer.weight.data.mul_(2)
    layer.train().eval()


def average(layer):
    update_ema(layer, frozen(seed=5), 0.5)


def inference(layer):
    with torch.inference_mode():
        layer.weight.mul_(2)


@pytest.mark.parametrize(
    "change",
    [in_place, one_element, assignment, data, loading, loading_by_assignment, data_in_place_and_train,
     average, inference],
)  # fmt: skip
def test_after_a_change_of_the_weight_the_kernel_is_made_anew(change):
    layer = frozen()
    before = layer(X)
    change(layer)
    after = layer(X)
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(after, anew(layer, X), rtol=1e-5, atol=1e-6)


def test_weights_that_are_swapped_twice_are_not_taken_for_the_first_ones():
    """The memory of the first is not given to the third while its kernel is kept."""
    layer = frozen()
    layer(X)
    for seed in range(8):
        layer.weight.data = frozen(seed=seed + 1).weight.data
    torch.testing.assert_close(layer(X), anew(layer, X), rtol=1e-5, atol=1e-6)


def test_changing_precision_and_back_changes_the_kernel_and_back():
    G = generator()
    exact = image(G)
    G.set_precision("bf16")
    rough = image(G)
    assert {f.kernel.dtype for f in kept(G)} == {torch.bfloat16}
    assert 0 < (rough - exact).abs().max() < 0.5
    G.set_precision("fp32")
    assert torch.equal(image(G), exact)


def test_casting_a_network_casts_the_kernels_it_has_kept():
    layer = frozen()
    layer(X)
    layer.double()
    y = layer(X.double())
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, anew(layer, X.double()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("move", [lambda m: m.train(), lambda m: m.double(), lambda m: m.to("meta")])
def test_train_casts_and_moves_free_the_memory_of_the_kernels(move):
    G = generator()
    image(G)
    assert kept(G)
    move(G)
    assert not kept(G)


# ---- who never sees it -------------------------------------------------------------------------------------


def test_kernels_are_in_no_state_dict_buffer_parameter_copy_or_pickle():
    G = generator()
    names, buffers = set(G.state_dict()), len(list(G.buffers()))
    expected = image(G)
    assert kept(G)
    assert set(G.state_dict()) == names
    assert len(list(G.buffers())) == buffers
    stream = io.BytesIO()
    torch.save(G, stream)
    stream.seek(0)
    for copied in (
        copy.deepcopy(G),
        pickle.loads(pickle.dumps(G)),
        torch.load(stream, weights_only=False),
    ):
        assert not kept(copied)
        assert torch.equal(image(copied), expected)
        assert kept(copied)
    assert kept(G)


def test_a_snapshot_is_the_same_before_and_after_a_picture(tmp_path):
    G = generator()
    save_generator(tmp_path / "before.pkl", G)
    expected = image(G)
    save_generator(tmp_path / "after.pkl", G)
    assert (tmp_path / "before.pkl").read_bytes() == (tmp_path / "after.pkl").read_bytes()
    assert torch.equal(image(load_generator(tmp_path / "after.pkl")), expected)


def test_the_moving_average_moves_although_its_kernels_were_kept():
    average_, live = generator(), generator(seed=5).train().requires_grad_(True)
    first = image(average_)
    update_ema(average_, live, 0.0)
    assert (image(average_) - first).abs().max() > 0.01
    torch.testing.assert_close(image(average_), image(copy.deepcopy(live)), rtol=1e-4, atol=1e-5)


# ---- gradients, modes, tracing -----------------------------------------------------------------------------


def test_an_image_can_be_traced_back_to_its_latent_through_kept_kernels():
    G = generator()
    z, c = G.sample_latents(2, generator=torch.Generator().manual_seed(0))
    slopes = []
    for network in (G, G, copy.deepcopy(G).train()):
        latent = z.clone().requires_grad_()
        network(latent, c, noise="const").square().sum().backward()
        slopes.append(latent.grad)
    assert slopes[0].abs().max() > 0
    assert torch.equal(slopes[0], slopes[1])
    torch.testing.assert_close(slopes[0], slopes[2], rtol=1e-3, atol=1e-5 * slopes[0].abs().max().item())


def test_kernels_made_in_inference_mode_serve_outside_of_it_with_gradients():
    layer = frozen()
    with torch.inference_mode():
        inside = layer(X)
    x = X.clone().requires_grad_()
    outside = layer(x)
    outside.sum().backward()
    assert x.grad is not None
    assert torch.equal(outside, inside)


def test_transforms_of_functions_leave_no_kernel_behind_that_spoils_a_later_call():
    layer = frozen()
    expected = anew(layer, X)
    torch.func.grad(lambda x: layer(x).sum())(X)
    torch.testing.assert_close(layer(X), expected, rtol=1e-5, atol=1e-6)
    layer.train().eval()
    torch.func.vmap(lambda x: layer(x[None])[0])(X)
    torch.testing.assert_close(layer(X), expected, rtol=1e-5, atol=1e-6)


def test_weights_passed_from_outside_are_used_and_the_layers_own_afterwards():
    layer, other = frozen(), frozen(seed=5)
    own = layer(X)
    passed = torch.func.functional_call(layer, dict(other.named_parameters()), (X,))
    torch.testing.assert_close(passed, anew(other, X), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer(X), own, rtol=0, atol=0)
    torch.func.functional_call(layer, {"weight": other.weight * 3}, (X,))
    torch.testing.assert_close(layer(X), own, rtol=0, atol=0)


def test_an_ensemble_of_weights_is_mapped_over_by_a_layer_that_has_kept_its_own():
    layer, other = frozen(), frozen(seed=5)
    own = layer(X)
    weights = torch.stack([layer.weight, other.weight])
    both = torch.func.vmap(lambda w: torch.func.functional_call(layer, {"weight": w}, (X,)))(weights)
    torch.testing.assert_close(both[0], own, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(both[1], anew(other, X), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer(X), own, rtol=0, atol=0)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_generator_holds_its_weights_and_not_kernels(strict):
    class Picture(nn.Module):
        def __init__(self, G):
            super().__init__()
            self.G = G

        def forward(self, z, c):
            return self.G(z, c, noise="const", resolution=16, fade=1.0)

    G = generator()
    expected = image(G)
    z, c = G.sample_latents(3, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = ({0: batch}, {0: batch})
    program = torch.export.export(Picture(G), (z, c), dynamic_shapes=shapes, strict=strict)
    assert {name.removeprefix("G.") for name in program.state_dict} >= {n for n, _ in G.named_parameters()}
    named = [(k, v) for k, v in program.constants.items() if isinstance(v, torch.Tensor)]
    constants = [v for k, v in named if not k.endswith("noise_bank")]
    assert all(v.numel() <= 16 * 16 for v in constants)  # noise and filters, no kernel
    run = program.module()
    torch.testing.assert_close(run(z, c), expected, rtol=1e-4, atol=1e-5)
    z, c = G.sample_latents(5)
    torch.testing.assert_close(run(z, c), G(z, c, noise="const"), rtol=1e-4, atol=1e-5)
    assert all(type(f.kernel) is torch.Tensor for f in kept(G))
    assert torch.equal(image(G), expected)


def test_a_traced_layer_holds_its_weight_and_follows_it():
    layer = frozen()
    layer(X)
    traced = torch.jit.trace(layer, X)
    in_place(layer)
    torch.testing.assert_close(traced(X), anew(layer, X), rtol=1e-5, atol=1e-6)


def test_a_compiled_layer_follows_its_weight():
    layer = frozen()
    compiled = torch.compile(layer, backend="aot_eager")
    torch.testing.assert_close(compiled(X), anew(layer, X), rtol=1e-5, atol=1e-6)
    in_place(layer)
    torch.testing.assert_close(compiled(X), anew(layer, X), rtol=1e-5, atol=1e-6)


# ---- layout ------------------------------------------------------------------------------------------------


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_rearranging_to_channels_first_changes_the_place_of_numbers_and_not_their_value(n, c, h, w):
    x = torch.randn(n, c, h, w)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        last = x.to(dtype).contiguous(memory_format=torch.channels_last)
        first = channels_first(last)
        assert first.is_contiguous()
        assert torch.equal(first, last)


def test_a_kept_up_convolution_gives_channels_first_and_one_that_wants_gradients_has_them():
    layer = frozen("up")
    x = torch.randn(2, 3, 9, 7)
    expected = anew(layer, x)
    y = layer(x)
    assert y.is_contiguous()
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    wanting = x.clone().requires_grad_()
    layer(wanting).square().sum().backward()
    by_hand = x.clone().requires_grad_()
    anew(layer, by_hand).square().sum().backward()
    torch.testing.assert_close(wanting.grad, by_hand.grad, rtol=1e-5, atol=1e-5)
