"""Resizing as Pillow does it, in floating point: filters that widen when they shrink an image.

Pillow rounds what it resizes to 8 bits; what FID's literature calls clean resizing (Parmar et al. 2022) is
its bicubic filter without rounding. Here it is a matrix product for each axis.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.clip(1.0 - np.abs(x), 0.0, None)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


FILTERS = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0)}


@functools.lru_cache(maxsize=8)
def weights(size: int, wanted: int, filter_name: str) -> Tensor:
    """The matrix float32 [wanted, size] that resizes one axis; its rows add up to 1."""
    kernel, reach = FILTERS[filter_name]
    step = size / wanted
    scale = max(step, 1.0)
    centres = (np.arange(wanted) + 0.5) * step
    # Pillow's window: the pixels whose centres lie within reach, cut off at whole pixels and at the edges.
    first = np.maximum((centres - reach * scale + 0.5).astype(np.int64), 0)
    past = np.minimum((centres + reach * scale + 0.5).astype(np.int64), size)
    pixels = np.arange(size)
    matrix = kernel((pixels[None] + 0.5 - centres[:, None]) / scale)
    matrix *= (pixels[None] >= first[:, None]) & (pixels[None] < past[:, None])
    matrix /= matrix.sum(axis=1, keepdims=True)
    return torch.from_numpy(matrix.astype(np.float32))


def resize(images: Tensor, size: int, filter_name: str) -> Tensor:
    """Float images [N, C, H, W] -> [N, C, size, size], unrounded."""
    height, width = images.shape[2:]
    if width != size:
        images = images @ weights(width, size, filter_name).to(images.device).T
    if height != size:
        images = weights(height, size, filter_name).to(images.device) @ images
    return images
