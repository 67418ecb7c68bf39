"""Fused-op wing: `bias_act` and `upfirdn2d`, one public function each, and the filter helpers around them.

Every op takes ``impl="auto" | "cuda" | "cpu" | "ref"``. ``ref`` is plain torch and is the specification that
every other back end is tested against; ``auto`` picks the fastest back end that can take the input.

reference     both ops, and the derivatives of bias_act, in plain torch
library       the operators of torch.library that native kernels implement: shapes, gradients
build         compiles the kernels in csrc/ into a cache
backends      which back ends there are, and which of them a call runs on
"""

from .bias_act import bias_act
from .upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__all__ = ["bias_act", "downsample2d", "filter2d", "setup_filter", "upfirdn2d", "upsample2d"]
