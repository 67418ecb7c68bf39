"""Compiles the native kernels, once for all processes and runs, into a cache.

A build is a shared library that registers kernels for the operators of `library`. It is looked for beside
the sources (where ``INFOSTYLEGAN_BUILD_OPS=1 pip install --no-build-isolation .`` puts it), then in the
cache, and compiled where it is missing. The CPU kernels need nothing but GCC or Clang.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from dnnlib.cache import cache_folder, users_cache
from dnnlib.lock import Taken, exclusive

SOURCES = Path(__file__).resolve().parent / "csrc"
PREBUILT = Path(__file__).resolve().parent / "prebuilt"
NAMESPACE = "infostylegan"
FOLDER = "ops"  # within the cache
COMMAND_TIMEOUT = 900.0  # seconds that one compiler may take
LOCK_TIMEOUT = 1200.0  # seconds to wait for another process that builds

_X86 = platform.machine().lower() in ("x86_64", "amd64")
# The same source once for each instruction set; which of them runs is settled at run time.
_SIMD = {
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"],
    "avx2": [],
    "base": [],
}
_AVX2 = ["-mavx2", "-mfma", "-mf16c"]
# Without this GCC would not vectorise comparisons and conversions; none of it changes a result, NaN included.
_KERNEL = ["-O2", "-fno-math-errno", "-fno-trapping-math"]


class BuildError(Exception):
    """No library: why, and what to do about it, each in a few words."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


def find_or_build(backend: str) -> Path:
    """The library of the back end "cpu" or "cuda" for these sources and this torch, built if there is none.

    Raises BuildError where there is none and none can be built.
    """
    recipe = _recipe(backend)
    prebuilt = PREBUILT / f"{backend}-{_digest(recipe)}.so"
    if prebuilt.exists():
        return prebuilt
    compiler = _compiler()
    key = _digest([recipe, compiler, _version(compiler)])
    folder = cache_folder() / FOLDER
    library = folder / f"{backend}-{key}.so"
    for found in (
        library,
        users_cache() / FOLDER / library.name,
    ):  # a cache for one run needs no build of its own
        if found.exists():
            return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_builder(folder / f"{backend}-{key}.lock"):
            if not library.exists():  # another process may have built it while this one waited
                print(
                    f"cuda_ops: building the {backend} kernels in {folder}, once, within a minute or so",
                    file=sys.stderr,
                    flush=True,
                )
                _build(backend, compiler, library)
    except OSError as error:
        reason = f"{folder} cannot be written ({error.strerror or error})"
        raise BuildError(reason, "point INFOSTYLEGAN_CACHE at a folder that can be") from error
    return library


def build_ahead(dest: Path) -> list[Path]:
    """Build what can be built on this machine into the package folder `dest`; returns the libraries.

    Raises BuildError unless the CPU kernels can be built. Those for CUDA are left out where torch or the
    machine has no CUDA.
    """
    dest.mkdir(parents=True, exist_ok=True)
    (dest / ".gitignore").write_text("*\n")  # where it lies in a working tree
    made = []
    for backend in ("cpu", "cuda"):
        if backend == "cuda" and cuda_obstacle() is not None:
            continue
        library = dest / f"{backend}-{_digest(_recipe(backend))}.so"
        _build(backend, _compiler(), library)
        made.append(library)
    return made


def cuda_obstacle() -> BuildError | None:
    """What keeps the CUDA kernels from being built on this machine, or None."""
    if torch.version.cuda is None:
        return BuildError("this torch is built without CUDA", "install one with CUDA")
    if not list((SOURCES / "cuda").glob("*.cu")):
        return BuildError("the CUDA sources are missing", "install the package anew")
    from torch.utils import cpp_extension

    home = cpp_extension.CUDA_HOME
    if home is None or not (Path(home) / "bin" / "nvcc").exists():
        return BuildError("nvcc was not found", "install the CUDA toolkit, or set CUDA_HOME to where it is")
    if not torch.cuda.is_available() and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return BuildError("torch sees no GPU to build for", "set TORCH_CUDA_ARCH_LIST to build all the same")
    return None


