"""nvcc compiles every CUDA kernel without warnings and spills; bindings fit torch's CUDA headers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "harness"))

import cuda_harness

TARGETS = (75, 80, 86, 89, 90, 100, 120)
# With which every warp of a multiprocessor fits; but on 10.0 40 let 75 % fit, for filters without resampling.
MOST_REGISTERS = {75: 64, 80: 32, 86: 40, 89: 40, 90: 32, 100: 40, 120: 40}

needs_nvcc = pytest.mark.skipif(cuda_harness.nvcc() is None, reason="nvcc isn't installed (set CUDA_HOME)")


def compile_for(kernel: str, targets: tuple[int, ...], folder: Path) -> dict[str, dict[str, int]]:
    codes = [f"-gencode=arch=compute_{t},code=sm_{t}" for t in targets]
    # The newest target's PTX goes along, for GPUs to come.
    codes.append(f"-gencode=arch=compute_{targets[-1]},code=compute_{targets[-1]}")
    flags = [*cuda_harness.NVCC_FLAGS, *cuda_harness.STRICT, *codes, "-Xcompiler", "-fPIC,-Wall,-Wextra"]
    source = cuda_harness.CSRC / "cuda" / f"{kernel}.cu"
    log = cuda_harness.run([str(cuda_harness.nvcc()), *flags, "-c", source, "-o", folder / f"{kernel}.o"])
    return cuda_harness.ptxas_figures(log)


@needs_nvcc
@pytest.mark.parametrize("kernel", cuda_harness.KERNELS)
def test_kernels_compile_without_warnings_and_spills(kernel: str) -> None:
    _, _, log = cuda_harness.Harness().compiled(kernel, 80)
    figures = cuda_harness.ptxas_figures(log.read_text())
    assert len(figures) > 20
    assert not any(f["spills"] for f in figures.values())


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("kernel", cuda_harness.KERNELS)
def test_kernels_compile_for_every_target(kernel: str, tmp_path: Path) -> None:
    figures = compile_for(kernel, TARGETS, tmp_path)
    of_a_target = [sum(name.startswith(f"sm_{t} ") for name in figures) for t in TARGETS]
    assert len(set(of_a_target)) == 1
    assert of_a_target[0] > 20
    if kernel == "upfirdn2d":
        fast = {name: f for name, f in figures.items() if "planes<float" in name and "-1>" not in name}
        assert len(fast) == 7 * len(TARGETS)
        assert all(f["registers"] <= MOST_REGISTERS[int(name[3:].split()[0])] for name, f in fast.items())


@needs_nvcc
def test_a_spill_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "spill.cu"
    lines = "\n".join(f"  const float v{i} = x[i * {i} + 1];" for i in range(90))
    total = " + ".join(f"v{i} * v{(i * 7) % 90}" for i in range(90))
    source.write_text(
        "__global__ void __launch_bounds__(1024, 2) k(const float* x, float* y, int i) {\n"
        f"{lines}\n  __syncthreads();\n  y[i] = {total};\n}}\n"
    )
    flags = [
        *cuda_harness.NVCC_FLAGS,
        *cuda_harness.STRICT,
        "-arch=sm_80",
        "-c",
        source,
        "-o",
        tmp_path / "o",
    ]
    with pytest.raises(cuda_harness.BuildError, match="spilled"):
        cuda_harness.run([str(cuda_harness.nvcc()), *flags])


@pytest.mark.skipif(cuda_harness.compiler() is None, reason="no C++ compiler")
def test_bindings_fit_torchs_cuda_headers(tmp_path: Path) -> None:
    nvcc = cuda_harness.nvcc()
    cuda_headers = Path(nvcc).resolve().parents[1] / "include" if nvcc else None
    if cuda_headers is None or not (cuda_headers / "cuda_runtime_api.h").exists():
        pytest.skip("CUDA's headers aren't installed")
    torch_headers = Path(torch.__file__).parent / "include"
    if not (torch_headers / "c10" / "cuda" / "CUDAStream.h").exists():
        pytest.skip("this torch comes without its CUDA headers")
    include = [torch_headers, torch_headers / "torch/csrc/api/include", cuda_headers]
    # The CPU build of torch lacks the header that CMake writes for a CUDA one.
    defines = ["-DISG_BACKEND=cuda", "-DISG_NAMESPACE=isg", "-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE"]
    flags = [*defines, "-I", cuda_harness.CSRC, *(f for i in include for f in ("-isystem", i))]
    source = cuda_harness.CSRC / "bindings.cpp"
    cuda_harness.run([str(cuda_harness.compiler()), "-std=c++20", "-fsyntax-only", *flags, source])
