"""The operators that native kernels implement, in a namespace of torch.library.

`bindings.cpp` registers kernels for them. Everything that torch must know beyond the numbers is told here,
once for every back end: schemas, shapes without data (meta and fake tensors, hence torch.compile and
torch.export), gradients. Where no kernel is loaded for a device the operators run in plain torch, so that an
exported program works wherever this package can be imported. Operators with gradients are beyond the
transforms of torch.func; the reference isn't.

Autocast leaves the operators alone: they run in the type of the image, with float32 filters, and whatever
runs in plain torch here does so with autocast turned off.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import reference as ref_impl
from .reference import PIECEWISE_LINEAR, Axis, compute_dtype, memory_format, no_autocast

_MATH = "int dim, str act, float alpha, float gain, float? clamp"
_SCHEMAS = (
    f"bias_act(Tensor x, Tensor? b, {_MATH}) -> Tensor",
    # dx like ref, or like dy without one; db in the type of computation, empty unless with_db
    f"bias_act_backward(Tensor dy, Tensor? dy_b, Tensor? ref, Tensor? b, {_MATH}, bool ref_is_output, "
    "bool with_db) -> (Tensor dx, Tensor db)",
    f"bias_act_double_backward(Tensor? ddx, Tensor? ddb, Tensor dy, Tensor x, Tensor? b, {_MATH}, "
    "bool with_db) -> (Tensor d_dy, Tensor d_x, Tensor d_b)",
    # up, down: [x, y]; padding: [x0, x1, y0, y1], symbolic as that of a gradient depends on sizes
    "upfirdn2d(Tensor x, Tensor f, int[] up, int[] down, SymInt[] padding, bool flip, float gain) -> Tensor",
)


class Operators(NamedTuple):
    """The operators of one namespace, to be called with the arguments of the schemas."""

    namespace: str
    bias_act: Any
    bias_act_backward: Any
    bias_act_double_backward: Any
    upfirdn2d: Any


_libraries: list[torch.library.Library] = []  # an operator lives as long as the library that defines it


@functools.cache
def define_operators(namespace: str) -> Operators:
    """Define the operators in `namespace`, or hand back those defined there before."""
    library = torch.library.Library(namespace, "FRAGMENT")
    _libraries.append(library)
    for schema in _SCHEMAS:
        library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    space = getattr(torch.ops, namespace)
    names = Operators._fields[1:]
    ops = Operators(namespace, *(getattr(space, name).default for name in names))
    rules = _Rules(ops)
    for name in names:
        library.impl(name, _PLAIN[name], "CompositeExplicitAutograd")
        full_name = f"{namespace}::{name}"
        torch.library.register_fake(full_name, _FAKE[name], lib=library)
        torch.library.register_autograd(
            full_name,
            getattr(rules, f"{name}_gradient"),
            setup_context=getattr(rules, f"{name}_setup"),
            lib=library,
        )
    return ops


# ------------------------------------------------------------------------------------- shapes without data


def _db_like(x: Tensor, dim: int, with_db: bool) -> Tensor:
    return x.new_empty([x.shape[dim] if with_db else 0], dtype=compute_dtype(x.dtype))


def _fake_bias_act(x: Tensor, b: Tensor | None, dim: int, *math: Any) -> Tensor:
    return torch.empty_like(x)


def _fake_bias_act_backward(
    dy: Tensor, dy_b: Tensor | None, ref: Tensor | None, b: Tensor | None, dim: int, *rest: Any
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(dy if ref is None else ref), _db_like(dy, dim, rest[-1])


def _fake_bias_act_double_backward(
    ddx: Tensor | None, ddb: Tensor | None, dy: Tensor, x: Tensor, b: Tensor | None, dim: int, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x), _db_like(x, dim, rest[-1])


def _fake_upfirdn2d(
    x: Tensor, f: Tensor, up: list[int], down: list[int], padding: list[int], flip: bool, gain: float
) -> Tensor:
    axis_x, axis_y = _axes(up, down, padding)
    size = axis_y.out_size(x.shape[2], f.shape[0]), axis_x.out_size(x.shape[3], f.shape[-1])
    return torch.empty([*x.shape[:2], *size], dtype=x.dtype, device=x.device, memory_format=memory_format(x))


_FAKE: dict[str, Callable[..., Any]] = {
    "bias_act": _fake_bias_act,
    "bias_act_backward": _fake_bias_act_backward,
    "bias_act_double_backward": _fake_bias_act_double_backward,
    "upfirdn2d": _fake_upfirdn2d,
}


# ---------------------------------------------------------------------- without a kernel: plain torch


def _like(t: Tensor, ref: Tensor) -> Tensor:
    """`t` with the strides of `ref`, in memory of its own: an operator may not hand back its argument."""
    return torch.empty_like(ref).copy_(t)


def _plain_bias_act(x: Tensor, b: Tensor | None, *math: Any) -> Tensor:
    with no_autocast(x):
        return _like(ref_impl.bias_act(x, b, *math), x)


def _plain_bias_act_backward(
    dy: Tensor, dy_b: Tensor | None, ref: Tensor | None, b: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor]:
    with no_autocast(dy):
        dx, db = ref_impl.bias_act_backward(dy, dy_b, ref, b, *rest[:-1])
    return _like(dx, dy if ref is None else ref), db if rest[-1] else db.new_empty([0])


def _plain_bias_act_double_backward(
    ddx: Tensor | None, ddb: Tensor | None, dy: Tensor, x: Tensor, b: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    with no_autocast(x):
        d_dy, d_x, d_b = ref_impl.bias_act_double_backward(ddx, ddb, dy, x, b, *rest[:-1])
    return _like(d_dy, x), _like(d_x, x), d_b if rest[-1] else d_b.new_empty([0])


def _plain_upfirdn2d(
    x: Tensor, f: Tensor, up: list[int], down: list[int], padding: list[int], flip: bool, gain: float
) -> Tensor:
    y = ref_impl.upfirdn2d_forward(x, f, *_axes(up, down, padding), flip, gain)
    like = _fake_upfirdn2d(x, f, up, down, padding, flip, gain)
    # An operator may not hand back its argument, and an axis of one pixel may have come out with any stride.
    return like.copy_(y) if y.data_ptr() == x.data_ptr() or y.stride() != like.stride() else y


_PLAIN: dict[str, Callable[..., Any]] = {
    "bias_act": _plain_bias_act,
    "bias_act_backward": _plain_bias_act_backward,
    "bias_act_double_backward": _plain_bias_act_double_backward,
    "upfirdn2d": _plain_upfirdn2d,
}


# ------------------------------------------------------------------------------------------- gradients


def _axes(up: list[int], down: list[int], padding: list[int]) -> tuple[Axis, Axis]:
    x0, x1, y0, y1 = padding
    return Axis(up[0], down[0], x0, x1), Axis(up[1], down[1], y0, y1)


class _Rules:
    """Gradients, which call the operators of one namespace."""

    def __init__(self, ops: Operators) -> None:
        self.ops = ops

    # ---- bias_act: saves its result where the sign of that tells the slope (the next layer holds on to it
    # anyway), else its input; for a linear one nothing

    def bias_act_setup(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, b, dim, act, alpha, gain, clamp = inputs
        ctx.math = dim, act, alpha, gain, clamp
        ctx.bias_dtype = None if b is None else b.dtype
        ctx.ref_is_output = ref_impl.output_tells_slope(dim, act, alpha, gain, clamp)
        ctx.set_materialize_grads(False)  # so that an absent second derivative stays absent
        if act == "linear" and clamp is None:
            ctx.save_for_backward(None, None)
        else:
            ctx.save_for_backward(*((output, None) if ctx.ref_is_output else (x, b)))

    def bias_act_gradient(self, ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 7
        ref, b = ctx.saved_tensors
        dim, act, _, gain, clamp = ctx.math
        with_db = ctx.needs_input_grad[1]
        if act == "linear" and gain == 1 and clamp is None:
            dx = dy  # and thus no pass over it but the sum's
            db = ref_impl.sum_along(dy, dim, compute_dtype(dy.dtype)) if with_db else None
        else:
            dx, db = self.ops.bias_act_backward(dy, None, ref, b, *ctx.math, ctx.ref_is_output, with_db)
        return dx, db.to(ctx.bias_dtype) if db is not None and with_db else None, None, None, None, None, None

    # ---- bias_act_backward: linear in dy and dy_b, so that its gradient in those is itself

    def bias_act_backward_setup(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        dy, dy_b, ref, b, *math, ctx.ref_is_output, ctx.with_db = inputs
        ctx.math = math
        ctx.smooth = math[1] not in PIECEWISE_LINEAR
        ctx.dtypes = None if dy_b is None else dy_b.dtype, None if b is None else b.dtype
        ctx.set_materialize_grads(False)
        if ctx.smooth:
            ctx.save_for_backward(ref, b, dy, dy_b)
        else:
            ctx.save_for_backward(ref, b)
            ctx.like = dy.shape, dy.dtype, dy.device

    def bias_act_backward_gradient(
        self, ctx: Any, ddx: Tensor | None, ddb: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ref, b, *dys = ctx.saved_tensors
        need_dy, need_dy_b, need_ref, need_b = ctx.needs_input_grad[:4]
        d_dy = d_dy_b = d_ref = d_b = None
        ddb = ddb if ctx.with_db else None  # else it's the gradient of nothing
        if ddx is not None or ddb is not None:
            curved = ctx.smooth and (need_ref or need_b)
            if curved:
                dy, dy_b = dys
                if dy_b is not None:  # only in a third order, where speed is no matter
                    dy = (dy.to(dy_b.dtype) + ref_impl.along(dy_b, ctx.math[0], dy.ndim)).to(dy.dtype)
                d_dy, d_ref, d_b = self.ops.bias_act_double_backward(ddx, ddb, dy, ref, b, *ctx.math, need_b)
            if need_dy_b or (need_dy and not curved):
                if ddx is None:
                    shape, dtype, device = ctx.like if not ctx.smooth else (ref.shape, ref.dtype, ref.device)
                    ddx = torch.zeros(shape, dtype=dtype, device=device)
                d_dy, d_dy_b = self.ops.bias_act_backward(
                    ddx, ddb, ref, b, *ctx.math, ctx.ref_is_output, need_dy_b
                )
        dy_b_dtype, b_dtype = ctx.dtypes
        return (
            d_dy if need_dy else None,
            d_dy_b.to(dy_b_dtype) if need_dy_b and d_dy_b is not None else None,
            d_ref if need_ref else None,
            d_b.to(b_dtype) if need_b and d_b is not None else None,
            *[None] * 7,
        )

    # ---- bias_act_double_backward: no kernel for its gradient, which is left to autograd and plain torch

    def bias_act_double_backward_setup(
        self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]
    ) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.math, ctx.with_db = inputs[5:10], inputs[10]
        ctx.set_materialize_grads(False)

    def bias_act_double_backward_gradient(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()
        with torch.enable_grad(), no_autocast(ctx.saved_tensors[3]):
            # Views, so that an argument that is computed from another one isn't traced back to it here.
            own: list[Any] = [
                None if t is None else t.view_as(t) if again else t.detach().requires_grad_(need)
                for t, need in zip(ctx.saved_tensors, ctx.needs_input_grad)
            ]
            results = ref_impl.bias_act_double_backward(*own, *ctx.math)[: 3 if ctx.with_db else 2]
            pairs = [(r, g) for r, g in zip(results, grads) if g is not None and r.requires_grad]
            wanted = [t for t, need in zip(own, ctx.needs_input_grad) if need]
            found: list[Tensor | None] = [None] * len(wanted)
            if pairs:
                found = list(
                    torch.autograd.grad(
                        [r for r, _ in pairs],
                        wanted,
                        [g for _, g in pairs],
                        create_graph=again,
                        allow_unused=True,
                    )
                )
        return (*(found.pop(0) if need else None for need in ctx.needs_input_grad[:5]), *[None] * 6)

    # ---- upfirdn2d: its own gradient, hence to any order

    def upfirdn2d_setup(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, f, *ctx.args = inputs
        ctx.save_for_backward(f)
        ctx.size = x.shape[2:]

    def upfirdn2d_gradient(self, ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (f,) = ctx.saved_tensors
        up, down, padding, flip, gain = ctx.args
        axis_x, axis_y = _axes(up, down, padding)
        h, w = ctx.size
        axis_x, axis_y = axis_x.transposed(w, f.shape[-1]), axis_y.transposed(h, f.shape[0])
        dx = self.ops.upfirdn2d(
            dy,
            f,
            [axis_x.up, axis_y.up],
            [axis_x.down, axis_y.down],
            [axis_x.pad0, axis_x.pad1, axis_y.pad0, axis_y.pad1],
            not flip,
            gain,
        )
        return dx, None, None, None, None, None, None
