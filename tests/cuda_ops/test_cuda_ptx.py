"""The PTX that nvcc makes of the CUDA kernels, run on the CPU: values, bounds, races, alignment, counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "harness"))

import cuda_harness
import ptx2cpp

HARNESS = cuda_harness.HARNESS
pytestmark = [
    pytest.mark.skipif(cuda_harness.nvcc() is None, reason="nvcc isn't installed (set CUDA_HOME)"),
    pytest.mark.skipif(cuda_harness.compiler() is None, reason="no C++ compiler"),
]
FLOAT = r"If|OrderIf|add_up"
EVERYTHING = ""


def run(arch: int, pattern: str, *arguments: str) -> None:
    if not cuda_harness.has_sanitizer("address"):
        pytest.skip("the compiler's address sanitizer, which tells what memory is whose, doesn't run here")
    program = cuda_harness.Harness().translated(HARNESS / "driver.cpp", arch, pattern)
    done = cuda_harness.execute([program, *arguments])
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "0 failed" in done.stdout


def test_values_in_fp32() -> None:
    run(80, FLOAT, "f32")


@pytest.mark.slow
@pytest.mark.parametrize("arch", [75, 100])
def test_values_of_every_type(arch: int) -> None:
    run(arch, EVERYTHING, "f32", "f16", "bf16", "f64")


# -------------------------------------------------------------------------------------- the translator itself

SHUFFLES = {
    # operands b and c of shfl.sync; what lane i gets, with segments of 32 and of 8
    "up": ("up", 1, 0x0000, lambda i: max(i - 1, 0)),
    "down": ("down", 3, 0x001F, lambda i: i + 3 if i + 3 < 32 else i),
    "idx": ("idx", 7, 0x001F, lambda i: 7),
    "bfly": ("bfly", 5, 0x001F, lambda i: i ^ 5),
    "up in segments": ("up", 2, 0x1800, lambda i: i - 2 if i % 8 >= 2 else i),
    "down in segments": ("down", 2, 0x181F, lambda i: i + 2 if i % 8 < 6 else i),
    "idx in segments": ("idx", 11, 0x181F, lambda i: i // 8 * 8 + 3),
}


def run_ptx(folder: Path, body: str) -> tuple[int, str, str]:
    """One warp of a kernel k(int* out) of the given body."""
    ptx = (
        ".visible .entry k(\n\t.param .u64 k_param_0\n)\n{\n"
        "\t.reg .pred %p<9>;\n\t.reg .f32 %f<9>;\n\t.reg .b32 %r<9>;\n\t.reg .b64 %rd<9>;\n"
        "\t.shared .align 4 .b8 s[128];\n"
        "\tld.param.u64 %rd1, [k_param_0];\n\tmov.u32 %r1, %tid.x;\n\tmul.wide.u32 %rd2, %r1, 4;\n"
        f"\tadd.s64 %rd3, %rd1, %rd2;\n\tshl.b32 %r8, %r1, 2;\n{body}\n\tret;\n}}\n"
    )
    source = folder / "k.cpp"
    source.write_text(
        ptx2cpp.translate(ptx) + "\n#include <cstdio>\n"
        "Register::Register(const char*, PtxFunction) {}\n"
        "void ptx_fail(const char* what, int, unsigned long long) {\n"
        '  std::fprintf(stderr, "%s\\n", what);\n  std::exit(70);\n}\n'
        "int main() {\n  int* out = new int[256]();\n  void* arguments[] = {&out};\n"
        "  const auto call = [](void* a) { kernel0(static_cast<void**>(a)); };\n"
        "  const int rc = emu::run_grid(dim3(1), dim3(32), call, arguments);\n"
        '  for (int i = 0; i < 256; i++) std::printf("%d ", out[i]);\n  return rc ? 3 : 0;\n}\n'
    )
    cuda_harness.run(
        [str(cuda_harness.compiler()), "-std=c++20", "-w", "-I", HARNESS, source, "-o", folder / "k"]
    )
    done = subprocess.run([folder / "k"], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_translated_shuffles(tmp_path: Path) -> None:
    body = ""
    for k, (mode, b, c, _) in enumerate(SHUFFLES.values()):
        body += (
            f"\tshfl.sync.{mode}.b32 %r2|%p1, %r1, {b}, {c}, -1;\n\tst.global.u32 [%rd3+{k * 128}], %r2;\n"
        )
    code, out, err = run_ptx(tmp_path, body)
    assert code == 0, err
    values = [int(v) for v in out.split()]
    for k, (name, (*_, wanted)) in enumerate(SHUFFLES.items()):
        assert values[32 * k : 32 * k + 32] == [wanted(i) for i in range(32)], name


FAULTS = {
    "never written": "\tmov.u32 %r3, s;\n\tadd.s32 %r4, %r3, %r8;\n\tld.shared.u32 %r5, [%r4];",
    "out of bounds": "\tmov.u32 %r3, s;\n\tadd.s32 %r4, %r3, %r8;\n\tst.shared.u32 [%r4+4], %r1;",
    "two threads write": "\tst.shared.u32 [s], %r1;",
    "not separated by a barrier": "\tmov.u32 %r3, s;\n\tadd.s32 %r4, %r3, %r8;\n\tst.shared.u32 [%r4], %r1;\n"
    "\tld.shared.u32 %r7, [s];",
    "misaligned": "\tst.global.v2.u32 [%rd3], {%r1, %r1};",
}


@pytest.mark.parametrize("message", FAULTS)
def test_faults_are_seen_in_ptx(message: str, tmp_path: Path) -> None:
    code, _, err = run_ptx(tmp_path, FAULTS[message])
    assert code == 70
    assert message in err


def test_an_unknown_instruction_is_refused() -> None:
    with pytest.raises(ptx2cpp.UnsupportedError, match="brev"):
        ptx2cpp.translate(".entry k(\n)\n{\n\t.reg .b32 %r<3>;\n\tbrev.b32 %r1, %r2;\n}\n")


# ------------------------------------------------------------------------------------------------- the counts

# Of the best-known kernels of this kind, same nvcc, sm_80, by output: PTX instructions, bytes in sectors,
# wavefronts.
KNOWN = {"blur": (140.5, 11.43, 33.3), "up 2": (116.1, 6.11, 8.4), "down 2": (332.2, 32.8, 52.9)}


@pytest.mark.slow
def test_static_figures_of_sm_80() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "cuda_static.py"
    done = subprocess.run([sys.executable, script, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["operation"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert all(row["spills"] == 0 and row["occupancy"] == 1 for row in rows.values())
    bias_act = rows["bias_act lrelu"]
    assert bias_act["instructions"] <= 24
    assert bias_act["bytes"] <= 8.3
    assert set(bias_act["global_access"]) == {"load 32", "load 128", "store 128"}
    for name, row in rows.items():
        for known, (instructions, sectors, wavefronts) in KNOWN.items():
            if name.startswith(known):
                assert row["instructions"] < instructions
                assert row["bytes"] < sectors
                assert row["wavefronts"] < wavefronts
