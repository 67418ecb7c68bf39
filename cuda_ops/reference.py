"""Both ops in plain torch: the specification that every other back end is tested against.

The public functions run it for ``impl="ref"``. The derivatives of `bias_act` are written out, for the
reference itself and for the operators of `library`: as their implementation where no native one is loaded,
and for the orders beyond the second, which have no kernel. `upfirdn2d` is its own derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# From so many taps on, two passes with a 1-D filter are preferred to one with its 2-D outer product. By the
# convention that users of StyleGAN know; it's also about where the second pass over the image begins to pay.
SEPARABLE_FROM = 8


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type to compute in: fp32 for the half types, whose rounding adds up; else `dtype` itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Autocast would round filters and float32 images to half precision."""
    kind = x.device.type
    on = kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


# ------------------------------------------------------------------------------------------------ bias_act


class Activation(NamedTuple):
    """One activation, and what `bias_act` assumes for it when the caller says nothing."""

    func: Callable[..., Tensor]
    inplace: Callable[..., Tensor] | None = (
        None  # the same into its argument; only if its gradient needs no input
    )
    gain: float = 1.0
    alpha: float | None = None  # None: the function takes no alpha
    homogeneous: bool = (
        False  # func(s·x) = s·func(x) for s > 0, so that a gain may as well be applied before it
    )


_SQRT2 = math.sqrt(2)
ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x: x, lambda x: x, homogeneous=True),
    "relu": Activation(torch.relu, torch.relu_, gain=_SQRT2, homogeneous=True),
    "lrelu": Activation(F.leaky_relu, F.leaky_relu_, gain=_SQRT2, alpha=0.2, homogeneous=True),
    "tanh": Activation(torch.tanh, torch.tanh_),
    "sigmoid": Activation(torch.sigmoid, torch.sigmoid_),
    "elu": Activation(F.elu),
    "selu": Activation(F.selu),
    "softplus": Activation(F.softplus),
    "swish": Activation(F.silu, gain=_SQRT2),
}
PIECEWISE_LINEAR = ("linear", "relu", "lrelu")


def along(b: Tensor, dim: int, ndim: int) -> Tensor:
    """`b` [n] shaped to broadcast along axis `dim` of a tensor of `ndim` axes."""
    return b.reshape([-1 if d == dim else 1 for d in range(ndim)])


def bias_act(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    """The op on checked arguments (`dim` at least 0; `alpha` any number for most activations)."""
    if b is None and act == "linear" and gain == 1 and clamp is None:
        return x
    if torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad)):
        return _BiasAct.apply(x, b, dim, act, alpha, gain, clamp)
    return bias_act_forward(x, b, dim, act, alpha, gain, clamp)  # exporters see plain torch


