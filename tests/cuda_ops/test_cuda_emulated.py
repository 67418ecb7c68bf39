"""The CUDA kernels' own source, run on the CPU thread by thread, under sanitizers, in several orders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "harness"))

import cuda_harness

pytestmark = pytest.mark.skipif(cuda_harness.compiler() is None, reason="no C++ compiler")
HARNESS = cuda_harness.HARNESS


def run(program: Path, *arguments: str, **environment: str) -> None:
    done = cuda_harness.execute([program, *arguments], **environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "0 failed" in done.stdout


@pytest.mark.parametrize("order", ["fwd", "rev", "7"])
def test_values_in_any_order_of_threads(order: str) -> None:
    types = ["f32"] if order == "rev" else ["f32", "f16"] if order == "7" else ["f32", "f16", "bf16", "f64"]
    run(cuda_harness.Harness().emulated(), *types, EMU_ORDER=order)


@pytest.mark.parametrize("sanitizer", cuda_harness.SANITIZERS)
def test_values_under_a_sanitizer(sanitizer: str) -> None:
    if not cuda_harness.has_sanitizer(sanitizer):
        pytest.skip(f"the compiler's {sanitizer} sanitizer doesn't run here")
    run(cuda_harness.Harness().emulated(sanitizer), "f32", "small")


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", cuda_harness.SANITIZERS)
@pytest.mark.parametrize("order", ["rev", "7"])
def test_values_of_every_type_under_a_sanitizer(sanitizer: str, order: str) -> None:
    if not cuda_harness.has_sanitizer(sanitizer):
        pytest.skip(f"the compiler's {sanitizer} sanitizer doesn't run here")
    run(cuda_harness.Harness().emulated(sanitizer), "f32", "f16", "bf16", "f64", EMU_ORDER=order)


def build_probe(folder: Path, body: str, *flags: str) -> Path:
    """A program that launches one kernel of the given body with a block of 64 threads."""
    source = folder / "probe.cpp"
    source.write_text(
        '#include "cuda_emu.h"\n'
        f"__global__ void kernel(int* out) {{ const int t = threadIdx.x; (void)t; (void)out; {body} }}\n"
        "int main() {\n"
        "  int* out = new int[64]();\n"
        "  if (isg::launch(kernel, dim3(2), dim3(64), nullptr, out)) return 3;\n"
        '  for (int i = 0; i < 64; i++) std::printf("%d ", out[i]);\n'
        "  delete[] out;\n}\n"
    )
    command = [
        str(cuda_harness.compiler()),
        "-std=c++20",
        "-g1",
        "-I",
        HARNESS,
        *flags,
        source,
        "-o",
        folder / "probe",
    ]
    cuda_harness.run(command)
    return folder / "probe"


def probe(folder: Path, body: str, *flags: str) -> tuple[int, str, str]:
    done = cuda_harness.execute([build_probe(folder, body, *flags)])
    return done.returncode, done.stdout, done.stderr


WARP = range(32)
SHUFFLES = {
    "up": ("__shfl_up_sync(0xffffffffu, t, 1)", [max(i - 1, 0) for i in WARP]),
    "down": ("__shfl_down_sync(0xffffffffu, t, 3)", [i + 3 if i + 3 < 32 else i for i in WARP]),
    "from": ("__shfl_sync(0xffffffffu, t, t + 5)", [(i + 5) % 32 for i in WARP]),
}


@pytest.mark.parametrize("name", SHUFFLES)
def test_the_emulators_shuffles(name: str, tmp_path: Path) -> None:
    expression, wanted = SHUFFLES[name]
    # Two in a row, as a lane may be at the second before another has read the first.
    code, out, err = probe(tmp_path, f"const int v = {expression}; out[t] = v + 0 * {expression};")
    assert code == 0, err
    assert [int(v) for v in out.split()] == [*wanted, *(v + 32 for v in wanted)]


def test_the_emulator_sees_a_divergent_barrier(tmp_path: Path) -> None:
    code, _, err = probe(tmp_path, "if (t < 40) __syncthreads();")
    assert code == 3
    assert "divergent" in err


def test_the_emulator_sees_a_divergent_shuffle(tmp_path: Path) -> None:
    code, _, err = probe(tmp_path, "if (t != 5) out[t] = __shfl_up_sync(0xffffffffu, t, 1);")
    assert code == 3
    assert "divergent" in err


@pytest.mark.parametrize("body", ["out[t % 8] = t;", "out[t] = 2;"])  # within a block; between blocks
def test_the_race_detector_sees_races(body: str, tmp_path: Path) -> None:
    if not cuda_harness.has_sanitizer("thread"):
        pytest.skip("the compiler's thread sanitizer doesn't run here")
    code, _, err = probe(tmp_path, body, *cuda_harness.SANITIZERS["thread"])
    assert code == 66
    assert "data race" in err


def test_a_shuffle_orders_no_memory(tmp_path: Path) -> None:
    if not cuda_harness.has_sanitizer("thread"):
        pytest.skip("the compiler's thread sanitizer doesn't run here")
    body = (
        "ISG_SHARED(int, s, [64]); s[t] = t; const int v = __shfl_up_sync(0xffffffffu, t, 1);"
        "if (blockIdx.x == 0) out[t] = s[t / 32 * 32 + (t + 1) % 32] + v;"
    )
    code, _, err = probe(tmp_path, body, *cuda_harness.SANITIZERS["thread"])
    assert code == 66
    assert "data race" in err
