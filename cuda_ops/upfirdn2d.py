"""`upfirdn2d`: upsample, pad, filter with an FIR and downsample images, and the usual ways to call it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .bias_act import check_dtype, compute_dtype, resolve_impl

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# From so many taps on, two passes with a 1-D filter are preferred to one with its 2-D outer product. By the
# convention that users of StyleGAN know; it's also about where the second pass over the image begins to pay.
_SEPARABLE_FROM = 8


class _Axis(NamedTuple):
    """What the op does along one axis."""

    up: int
    down: int
    pad0: int
    pad1: int

    def out_size(self, size: int, taps: int) -> int:
        return (size * self.up + self.pad0 + self.pad1 - taps + self.down) // self.down

    def transposed(self, size: int, taps: int) -> _Axis:
        """The axis of the gradient, which maps `out_size` back to `size`."""
        end = size * self.up - self.out_size(size, taps) * self.down + self.pad0 - self.up + 1
        return _Axis(up=self.down, down=self.up, pad0=taps - self.pad0 - 1, pad1=end)


_IDLE = _Axis(up=1, down=1, pad0=0, pad1=0)


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
        separable = taps.ndim == 1 and taps.numel() >= _SEPARABLE_FROM
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
        RuntimeError: the back end asked for isn't built.
    """
    resolve_impl("upfirdn2d", impl)
    check_dtype("upfirdn2d", "x", x)
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
    axis_x, axis_y = _Axis(up_x, down_x, x0, x1), _Axis(up_y, down_y, y0, y1)
    out_h, out_w = axis_y.out_size(x.shape[2], f.shape[0]), axis_x.out_size(x.shape[3], f.shape[-1])
    if out_h < 1 or out_w < 1:
        raise ValueError(
            f"upfirdn2d: no output is left ({out_h}x{out_w}): x {tuple(x.shape)}, f {tuple(f.shape)}, "
            f"up {up}, down {down}, padding {padding}"
        )
    return _apply(x, f, axis_x, axis_y, bool(flip_filter), float(gain))


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
    return f.shape[-1], f.shape[0]


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


# -------------------------------------------------------------------------------------- reference back end


def _apply(x: Tensor, f: Tensor, axis_x: _Axis, axis_y: _Axis, flip: bool, gain: float) -> Tensor:
    """The op on checked arguments, differentiable."""
    if x.requires_grad and torch.is_grad_enabled():
        return _UpFirDn2d.apply(x, f, axis_x, axis_y, flip, gain)
    return _upfirdn2d_ref(x, f, axis_x, axis_y, flip, gain)  # exporters see plain torch


class _UpFirDn2d(torch.autograd.Function):
    """The op with its gradient, which is the op itself with other arguments; hence any order.

    Autograd could differentiate the reference by itself, but its double backward of a grouped convolution is
    several times slower, and it would hold on to the image. There is no jvp, as torch.compile refuses
    functions that have one.
    """

    generate_vmap_rule = True  # for torch.func.vmap, as in gradients per image

    @staticmethod
    def forward(x: Tensor, f: Tensor, axis_x: _Axis, axis_y: _Axis, flip: bool, gain: float) -> Tensor:
        return _upfirdn2d_ref(x, f, axis_x, axis_y, flip, gain)

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
        return _apply(grads[0], f, axis_x, axis_y, not flip, gain), None, None, None, None, None


def _upfirdn2d_ref(x: Tensor, f: Tensor, axis_x: _Axis, axis_y: _Axis, flip: bool, gain: float) -> Tensor:
    """The specification."""
    memory_format = _memory_format(x)
    if x.numel() == 0:  # conv2d refuses to have no channels
        size = axis_y.out_size(x.shape[2], f.shape[0]), axis_x.out_size(x.shape[3], f.shape[-1])
        return x.new_empty([*x.shape[:2], *size])
    f = (f.flip(list(range(f.ndim))) if flip else f).to(compute_dtype(x.dtype))
    y = x.to(f.dtype)
    with _no_autocast(x):
        if f.ndim == 2:
            y = _convolve(y, f * gain, axis_x, axis_y)
        elif f.numel() < _SEPARABLE_FROM:
            y = _convolve(y, torch.outer(f, f) * gain, axis_x, axis_y)
        else:
            y = _convolve(y, f[None, :] * gain, axis_x, _IDLE)
            y = _convolve(y, f[:, None], _IDLE, axis_y)
    return y.to(x.dtype).contiguous(memory_format=memory_format)


def _convolve(x: Tensor, f: Tensor, axis_x: _Axis, axis_y: _Axis) -> Tensor:
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


def _no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Autocast would round the filter and a float32 image to half precision."""
    kind = x.device.type
    on = kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


def _memory_format(x: Tensor) -> torch.memory_format:
    """The memory format to give a result for `x` [N, C, H, W], also if `x` is a slice of another tensor."""
    nhwc = x.shape[1] > 1 and x.stride(1) == 1 and not x.is_contiguous()
    return torch.channels_last if nhwc else torch.contiguous_format