class _BiasAct(torch.autograd.Function):
    """The op with `bias_act_backward` for its gradient.

    Torch's own gradients of relu and clamp would hide an infinite or NaN `dy` where the slope is 0; here the
    gradient is the product of both, as in the kernels.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
    ) -> Tensor:
        return bias_act_forward(x, b, dim, act, alpha, gain, clamp)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, b, *math = inputs
        ctx.math = math
        ctx.ref_is_output = output_tells_slope(*math)
        ctx.save_for_backward(output if ctx.ref_is_output else x, None if ctx.ref_is_output else b)
        ctx.bias_dtype = None if b is None else b.dtype

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ref, b = ctx.saved_tensors
        dim, act, alpha, gain, clamp = ctx.math
        dx, db = bias_act_backward(grads[0], None, ref, b, dim, act, alpha, gain, clamp, ctx.ref_is_output)
        return dx, db.to(ctx.bias_dtype) if ctx.needs_input_grad[1] else None, *[None] * 5


def output_tells_slope(dim: int, act: str, alpha: float, gain: float, clamp: float | None) -> bool:
    """Whether the sign of the result does: then it is saved, which the next layer holds on to anyway."""
    return act in ("relu", "lrelu") and clamp is None and gain > 0


def bias_act_forward(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    """The specification.

    Each step writes into the buffer of the step before where nobody else needs that buffer: memory traffic is
    all that this op costs.
    """
    spec = ACTIVATIONS[act]
    y = x.to(compute_dtype(x.dtype))
    if b is not None:
        b = along(b, dim, x.ndim).to(y.dtype)

    if y is x and gain > 0 and gain != 1 and spec.homogeneous:
        # gain · act(x + b) = act(gain · x + gain · b): the gain rides along in the pass that adds the bias.
        y = y * gain if b is None else torch.add(b * gain, y, alpha=gain)
        gain = 1.0
    elif b is not None:
        y = y + b if y is x else y.add_(b)

    func = spec.func if y is x or spec.inplace is None else spec.inplace
    y = func(y) if spec.alpha is None else func(y, alpha)

    ours = y is not x
    if gain != 1:
        y = y.mul_(gain) if ours else y * gain
    if clamp is not None:
        y = y.clamp_(-clamp, clamp) if ours else y.clamp(-clamp, clamp)
    return y.to(x.dtype)


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def _activation(u: Tensor, act: str, alpha: float) -> Tensor:
    spec = ACTIVATIONS[act]
    return spec.func(u) if spec.alpha is None else spec.func(u, alpha)


def _slope(u: Tensor, act: str, alpha: float) -> Tensor:
    """act'(u); NaN at NaN."""
    if act == "linear":
        return torch.ones_like(u)
    if act in ("relu", "lrelu"):
        # Of two plain numbers torch.where would make a float32 tensor.
        low = torch.full_like(u, alpha if act == "lrelu" else 0.0)
        return torch.where(u.isnan(), u, torch.where(u > 0, 1.0, low))
    if act == "tanh":
        return 1 - u.tanh().square()
    if act in ("elu", "selu"):
        # The minimum keeps the branch that isn't taken finite, whose gradient would otherwise be 0 · inf.
        low = torch.exp(torch.where(u > 0, 0.0, u))
        if act == "elu":
            return low
        return _SELU_SCALE * torch.where(u > 0, 1.0, _SELU_ALPHA * low)
    s = u.sigmoid()
    if act == "sigmoid":
        return s * (1 - s)
    if act == "softplus":
        return torch.where(u > 20, 1.0, s)  # torch's softplus is linear from there on
    return s * (1 + u * (1 - s))


def _curvature(u: Tensor, act: str) -> Tensor:
    """act''(u) of a smooth activation; NaN at NaN."""
    if act == "tanh":
        t = u.tanh()
        return -2 * t * (1 - t.square())
    if act in ("elu", "selu"):
        scale = 1.0 if act == "elu" else _SELU_SCALE * _SELU_ALPHA
        return scale * torch.where(u > 0, 0.0, torch.exp(torch.where(u > 0, 0.0, u)))
    s = u.sigmoid()
    if act == "sigmoid":
        return s * (1 - s) * (1 - 2 * s)
    if act == "softplus":
        return torch.where(u > 20, 0.0, s * (1 - s))
    return s * (1 - s) * (2 + u * (1 - 2 * s))


def _within(d: Tensor, u: Tensor, act: str, alpha: float, gain: float, clamp: float | None) -> Tensor:
    """gain · d where the clamp passes a gradient (its very bound included), else 0; NaN at NaN."""
    d = d * gain
    if clamp is None:
        return d
    d = torch.where(u.isnan(), u, d)
    return torch.where((gain * _activation(u, act, alpha)).abs() > clamp, 0.0, d)