# ------------------------------------------------------------------------------------------------- the key


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def _recipe(backend: str) -> list[object]:
    """All that a library depends on but the compiler, which a prebuilt one has left behind."""
    files = [SOURCES / "ops.h", SOURCES / "bindings.cpp", *sorted((SOURCES / backend).glob("*"))]
    sources = [(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files if f.is_file()]
    gpus = [os.environ.get("TORCH_CUDA_ARCH_LIST", "")] if backend == "cuda" else []
    if backend == "cuda" and torch.cuda.is_available():
        gpus += sorted(str(torch.cuda.get_device_capability(i)) for i in range(torch.cuda.device_count()))
    flags = [_host_flags(), _KERNEL, _SIMD, _AVX2]
    return [
        backend,
        sources,
        torch.__version__,
        torch.version.cuda,
        platform.machine(),
        sys.platform,
        gpus,
        flags,
    ]


def _compiler() -> list[str]:
    wanted = os.environ.get("CXX")
    if wanted:
        command = shlex.split(wanted)
        if command and shutil.which(command[0]):
            return command
        raise BuildError(f"the compiler named by CXX, {wanted!r}, was not found", "mend or unset CXX")
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise BuildError("no C++ compiler was found", "install g++ (Debian, Ubuntu: apt install g++) or clang++")


def _version(compiler: Sequence[str]) -> str:
    try:
        return _run([*compiler, "--version"], timeout=60)
    except BuildError as error:
        raise BuildError(error.reason, "mend it, or name another one in CXX") from error


def describe_compiler() -> str:
    """The compiler that would be used, or why there is none; for people."""
    try:
        compiler = _compiler()
        return f"{shutil.which(compiler[0])}: {_version(compiler).splitlines()[0]}"
    except BuildError as error:
        return str(error)


# ------------------------------------------------------------------------------------------------ the lock


@contextlib.contextmanager
def _only_builder(path: Path) -> Iterator[None]:
    """Hold the lock `path`; it tells who holds it, and its owner's end frees it."""
    me = f"process {os.getpid()} on {socket.gethostname()}"
    deadline = time.monotonic() + LOCK_TIMEOUT
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(exclusive(path, wait=False))
                break
            except Taken:
                if time.monotonic() > deadline:
                    owner = path.read_text().strip() or "another process"
                    raise BuildError(
                        f"{owner} has been building for more than {LOCK_TIMEOUT:.0f} s",
                        f"end it, or delete {path}",
                    ) from None
                time.sleep(0.1)
        gone = path.read_text().strip()
        if gone:
            print(f"cuda_ops: {path.name} was left by {gone}, which is gone; building anew", file=sys.stderr)
        path.write_text(me)
        try:
            yield
        finally:
            path.write_text("")


# ---------------------------------------------------------------------------------------------- the compiler


def _host_flags() -> list[str]:
    # From 2.13 on torch's headers are C++20.
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2] if part.isdigit())
    flags = ["-std=c++20" if version >= (2, 13) else "-std=c++17", "-fPIC", "-fvisibility=hidden", "-w"]
    flags.append(f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}")
    # torch's threads are OpenMP's on Linux; Apple's compiler has none, so that there one thread is used.
    return [*flags, "-fopenmp"] if sys.platform.startswith("linux") else flags


