"""`upfirdn2d`: upsample, pad, filter with an FIR and downsample images, and the usual ways to call it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import reference
from .backends import resolve_impl
from .bias_act import check_dtype
from .reference import SEPARABLE_FROM, Axis

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def setup_filter(
    f: Tensor | ArrayLike | None,
    device: torch.device | str | None = None,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> Tensor:
    """Make the float32 filter that the other functions of this module take; never changes its argument.

    Args:
        f: taps [n], or a 2-D filter [fh, fw], or a number (one tap), or None for the identity.
        device: where the result lives; None for where `f` is, or torch's default device if `f` is no tensor.
        normalize: divide by the sum, so that the mean of an image is kept.
        flip_filter: reverse the filter along every axis.
        gain: factor on the magnitude of the image (a 1-D result, applied twice, gets its root).
        separable: keep a 1-D `f` 1-D (applied along both axes in turn) instead of making it 2-D by its outer
            product; None for yes from 8 taps on.

    Returns:
        New tensor [n] or [fh, fw].

    Raises:
        ValueError: `f` is empty, has more than two axes, is 2-D with ``separable=True``, or sums to 0 (or to
            nothing finite) with ``normalize=True``.
    """
    if isinstance(f, Tensor):
        device = f.device if device is None else device
        taps = f.detach().to(device="cpu", dtype=torch.float64)
    else:
        device = torch.get_default_device() if device is None else device
        taps = torch.tensor(1.0 if f is None else f, device="cpu", dtype=torch.float64)
    # From here on nothing is done in place, as taps may share the memory of f.
    if taps.ndim == 0:
        taps = taps[None]
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"setup_filter: f must have shape [taps] or [fh, fw], got {tuple(taps.shape)}")
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= SEPARABLE_FROM
    if separable and taps.ndim == 2:
        raise ValueError(f"setup_filter: separable=True needs a 1-D f, got shape {tuple(taps.shape)}")
    if taps.ndim == 1 and not separable:
        taps = torch.outer(taps, taps)
    if normalize:
        total = float(taps.sum())
        if total == 0 or not math.isfinite(total):
            raise ValueError(f"setup_filter: f sums to {total}; it can't be normalized, pass normalize=False")
        taps = taps / total
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    taps = taps * gain ** (taps.ndim / 2)
    return taps.to(device=device, dtype=torch.float32)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "auto",
) -> Tensor:
    """Upsample, pad, filter and downsample a batch of images; differentiable to any order in `x`.

    Along each axis: put ``up - 1`` zeros after every pixel; pad the upsampled image with zeros (a negative
    padding crops it); convolve with `f`, keeping only the places where the whole filter lies inside; keep
    every `down`-th result, starting at the first: ``out = (in·up + pad0 + pad1 - taps + down) // down``.

    Args:
        x: images [N, C, H, W]; float32, float64, float16 or bfloat16 (the halves are computed in float32).
        f: float32 filter, [taps] (applied along both axes) or [fh, fw], on the device of `x`; None for the
            identity. It gets no gradient.
        up: upsampling factor, one int or [x, y].
        down: downsampling factor, one int or [x, y].
        padding: one int, or [x, y], or [x0, x1, y0, y1] (before and after).
        flip_filter: correlate instead of convolve.
        gain: factor on the result.
        impl: back end: auto, cuda, cpu or ref.

    Returns:
        Images [N, C, outH, outW] like `x` in type, device and memory format.

    Raises:
        TypeError: `x` or `f` is of a type that the op doesn't take.
        ValueError: unknown `impl`; a shape, factor or padding that makes no sense or leaves no output; `f` is
            on another device than `x`, or requires a gradient.
        RuntimeError: the back end asked for isn't built, or can't take `x`; or it is asked for within a
            transform of torch.func.
    """
    check_dtype("upfirdn2d", "x", x)
    ops = resolve_impl("upfirdn2d", impl, x)
    if x.ndim != 4 or x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(
            f"upfirdn2d: x must have shape [N, C, H, W] with H and W at least 1, got {tuple(x.shape)}"
        )
    if f is None:
        f = torch.ones([1], dtype=torch.float32, device=x.device)
    _check_filter("upfirdn2d", f)
    if f.device != x.device:
        raise ValueError(f"upfirdn2d: f is on {f.device}, x on {x.device}; move f there first")
    up_x, up_y = _factors("up", up)
    down_x, down_y = _factors("down", down)
    x0, x1, y0, y1 = _padding(padding)
    axis_x, axis_y = Axis(up_x, down_x, x0, x1), Axis(up_y, down_y, y0, y1)
    out_h, out_w = axis_y.out_size(x.shape[2], f.shape[0]), axis_x.out_size(x.shape[3], f.shape[-1])
    if out_h < 1 or out_w < 1:
        raise ValueError(
            f"upfirdn2d: no output is left ({out_h}x{out_w}): x {tuple(x.shape)}, f {tuple(f.shape)}, "
            f"up {up}, down {down}, padding {padding}"
        )
    if ops is None:
        return reference.upfirdn2d(x, f, axis_x, axis_y, bool(flip_filter), float(gain))
    return ops.upfirdn2d(
        x, f, [up_x, up_y], [down_x, down_y], [x0, x1, y0, y1], bool(flip_filter), float(gain)
    )


def filter2d(
    x: Tensor,
    f: Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "auto",
) -> Tensor:
    """Filter images [N, C, H, W] and keep their size; `padding` is added to what that takes.

    Other arguments, errors and result as in `upfirdn2d`.
    """
    fw, fh = _filter_size(f)
    x0, x1, y0, y1 = _padding(padding)
    pads = [x0 + fw // 2, x1 + (fw - 1) // 2, y0 + fh // 2, y1 + (fh - 1) // 2]
    return upfirdn2d(x, f, padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "auto",
) -> Tensor:
    """Upsample images [N, C, H, W] to [N, C, H·up, W·up] with `f` between the pixels; keeps the mean.

    `padding` is added to what that size takes. Other arguments, errors and result as in `upfirdn2d`.
    """
    up_x, up_y = _factors("up", up)
    fw, fh = _filter_size(f)
    x0, x1, y0, y1 = _padding(padding)
    pads = [
        x0 + (fw + up_x - 1) // 2,
        x1 + (fw - up_x) // 2,
        y0 + (fh + up_y - 1) // 2,
        y1 + (fh - up_y) // 2,
    ]
    # The inserted zeros dim the image by up_x · up_y; the gain undoes that.
    return upfirdn2d(x, f, up=up, padding=pads, flip_filter=flip_filter, gain=gain * up_x * up_y, impl=impl)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "auto",
) -> Tensor:
    """Downsample images [N, C, H, W] to [N, C, H/down, W/down] after filtering with `f`.

    `padding` is added to what that size takes. Other arguments, errors and result as in `upfirdn2d`.
    """
    down_x, down_y = _factors("down", down)
    fw, fh = _filter_size(f)
    x0, x1, y0, y1 = _padding(padding)
    pads = [
        x0 + (fw - down_x + 1) // 2,
        x1 + (fw - down_x) // 2,
        y0 + (fh - down_y + 1) // 2,
        y1 + (fh - down_y) // 2,
    ]
    return upfirdn2d(x, f, down=down, padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


# ---------------------------------------------------------------------------------------------- arguments


def _check_filter(op: str, f: Tensor) -> None:
    if not isinstance(f, Tensor) or f.dtype != torch.float32:
        got = f.dtype if isinstance(f, Tensor) else type(f).__name__
        raise TypeError(f"{op}: f must be a float32 tensor, got {got}; setup_filter makes one")
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"{op}: f must have shape [taps] or [fh, fw], got {tuple(f.shape)}")
    if f.requires_grad:
        raise ValueError(f"{op}: f gets no gradient, so it can't be trained; pass f.detach()")


def _filter_size(f: Tensor | None) -> tuple[int, int]:
    """Width and height of `f`."""
    if f is None:
        return 1, 1
    _check_filter("upfirdn2d", f)
    return int(f.shape[-1]), int(f.shape[0])  # torch.jit.trace makes tensors of sizes


def _ints(name: str, value: int | Sequence[int]) -> list[int]:
    values = [value] if isinstance(value, int) else list(value) if isinstance(value, Sequence) else []
    if not values or not all(isinstance(v, int) for v in values):
        raise ValueError(f"upfirdn2d: {name} must be an int or a list of ints, got {value!r}")
    return values


def _factors(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """`up` or `down` as (x, y)."""
    values = _ints(name, value)
    if len(values) > 2 or min(values) < 1:
        raise ValueError(f"upfirdn2d: {name} must be an int or [x, y], at least 1, got {value!r}")
    return values[0], values[-1]


def _padding(value: int | Sequence[int]) -> tuple[int, int, int, int]:
    """`padding` as (x0, x1, y0, y1)."""
    values = _ints("padding", value)
    if len(values) == 1:
        values *= 4
    elif len(values) == 2:
        values = [values[0], values[0], values[1], values[1]]
    if len(values) != 4:
        raise ValueError(f"upfirdn2d: padding must be an int, [x, y] or [x0, x1, y0, y1], got {value!r}")
    return values[0], values[1], values[2], values[3]
