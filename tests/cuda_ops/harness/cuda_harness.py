"""Builds the parts of the harness that checks CUDA kernels without a GPU; docs/cuda.md tells how it works.

Objects are kept in a folder of the system's temporary directory, under a name that covers their sources, so
that a second run compiles nothing.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import ptx2cpp

HARNESS = Path(__file__).resolve().parent
CSRC = HARNESS.parents[2] / "cuda_ops" / "csrc"
KERNELS = ("bias_act", "upfirdn2d")

# Small limits, so that loops over pieces, grids and shares run more than once on small tensors.
SMALL = ("-DISG_MAX_ELEMENTS=2048", "-DISG_MAX_BLOCKS=2", "-DISG_FEW_THREADS=512", "-DISG_SHARE=512")
# As torch.utils.cpp_extension passes.
NVCC_FLAGS = (
    "-std=c++20",
    "-O3",
    "-D__CUDA_NO_HALF_OPERATORS__",
    "-D__CUDA_NO_HALF_CONVERSIONS__",
    "-D__CUDA_NO_HALF2_OPERATORS__",
    "-D__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "--expt-relaxed-constexpr",
)
STRICT = ("-Werror", "all-warnings", "-Xptxas", "-v,-Werror,-warn-spills,-warn-lmem-usage")
SANITIZERS = {
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
    "thread": ("-fsanitize=thread",),
}
# ASan looks for leaks with ptrace, which containers forbid; fibers' stacks would count as leaks anyway.
SANITIZER_ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1:exitcode=66"}


class BuildError(Exception):
    """A compiler refused; the message is its output."""


@functools.cache
def nvcc() -> str | None:
    """nvcc of CUDA_HOME, of /usr/local/cuda or on PATH; None if there is none."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    for home in filter(None, homes):
        if (found := Path(home) / "bin" / "nvcc").is_file():
            return str(found)
    return shutil.which("nvcc")


@functools.cache
def compiler() -> str | None:
    """The host C++ compiler: CXX, else g++; None if there is none. (Sanitizers are tried with gcc only.)"""
    return shutil.which(os.environ.get("CXX", "g++"))


@functools.cache
def has_sanitizer(name: str) -> bool:
    """Can this compiler link a program with the sanitizer, and does such a program run here?"""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "t.cpp"), Path(folder, "t")
        source.write_text("int main() {}\n")
        build = [str(compiler()), *SANITIZERS[name], str(source), "-o", str(program)]
        return subprocess.run(build, capture_output=True).returncode == 0 and (
            subprocess.run([str(program)], capture_output=True, env=environment()).returncode == 0
        )


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **SANITIZER_ENVIRONMENT, **more}


