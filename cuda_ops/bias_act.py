"""`bias_act`: add a bias, apply an activation, scale and clamp; the op after every layer of the networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IMPLS = ("auto", "cuda", "cpu", "ref")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def resolve_impl(op: str, impl: str) -> str:
    """The back end that `op` will run on for this `impl`; the one place where back ends are chosen.

    Raises ValueError for an unknown name, RuntimeError for a back end that this version lacks.
    """
    if impl not in IMPLS:
        raise ValueError(f"{op}: unknown impl {impl!r}; choose one of {', '.join(map(repr, IMPLS))}")
    if impl in ("cuda", "cpu"):
        raise RuntimeError(
            f"{op}: the {impl!r} back end isn't built in this version; use impl='ref' or impl='auto'"
        )
    return "ref"


def check_dtype(op: str, name: str, x: Tensor) -> None:
    """Raises TypeError unless `x` is a tensor of a type that the ops take."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        raise TypeError(f"{op}: {name} must be float32, float16, bfloat16 or float64, got {x.dtype}")


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type to compute in: fp32 for the half types, whose rounding adds up; else `dtype` itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


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


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """``clamp(gain · act(x + b), ±clamp)``, differentiable to any order in `x` and `b`.

    Args:
        x: any shape; float32, float64, float16 or bfloat16 (the halves are computed in float32).
        b: bias [x.shape[dim]], or None for none.
        dim: the axis of `x` that `b` runs along; unused without `b`.
        act: one of linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish.
        alpha: slope of lrelu for negative values, at least 0; None for 0.2. Other activations ignore it.
        gain: factor after the activation; None for √2 with relu, lrelu and swish, else 1.
        clamp: bound on the absolute value of the result, at least 0; None for none. NaN passes through.
            The gradient at the bound itself is passed, beyond it it is 0.
        impl: back end: auto, cuda, cpu or ref.

    Returns:
        Tensor like `x` in shape, type, device and memory format; `x` itself where there is nothing to do
        (linear, no bias, gain 1, no clamp).

    Raises:
        TypeError: `x` or `b` is of a type that the op doesn't take.
        ValueError: unknown `act` or `impl`; `b` doesn't fit `x`; `alpha` or `clamp` is negative or NaN.
        RuntimeError: the back end asked for isn't built.
    """
    resolve_impl("bias_act", impl)
    check_dtype("bias_act", "x", x)
    if act not in ACTIVATIONS:
        raise ValueError(f"bias_act: unknown act {act!r}; choose one of {', '.join(ACTIVATIONS)}")
    spec = ACTIVATIONS[act]
    alpha = spec.alpha if alpha is None else float(alpha)
    gain = spec.gain if gain is None else float(gain)
    if alpha is not None and not alpha >= 0:
        # A fused gradient reads the side of the kink from the sign of the output, which needs alpha >= 0.
        raise ValueError(f"bias_act: alpha must be at least 0, got {alpha}")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"bias_act: clamp must be at least 0, or None for none, got {clamp}")
    if b is not None:
        check_dtype("bias_act", "b", b)
        if not -x.ndim <= dim < x.ndim:
            raise ValueError(f"bias_act: dim {dim} is out of range for x of shape {tuple(x.shape)}")
        if b.ndim != 1 or b.shape[0] != x.shape[dim]:
            raise ValueError(
                f"bias_act: b must have shape [{x.shape[dim]}] to fit x of shape {tuple(x.shape)} "
                f"along dim {dim}, got {tuple(b.shape)}"
            )
        b = b.reshape([-1 if d == dim % x.ndim else 1 for d in range(x.ndim)])
    return _bias_act_ref(x, b, spec, alpha, gain, None if clamp is None else float(clamp))


def _bias_act_ref(
    x: Tensor, b: Tensor | None, spec: Activation, alpha: float | None, gain: float, clamp: float | None
) -> Tensor:
    """The specification. `b` comes shaped to broadcast against `x`.

    Each step writes into the buffer of the step before where nobody else needs that buffer: memory traffic is
    all that this op costs.
    """
    needs_grad = torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
    y = x.to(compute_dtype(x.dtype))
    if b is not None:
        b = b.to(y.dtype)

    if y is x and gain > 0 and gain != 1 and spec.homogeneous:
        # gain · act(x + b) = act(gain · x + gain · b): the gain rides along in the pass that adds the bias.
        y = y * gain if b is None else torch.add(b * gain, y, alpha=gain)
        gain = 1.0
    elif b is not None:
        y = y + b if y is x else y.add_(b)

    act = spec.func if y is x or spec.inplace is None else spec.inplace
    y = act(y) if spec.alpha is None else act(y, alpha)

    # From here on autograd may hold y (it keeps the output of most activations for the backward pass).
    ours = not needs_grad and y is not x
    if gain != 1:
        y = y.mul_(gain) if ours else y * gain
    if clamp is not None:
        y = y.clamp_(-clamp, clamp) if ours else y.clamp(-clamp, clamp)
    return y.to(x.dtype)
