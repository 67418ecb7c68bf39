"""Convolution for a gradient penalty: its second derivatives cost no more than its first.

PyTorch differentiates the gradient of a convolution by convolving with images in the place of kernels,
which takes about twice the time of the kernel's gradient that it is. Here each of the three products of a
convolution is differentiated by the other two, at any order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

convolution = torch.ops.aten.convolution
convolution_backward = torch.ops.aten.convolution_backward


class Geometry(NamedTuple):
    """Of the convolution x, w -> y; `x` and `w` are their shapes."""

    stride: int
    padding: int
    x: tuple[int, ...]
    w: tuple[int, ...]

    def like(self, shape: tuple[int, ...], other: Tensor) -> Tensor:
        """A tensor whose shape and layout alone are read."""
        last = other.stride(1) == 1 and other.shape[1] > 1
        layout = torch.channels_last if last else torch.contiguous_format
        return torch.empty(shape, dtype=other.dtype, device=other.device, memory_format=layout)


def compute(op: str, a: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
    """y from x and w (`forward`), x from y and w (`transposed`), or w from x and y (`kernel`)."""
    stride, padding = [geometry.stride] * 2, [geometry.padding] * 2
    if op == "forward":
        return convolution(a, b, None, stride, padding, [1, 1], False, [0, 0], 1)
    if op == "transposed":
        x = geometry.like(geometry.x, a)
        mask = [True, False, False]
        return convolution_backward(a, x, b, None, stride, padding, [1, 1], False, [0, 0], 1, mask)[0]
    w = torch.empty(geometry.w, dtype=a.dtype, device=a.device)
    mask = [False, True, False]
    return convolution_backward(b, a, w, None, stride, padding, [1, 1], False, [0, 0], 1, mask)[1]


# The gradient of each operand: the product, and its operands, of which 2 is the incoming gradient.
GRADIENTS = {
    "forward": (("transposed", 2, 1), ("kernel", 0, 2)),
    "transposed": (("forward", 2, 1), ("kernel", 2, 0)),
    "kernel": (("transposed", 1, 2), ("forward", 0, 2)),
}


class Call(NamedTuple):
    """A product and its operands, hidden from autograd in a tuple."""

    op: str
    operands: tuple[Tensor, Tensor]
    geometry: Geometry

    def gradient(self, operand: int, incoming: Tensor) -> Tensor:
        op, a, b = GRADIENTS[self.op][operand]
        values = (*self.operands, incoming)
        return product(op, values[a], values[b], self.geometry)


class Product(torch.autograd.Function):
    """The product, with the gradient of one operand; that of the other is left to a `Gate`."""

    @staticmethod
    def forward(ctx: Any, live: Tensor, gate: Tensor | None, call: Call, operand: int) -> Tensor:
        ctx.call, ctx.operand = call, operand
        return compute(call.op, *call.operands, call.geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        passed = grads[0] if ctx.needs_input_grad[1] else None
        return ctx.call.gradient(ctx.operand, grads[0]), passed, None, None


class Gate(torch.autograd.Function):
    """Takes the gradient of the product's result to that of its second operand.

    It is a node of its own because autograd visits the nodes that lead to what was asked for and no others:
    the penalty asks for the gradient of the image alone, and that of the kernel is then not computed. Its
    value, a 0 that is repeated without memory, is never read.
    """

    @staticmethod
    def forward(ctx: Any, live: Tensor, call: Call, shape: torch.Size) -> Tensor:
        ctx.call = call
        return live.new_zeros(()).expand(shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.call.gradient(1, grads[0]), None, None


def result_shape(op: str, a: Tensor, b: Tensor, geometry: Geometry) -> torch.Size:
    if op == "transposed":
        return torch.Size(geometry.x)
    if op == "kernel":
        return torch.Size(geometry.w)
    k, p, s = b.shape[2], geometry.padding, geometry.stride
    height, width = ((size + 2 * p - k) // s + 1 for size in a.shape[2:])
    return torch.Size((a.shape[0], b.shape[0], height, width))


def product(op: str, a: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
    """`compute`, differentiable to any order in both operands."""
    if not torch.is_grad_enabled() or not (a.requires_grad or b.requires_grad):
        return compute(op, a, b, geometry)
    call = Call(op, (a, b), geometry)
    if not b.requires_grad:
        return Product.apply(a, None, call, 0)
    if not a.requires_grad:
        return Product.apply(b, None, call, 1)
    return Product.apply(a, Gate.apply(b, call, result_shape(op, a, b, geometry)), call, 0)


def conv2d(x: Tensor, w: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """`torch.nn.functional.conv2d` of x [N, in, H, W] and w [out, in, k, k], for below a gradient penalty."""
    return product("forward", x, w, Geometry(stride, padding, tuple(x.shape), tuple(w.shape)))
