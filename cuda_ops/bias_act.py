"""`bias_act`: add a bias, apply an activation, scale and clamp; the op after every layer of the networks."""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from .backends import resolve_impl
from .reference import ACTIVATIONS

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_dtype(op: str, name: str, x: Tensor) -> None:
    """Raises TypeError unless `x` is a tensor of a type that the ops take."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        raise TypeError(f"{op}: {name} must be float32, float16, bfloat16 or float64, got {x.dtype}")


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
        RuntimeError: the back end asked for isn't built, or can't take `x`; or it is asked for within a
            transform of torch.func.
    """
    check_dtype("bias_act", "x", x)
    ops = resolve_impl("bias_act", impl, x)
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
        dim %= x.ndim
    clamp = None if clamp is None else float(clamp)
    arguments = (x, b, dim, act, alpha or 0.0, gain, clamp)
    if ops is None:
        return reference.bias_act(*arguments)
    if b is None and act == "linear" and gain == 1 and clamp is None:
        return x
    return ops.bias_act(*arguments)
