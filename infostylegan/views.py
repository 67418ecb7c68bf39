"""Random views of an image, through which Q can be made to read the discrete codes.

For any random transform T independent of c, I(C; T(X)) <= I(C; X) (data processing), so the information read
through views is still a lower bound of I(C; X), and maximising it puts the codes into what the views leave
unchanged: identity rather than slant, place or size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ROTATION = math.radians(20.0)
SHEAR = 0.3
SCALE = 0.2
SHIFT = 0.12
CONTRAST = 0.5
THICKNESS = 0.6


def random_view(images: Tensor, strength: float = 1.0) -> Tensor:
    """A random change of stroke (contrast, thickness), then of place (affine), of each image."""
    return random_affine(random_stroke(images, strength), strength)


def random_stroke(images: Tensor, strength: float = 1.0) -> Tensor:
    """Each image scaled in contrast about black and moved towards its 3×3 maximum or minimum at random."""
    ink = images + 1.0
    uniform = (torch.rand(2, images.shape[0], 1, 1, 1, device=images.device) * 2.0 - 1.0) * strength
    uniform = uniform.to(images.dtype)
    thick, thin = F.max_pool2d(ink, 3, 1, 1), -F.max_pool2d(-ink, 3, 1, 1)
    amount = (uniform[1] * THICKNESS).clamp(-1.0, 1.0)
    ink = torch.where(amount > 0.0, ink.lerp(thick, amount.abs()), ink.lerp(thin, amount.abs()))
    return (ink * torch.exp(uniform[0] * CONTRAST)).clamp(max=2.0) - 1.0


def random_affine(images: Tensor, strength: float = 1.0) -> Tensor:
    """Each image [N, C, H, W] in [-1, 1] rotated, sheared, scaled and shifted at random; outside is -1.

    `strength` scales all four ranges. Differentiable with respect to the images.
    """
    n, device = images.shape[0], images.device
    uniform = (torch.rand(6, n, device=device) * 2.0 - 1.0) * strength
    angle, shear = uniform[0] * ROTATION, uniform[1] * SHEAR
    scale_x, scale_y = torch.exp(uniform[2] * SCALE), torch.exp(uniform[3] * SCALE)
    cos, sin = angle.cos(), angle.sin()
    row_x = torch.stack([cos * scale_x, (shear * cos - sin) * scale_y, uniform[4] * 2.0 * SHIFT], dim=1)
    row_y = torch.stack([sin * scale_x, (shear * sin + cos) * scale_y, uniform[5] * 2.0 * SHIFT], dim=1)
    matrix = torch.stack([row_x, row_y], dim=1).to(images.dtype)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1.0, grid, padding_mode="zeros", align_corners=False) - 1.0