def _run(command: Sequence[str], timeout: float = COMMAND_TIMEOUT, log: Path | None = None) -> str:
    """Standard output of a command. Raises BuildError with the first error line of one that fails."""
    name = Path(command[0]).name
    remedy = f"see {log}" if log else "see what it says when run by hand"
    try:
        # In a session of its own, so that whatever it has started ends with it.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise BuildError(f"{name} could not be run ({error.strerror or error})", remedy) from error
    try:
        output, errors = process.communicate(timeout=timeout)
    except BaseException as error:
        with contextlib.suppress(OSError, AttributeError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise BuildError(
                f"{name} took more than {timeout:.0f} s", "try again on a less busy machine"
            ) from None
        raise
    if process.returncode != 0:
        text = errors.strip() or output.strip()
        if log is not None:
            with contextlib.suppress(OSError):
                log.write_text(f"{shlex.join(command)}\n{text}\n")
        lines = text.splitlines() or [f"exit status {process.returncode}"]
        first = next((line for line in lines if "error" in line.lower()), lines[0])
        raise BuildError(f"{name} failed: {first.strip()[:300]}", remedy)
    return output


def _build(backend: str, compiler: Sequence[str], library: Path) -> None:
    """Compile in a folder of its own, then move the result into place: a reader sees all of it or nothing."""
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=f".{backend}-") as name:
        folder = Path(name)
        compile_all = _compile_cuda if backend == "cuda" else _compile_cpu
        os.replace(compile_all(compiler, folder, library.with_suffix(".log")), library)


def _compile_cpu(compiler: Sequence[str], folder: Path, log: Path) -> Path:
    root = Path(torch.__file__).parent
    common = [*compiler, *_host_flags()]
    torch_flags = ["-O1", f"-I{SOURCES}", "-isystem", str(root / "include")]
    names = [f"-DISG_NAMESPACE={NAMESPACE}", "-DISG_BACKEND=cpu", *(["-DISG_X86"] if _X86 else [])]
    units = []
    for simd in _SIMD if _X86 else ("base",):
        machine = [*_SIMD[simd], *([] if simd == "base" else _AVX2)]
        units.append(("cpu/kernels.cpp", f"kernels_{simd}.o", [*_KERNEL, f"-DISG_SIMD_{simd}", *machine]))
    units.append(("bindings.cpp", "bindings.o", torch_flags + names))
    units.append(("cpu/dispatch.cpp", "dispatch.o", torch_flags + names))

    def compile_one(unit: tuple[str, str, list[str]]) -> str:
        source, result, flags = unit
        _run([*common, *flags, "-c", str(SOURCES / source), "-o", str(folder / result)], log=log)
        return str(folder / result)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(pool.map(compile_one, units))
    library = folder / "library.so"
    libs = ["-ltorch", "-ltorch_cpu", "-lc10"]
    link = ["-shared"] if sys.platform != "darwin" else ["-dynamiclib", "-undefined", "dynamic_lookup"]
    # OpenMP is not linked: its symbols are found in torch's own copy, so that there is one pool of threads.
    _run([*compiler, *link, *objects, f"-L{root / 'lib'}", *libs, "-o", str(library)], log=log)
    return library


# torch's own builder, in a process of its own: it loads what it has built from where it was built, waits for
# ever on a lock file that a killed process left, and heeds no timeout.
_CUDA_SCRIPT = """
import json, sys
from torch.utils.cpp_extension import load
load(**json.loads(sys.argv[1]))
"""


def _compile_cuda(compiler: Sequence[str], folder: Path, log: Path) -> Path:
    obstacle = cuda_obstacle()
    if obstacle is not None:
        raise obstacle
    arguments = {
        "name": "infostylegan_cuda",
        "sources": [str(SOURCES / "bindings.cpp"), *map(str, sorted((SOURCES / "cuda").glob("*.cu")))],
        "extra_cflags": ["-O2", f"-DISG_NAMESPACE={NAMESPACE}", "-DISG_BACKEND=cuda"],
        "extra_cuda_cflags": ["-O3"],
        "extra_include_paths": [str(SOURCES)],
        "build_directory": str(folder),
        "with_cuda": True,
        "is_python_module": False,
    }
    _run([sys.executable, "-c", _CUDA_SCRIPT, json.dumps(arguments)], log=log)
    return folder / "infostylegan_cuda.so"