def execute(
    command: Sequence[str | Path], timeout: float | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a program that was built here, with `more` in its environment; whatever its status."""
    return subprocess.run(
        [str(c) for c in command],
        capture_output=True,
        text=True,
        errors="replace",
        env=environment(**more),
        timeout=timeout,
    )


def run(command: Sequence[str | Path]) -> str:
    """Run a compiler; its output (stdout and stderr)."""
    done = execute(command)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _cache(csrc: Path) -> Path:
    """The folder for what is built from the sources as they are; those of the last few states are kept."""
    h = hashlib.sha256(f"{nvcc()}\0{compiler()}".encode())
    for path in sorted([csrc / "ops.h", *csrc.glob("cuda/*"), *HARNESS.glob("*.*")]):
        h.update(f"{path.name}\0".encode() + path.read_bytes())
    home = Path(tempfile.gettempdir()) / f"infostylegan-cuda-harness-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise BuildError(f"{home} belongs to somebody else")
    folder = home / h.hexdigest()[:20]
    folder.mkdir(exist_ok=True)
    os.utime(folder)
    for old in sorted(home.iterdir(), key=lambda p: p.stat().st_mtime)[:-5]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


class Harness:
    """What can be built of one state of the kernels' sources. Everything is built once, at first need."""

    def __init__(self, csrc: Path = CSRC, folder: Path | None = None) -> None:
        self.csrc = csrc
        self.folder = _cache(csrc) if folder is None else folder

    def _make(self, name: str, command: Callable[[Path], Sequence[str | Path]]) -> Path:
        """The file `name`; `command(path)` tells how to make it at `path`."""
        target = self.folder / name
        if not target.exists():
            part = self.folder / f"{os.getpid()}-{name}"
            run(command(part))
            part.replace(target)
        return target

    def _compile(self, name: str, source: Path, flags: Sequence[str | Path]) -> Path:
        include: list[str | Path] = ["-I", HARNESS, "-I", self.csrc]
        return self._make(
            name, lambda to: [compiler() or "g++", "-std=c++20", *flags, *include, "-c", source, "-o", to]
        )

    def _link(self, name: str, objects: Sequence[Path], flags: Sequence[str]) -> Path:
        return self._make(name, lambda to: [compiler() or "g++", *flags, *objects, "-o", to])

    def _driver(self) -> Path:
        return self._compile("driver.o", HARNESS / "driver.cpp", ["-O1", "-Wall", "-Wextra", "-Werror"])

    def _emulated_kernels(self, sanitizer: str = "") -> Path:
        sanitize = SANITIZERS.get(sanitizer, ())
        # Sanitized code takes four times as long to compile with optimisation, and little less time to run.
        level = "-O0" if sanitizer else "-O1"
        flags = [
            level,
            "-g1",
            "-fPIC",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-DISG_EMULATED",
        ]
        return self._compile(
            f"emulated-{sanitizer}.o", HARNESS / "emulated_kernels.cpp", [*flags, *SMALL, *sanitize]
        )

    def emulated(self, sanitizer: str = "") -> Path:
        """The driver on the emulated kernels, these with or without a sanitizer."""
        sanitize, kernels = SANITIZERS.get(sanitizer, ()), self._emulated_kernels(sanitizer)
        return self._link(f"driver-emulated-{sanitizer}", [self._driver(), kernels], sanitize)

    def compiled(self, kernel: str, arch: int, defines: Sequence[str] = SMALL) -> tuple[Path, Path, Path]:
        """A kernel file compiled by nvcc, strictly: the object, its PTX, and what nvcc and ptxas said."""
        name = f"{kernel}-{arch}-{hashlib.sha256(' '.join(defines).encode()).hexdigest()[:8]}"
        keep, log = self.folder / f"{name}.keep", self.folder / f"{name}.log"
        keep.mkdir(exist_ok=True)
        target = self.folder / f"{name}.o"
        if not target.exists():
            source, part = self.csrc / "cuda" / f"{kernel}.cu", self.folder / f"{os.getpid()}-{name}.o"
            code = f"-gencode=arch=compute_{arch},code=[sm_{arch},compute_{arch}]"
            flags = [*NVCC_FLAGS, *STRICT, *defines, code, "-Xcompiler", "-fPIC,-Wall,-Wextra"]
            log.write_text(
                run([nvcc() or "nvcc", *flags, "--keep", "--keep-dir", keep, "-c", source, "-o", part])
            )
            part.replace(target)
        return target, keep / f"{kernel}.ptx", log

    def translated(
        self, program: Path, arch: int, pattern: str, defines: Sequence[str] = SMALL, profile: bool = False
    ) -> Path:
        """A program (driver.cpp, profile.cpp) on the PTX of the kernels whose names match, run on the CPU.

        ASan only watches the heap; the translation itself checks each access.
        """
        tag = hashlib.sha256(f"{arch} {pattern} {defines} {profile}".encode()).hexdigest()[:8]
        counting = ["-DPTX_PROFILE"] if profile else []
        objects = []
        for kernel in KERNELS:
            compiled, ptx, _ = self.compiled(kernel, arch, defines)
            source = self.folder / f"{kernel}-{tag}.cpp"
            source.write_text(ptx2cpp.translate(ptx.read_text(), pattern))
            flags = ["-O1" if profile else "-O0", "-w", "-ffp-contract=off", *counting]
            objects += [compiled, self._compile(f"{kernel}-{tag}.o", source, flags)]
        objects += [
            self._compile(f"runtime-{tag}.o", HARNESS / "fake_cudart.cpp", ["-O1", *counting]),
            self._compile(f"{program.stem}-{tag}.o", program, ["-O1", *counting]),
        ]
        return self._link(
            f"{program.stem}-translated-{tag}", objects, [] if profile else ["-fsanitize=address"]
        )

    def torch_library(self, namespace: str, torch_folder: Path, bindings: Path) -> Path:
        """The emulated kernels, bound to operators of torch for tensors on the CPU."""
        include: list[str | Path] = [
            "-isystem",
            torch_folder / "include",
            "-isystem",
            torch_folder / "include/torch/csrc/api/include",
        ]
        digest = hashlib.sha256(f"{torch_folder}{namespace}".encode() + bindings.read_bytes()).hexdigest()[:8]
        defines = ["-DISG_EMULATED", "-DISG_BACKEND=cuda", f"-DISG_NAMESPACE={namespace}"]
        flags = ["-fPIC", "-w", *defines]
        objects = [
            self._compile(f"bindings-{digest}.o", bindings, [*flags, "-O0", *include]),
            self._emulated_kernels(),
        ]
        libraries = [
            "-L",
            str(torch_folder / "lib"),
            "-ltorch_cpu",
            "-lc10",
            f"-Wl,-rpath,{torch_folder / 'lib'}",
        ]
        return self._make(
            f"libisg-{digest}.so", lambda to: [compiler() or "g++", "-shared", *objects, *libraries, "-o", to]
        )


def ptxas_figures(log: str) -> dict[str, dict[str, int]]:
    """What ptxas -v says of each kernel (demangled): registers, bytes of shared memory and of spills."""
    kernels: dict[str, dict[str, int]] = {}
    pattern = (
        r"Compiling entry function '(\S+)' for '(\S+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers([^\n]*)"
    )
    for name, arch, stores, loads, registers, rest in re.findall(pattern, log, re.S):
        shared = re.search(r"(\d+) bytes smem", rest)
        kernels[f"{arch} {demangled(name)}"] = {
            "registers": int(registers),
            "spills": int(stores) + int(loads),
            "shared": int(shared[1]) if shared else 0,
        }
    return kernels


@functools.cache
def demangled(name: str) -> str:
    """Name and template arguments of a kernel."""
    tool = shutil.which("c++filt")
    full = subprocess.run([tool, name], capture_output=True, text=True).stdout.strip() if tool else name
    full = full.replace("isg::(anonymous namespace)::", "").removeprefix("void ")
    return re.sub(r"\((?!anonymous).*", "", full)
