"""The allocator, and how much memory was used."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_INT_MAX = 2**31 - 1


def tune_malloc() -> bool:
    """Make glibc keep and reuse the memory of large tensors; False (and nothing done) on any other system.

    By default glibc serves every block above a threshold (32 MiB at most) by a fresh mapping and gives it
    back when freed. A training step on the CPU allocates and frees the same large tensors again and again,
    so each step pays anew for the kernel to hand out and zero every page: a page fault per 4 KiB. Raising the
    threshold keeps the blocks on the heap; raising the trim threshold keeps the heap from shrinking in
    between. The price is that the process holds its peak until it ends, which a training run does anyway.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  absent on musl, which has no such settings
        mallopt = libc.mallopt
        mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
        mallopt.restype = ctypes.c_int
        # Older versions of glibc refuse more than 32 MiB (half of their arena size) and return 0.
        kept = mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        return bool(mallopt(_M_TRIM_THRESHOLD, _INT_MAX) and kept)
    except (OSError, AttributeError, TypeError):
        return False


def peak_memory_bytes(device: torch.device | str | None = None) -> int:
    """The most memory held so far: of tensors on a CUDA device, else of this process. 0 where unknown."""
    if device is not None and str(device).startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, NumPy or PyTorch says that memory could not be had."""
    # PyTorch has a class of its own for GPUs only; on a CPU its allocator raises a plain RuntimeError.
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return named or isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