def sum_along(t: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """[t.shape[dim]]: the sum over every other axis (torch takes an empty list of axes for all of them)."""
    others = [d for d in range(t.ndim) if d != dim]
    return t.sum(others, dtype=dtype) if others else t.to(dtype or t.dtype)


def _add(t: Tensor, b: Tensor | None, dim: int) -> Tensor:
    t = t.to(compute_dtype(t.dtype))
    return t if b is None else t + along(b, dim, t.ndim).to(t.dtype)


def bias_act_backward(
    dy: Tensor,
    dy_b: Tensor | None,
    ref: Tensor | None,
    b: Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
    ref_is_output: bool,
) -> tuple[Tensor, Tensor]:
    """dx like `dy`, and the sum of the unrounded dx along `dim`; differentiable to any order.

    dx is the product of `dy` and a slope, so 0 times an infinite or NaN `dy` is NaN. The slope of a
    piecewise-linear activation is a constant to autograd: the second derivative is absent. `ref` is x, or the
    result where `ref_is_output` (whose sign then tells the side of the kink); `dy_b`, if given, is added to
    `dy` along `dim`.
    """
    grad = _add(dy, dy_b, dim)
    if act in PIECEWISE_LINEAR:
        ref, b = None if ref is None else ref.detach(), None if b is None else b.detach()
    if ref is None:
        dx = grad * gain
    elif ref_is_output:
        dx = grad * gain * _slope(_add(ref, None, dim), act, alpha)
    else:
        u = _add(ref, b, dim)
        dx = grad * _within(_slope(u, act, alpha), u, act, alpha, gain, clamp)
    return dx.to(dy.dtype), sum_along(dx, dim)


def bias_act_double_backward(
    ddx: Tensor | None,
    ddb: Tensor | None,
    dy: Tensor,
    x: Tensor,
    b: Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `bias_act_backward` of a smooth activation in dy, x and b, for those of dx and db."""
    t = _add(torch.zeros_like(x) if ddx is None else ddx, ddb, dim)
    u = _add(x, b, dim)
    d_dy = t * _within(_slope(u, act, alpha), u, act, alpha, gain, clamp)
    d_x = t * _add(dy, None, dim) * _within(_curvature(u, act), u, act, alpha, gain, clamp)
    return d_dy.to(dy.dtype), d_x.to(x.dtype), sum_along(d_x, dim)


# ----------------------------------------------------------------------------------------------- upfirdn2d


class Axis(NamedTuple):
    """What the op does along one axis."""

    up: int
    down: int
    pad0: int
    pad1: int

    def out_size(self, size: int, taps: int) -> int:
        return (size * self.up + self.pad0 + self.pad1 - taps + self.down) // self.down

    def transposed(self, size: int, taps: int) -> Axis:
        """The axis of the gradient, which maps `out_size` back to `size`."""
        end = size * self.up - self.out_size(size, taps) * self.down + self.pad0 - self.up + 1
        return Axis(up=self.down, down=self.up, pad0=taps - self.pad0 - 1, pad1=end)


_IDLE = Axis(up=1, down=1, pad0=0, pad1=0)


def upfirdn2d(x: Tensor, f: Tensor, axis_x: Axis, axis_y: Axis, flip: bool, gain: float) -> Tensor:
    """The op on checked arguments, differentiable to any order."""
    if x.requires_grad and torch.is_grad_enabled():
        return _UpFirDn2d.apply(x, f, axis_x, axis_y, flip, gain)
    return upfirdn2d_forward(x, f, axis_x, axis_y, flip, gain)  # exporters see plain torch


class _UpFirDn2d(torch.autograd.Function):
    """The op with its gradient, which is the op itself with other arguments; hence any order.

    Autograd could differentiate the reference by itself, but its double backward of a grouped convolution is
    several times slower, and it would hold on to the image. There is no jvp, as torch.compile refuses
    functions that have one.
    """

    generate_vmap_rule = True  # for torch.func.vmap, as in gradients per image

    @staticmethod
    def forward(x: Tensor, f: Tensor, axis_x: Axis, axis_y: Axis, flip: bool, gain: float) -> Tensor:
        return upfirdn2d_forward(x, f, axis_x, axis_y, flip, gain)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, f, *ctx.args = inputs
        ctx.save_for_backward(f)
        ctx.size = x.shape[2:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (f,) = ctx.saved_tensors
        axis_x, axis_y, flip, gain = ctx.args
        h, w = ctx.size
        axis_x, axis_y = axis_x.transposed(w, f.shape[-1]), axis_y.transposed(h, f.shape[0])
        return upfirdn2d(grads[0], f, axis_x, axis_y, not flip, gain), None, None, None, None, None


def upfirdn2d_forward(x: Tensor, f: Tensor, axis_x: Axis, axis_y: Axis, flip: bool, gain: float) -> Tensor:
    """The specification."""
    like = memory_format(x)
    if x.numel() == 0:  # conv2d refuses to have no channels
        size = axis_y.out_size(x.shape[2], f.shape[0]), axis_x.out_size(x.shape[3], f.shape[-1])
        return x.new_empty([*x.shape[:2], *size])
    f = (f.flip(list(range(f.ndim))) if flip else f).to(compute_dtype(x.dtype))
    y = x.to(f.dtype)
    with no_autocast(x):
        if f.ndim == 2:
            y = _convolve(y, f * gain, axis_x, axis_y)
        elif f.numel() < SEPARABLE_FROM:
            y = _convolve(y, torch.outer(f, f) * gain, axis_x, axis_y)
        else:
            y = _convolve(y, f[None, :] * gain, axis_x, _IDLE)
            y = _convolve(y, f[:, None], _IDLE, axis_y)
    y = y.to(x.dtype)
    return y if transforms_active() else y.contiguous(memory_format=like)  # vmap can't ask for channels last


def _convolve(x: Tensor, f: Tensor, axis_x: Axis, axis_y: Axis) -> Tensor:
    """The op for a true convolution of each channel of x [N, C, H, W] with f [fh, fw] of the same type."""
    fh, fw = f.shape
    c = x.shape[1]
    if axis_x.up == axis_y.up == 1:
        # conv2d correlates, hence the flip; it pads both sides alike, hence what is padded before.
        px = max(0, min(axis_x.pad0, axis_x.pad1))
        py = max(0, min(axis_y.pad0, axis_y.pad1))
        x = _pad(x, axis_x.pad0 - px, axis_x.pad1 - px, axis_y.pad0 - py, axis_y.pad1 - py)
        weight = f.flip([0, 1]).expand(c, 1, fh, fw)
        return F.conv2d(x, weight, padding=(py, px), stride=(axis_y.down, axis_x.down), groups=c)

    # A transposed convolution inserts zeros and convolves without multiplying by those zeros. It yields every
    # place that some pixel reaches: beyond those where the filter lies inside the unpadded image, taps - 1
    # more at the start and taps - up more at the end (it puts no zeros after the last pixel). Padding keeps
    # some of them; the rest is cut off, by the convolution itself as far as both ends lose alike.
    x0, x1 = fw - 1 - axis_x.pad0, fw - axis_x.up - axis_x.pad1
    y0, y1 = fh - 1 - axis_y.pad0, fh - axis_y.up - axis_y.pad1
    px, py = max(0, min(x0, x1)), max(0, min(y0, y1))
    weight = f.expand(c, 1, fh, fw)
    y = F.conv_transpose2d(x, weight, padding=(py, px), stride=(axis_y.up, axis_x.up), groups=c)
    y = _pad(y, px - x0, px - x1, py - y0, py - y1)
    return y[:, :, :: axis_y.down, :: axis_x.down]


def _pad(x: Tensor, x0: int, x1: int, y0: int, y1: int) -> Tensor:
    """Pad x [N, C, H, W] with zeros, or crop it; a crop may take more than there is and leave but zeros."""
    n, c, h, w = x.shape
    if min(x0, x1) <= -w or min(y0, y1) <= -h:
        return x.new_zeros([n, c, h + y0 + y1, w + x0 + x1])
    return F.pad(x, [x0, x1, y0, y1]) if x0 or x1 or y0 or y1 else x


def memory_format(x: Tensor) -> torch.memory_format:
    """The memory format to give a result for `x` [N, C, H, W], also if `x` is a slice of another tensor."""
    nhwc = x.shape[1] > 1 and x.stride(1) == 1 and not x.is_contiguous()
    return torch.channels_last if nhwc else torch.contiguous_format


def transforms_active() -> bool:
    """Whether this runs within a transform of torch.func: vmap, grad, ..."""
    return torch._C._are_functorch_transforms_active()
