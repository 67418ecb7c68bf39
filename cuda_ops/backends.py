"""Which back ends there are, and which of them a call runs on.

A native back end is built or found when the first call could use it, once a process. Where that fails, one
warning says why and what to do, and everything runs on the reference. Environment variables: docs/ops.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from . import build
from .library import Operators, define_operators
from .reference import transforms_active

IMPLS = ("auto", "cuda", "cpu", "ref")
_SWITCH = "INFOSTYLEGAN_OPS"
_SIMD = "INFOSTYLEGAN_SIMD"

# Defined at once, so that an exported program that names the operators can be loaded.
OPERATORS = define_operators(build.NAMESPACE)


class Status(NamedTuple):
    """The state of one back end."""

    name: str
    ready: bool
    detail: str  # ready: what runs; else the reason
    remedy: str = ""
    path: Path | None = None


class Backend:
    """One native back end; `load` brings it in, at most once a process."""

    def __init__(self, name: str, operators: Operators, loader: Callable[[], Status]) -> None:
        self.name = name
        self.operators = operators
        self._loader = loader
        self._status: Status | None = None
        self._lock = threading.Lock()

    def load(self, warn: bool = False) -> Status:
        """Its state, after a first attempt to load it; `warn` of a failure if this is that attempt."""
        with self._lock:
            if self._status is None:
                self._status = self._attempt()
                if warn and not self._status.ready and not _switched_off():
                    warnings.warn(
                        f"cuda_ops: the native {self.name} kernels are not in use: {self._status.detail}; "
                        f"{self._status.remedy}. Everything works, but slower; {_SWITCH}=ref silences this",
                        RuntimeWarning,
                        stacklevel=5,
                    )
            return self._status

    def _attempt(self) -> Status:
        try:
            return self._loader()
        except build.BuildError as error:
            return Status(self.name, False, error.reason, error.remedy)
        except Exception as error:  # whatever it was, there is the reference
            return Status(self.name, False, f"{type(error).__name__}: {error}", "please report this")


def _check_switch() -> None:
    if _switched_off():
        raise build.BuildError(f"{_SWITCH}=ref turns it off", f"unset {_SWITCH}")


def _load_cpu() -> Status:
    _check_switch()
    path = build.find_or_build("cpu")
    _load_library(path)
    use_simd(os.environ.get(_SIMD) or None, path)
    library = ctypes.CDLL(str(path))
    library.isg_cpu_simd.restype = ctypes.c_char_p
    return Status("cpu", True, library.isg_cpu_simd().decode(), path=path)


def _load_cuda() -> Status:
    _check_switch()
    if not torch.cuda.is_available():
        raise build.BuildError("torch sees no CUDA device", "run on a machine with one")
    path = build.find_or_build("cuda")
    _load_library(path)
    return Status("cuda", True, f"for CUDA {torch.version.cuda}", path=path)


def _load_library(path: Path) -> None:
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        reason = str(error).splitlines()[0][:300]
        raise build.BuildError(
            f"{path} cannot be loaded ({reason})", "delete it, to have it built anew"
        ) from error


def use_simd(name: str | None, path: Path | None = None) -> None:
    """Run the CPU kernels of the instruction set `name`, avx512bf16, avx512, avx2 or base; None: the best.

    Raises BuildError where this machine or build lacks it.
    """
    path = BACKENDS["cpu"].load().path if path is None else path
    if path is None or not ctypes.CDLL(str(path)).isg_cpu_use(name.encode() if name else None):
        raise build.BuildError(f"there are no CPU kernels for {name!r} here", f"unset {_SIMD}")


BACKENDS: dict[str, Backend] = {
    "cpu": Backend("cpu", OPERATORS, _load_cpu),
    "cuda": Backend("cuda", OPERATORS, _load_cuda),
}


def add_backend(name: str, operators: Operators) -> None:
    """Make ``impl=name`` run these operators, whose kernels are loaded already (as tests of kernels do)."""
    BACKENDS[name] = Backend(name, operators, lambda: Status(name, True, "added"))


_default = "auto"


@contextlib.contextmanager
def default_impl(impl: str) -> Iterator[None]:
    """Within this context, in every thread, ``impl="auto"`` means `impl`."""
    global _default
    _check("default_impl", impl)
    before, _default = _default, impl
    try:
        yield
    finally:
        _default = before


def _check(op: str, impl: str) -> None:
    if impl not in IMPLS and impl not in BACKENDS:
        raise ValueError(f"{op}: unknown impl {impl!r}; choose one of {', '.join(map(repr, IMPLS))}")


def resolve_impl(op: str, impl: str, x: Tensor) -> Operators | None:
    """The operators that `op` runs on for this `impl` and `x`, None for the reference.

    Raises ValueError for an unknown name, RuntimeError for a back end that isn't there or can't take `x`.
    """
    _check(op, impl)
    if impl == "auto":
        impl = _default
    if impl == "ref":
        return None
    device = x.device.type
    if impl == "auto":
        if device not in ("cpu", "cuda") or _needs_plain_torch() or not _ready(device, True):
            return None
        return OPERATORS
    if transforms_active():
        raise RuntimeError(
            f"{op}: torch.func's transforms (vmap, grad, ...) can't go through the {impl!r} back end; use "
            "impl='auto' or impl='ref' there"
        )
    if not _ready(impl, False):
        status = BACKENDS[impl].load()
        raise RuntimeError(
            f"{op}: the {impl!r} back end isn't built ({status.detail}); "
            f"{status.remedy}, or use impl='ref' or impl='auto'"
        )
    if impl in ("cpu", "cuda") and device not in (impl, "meta"):
        raise RuntimeError(f"{op}: the {impl!r} back end can't take x on {device}; use impl='auto'")
    return BACKENDS[impl].operators


def _needs_plain_torch() -> bool:
    # What is exported should run where this package is not.
    if torch.jit.is_scripting() or torch.jit.is_tracing():
        return True
    is_exporting = getattr(torch.compiler, "is_exporting", None)  # absent before torch 2.7
    if is_exporting is not None and is_exporting():
        return True
    return transforms_active()  # which know no gradients of operators defined outside torch


def _switched_off() -> bool:
    return os.environ.get(_SWITCH, "").strip().lower() == "ref"


def _ready(name: str, warn: bool) -> bool:
    return BACKENDS[name].load(warn).ready


# torch.compile takes what it says for a constant of the program instead of following it into the build.
# torch.compiler.assume_constant_result does no more than this, but loads the compiler for it.
_ready._dynamo_marked_constant = True  # type: ignore[attr-defined]


def report() -> list[Status]:
    """The state of each native back end, after an attempt to load it."""
    return [BACKENDS[name].load() for name in ("cpu", "cuda")]
