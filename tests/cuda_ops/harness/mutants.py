"""Bugs planted in the kernels one at a time, and the checks that see them.

``python mutants.py [NAME ...]`` runs every check on each and prints which of them notice; a bug that none of
them notices, or a complaint about kernels without a bug, is a failure.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cuda_harness

BIAS, FIR, DEVICE = "bias_act.cu", "upfirdn2d.cu", "device.h"


class Mutant(NamedTuple):
    """A change of the source; `seen_by` is a check that must notice (others may as well)."""

    file: str
    old: str
    new: str
    seen_by: str


_LEAVE = "  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;\n  if (i >= g.threads) return;"
MUTANTS = {
    "no barrier before the warps' sums are read": Mutant(
        BIAS, "  __syncthreads();\n  if (threadIdx.x == 0) {", "  if (threadIdx.x == 0) {", "thread"
    ),
    "no barrier in the tree of sums": Mutant(
        BIAS, "    __syncthreads();\n    if (row < half)", "    if (row < half)", "thread"
    ),
    "no barrier after the taps (planes)": Mutant(
        FIR, "  __syncthreads();\n\n  const int lane", "  const int lane", "ptx"
    ),
    "no barrier after the taps (pixels)": Mutant(
        FIR, "  __syncthreads();\n\n  const uint32_t i", "  const uint32_t i", "ptx"
    ),
    "a return before a barrier": Mutant(
        FIR,
        f"  __syncthreads();\n\n{_LEAVE}",
        f"{_LEAVE}\n  __syncthreads();",
        "rev",
    ),
    "idle lanes leave before a shuffle": Mutant(
        FIR,
        "  const int v = oy * DOWN - p.ay.pad;  //",
        "  if (!stores) return;\n  const int v = oy * DOWN - p.ay.pad;  //",
        "fwd",
    ),
    "a row too many is read": Mutant(
        FIR, "static_cast<unsigned>(iy + k) < static", "static_cast<unsigned>(iy + k) <= static", "address"
    ),
    "a pack too many is written": Mutant(
        BIAS, "if (i >= map.packs) return;", "if (i > map.packs) return;", "address"
    ),
    "rows below the image are written": Mutant(FIR, " && oy + i < p.ay.out) {", ") {", "address"),
    "shared memory one short": Mutant(
        BIAS, "of_warp, [kThreads / 32]", "of_warp, [kThreads / 32 - 1]", "ptx"
    ),
    "a tap is never set": Mutant(
        FIR, "  if (threadIdx.x < kTaps * kTaps) {\n", "  if (threadIdx.x < kTaps * kTaps - 1) {\n", "ptx"
    ),
    "alignment isn't asked for": Mutant(
        BIAS,
        "const bool lines_up = aligned<T, W>(x) && aligned<T, W>(y);",
        "const bool lines_up = true;",
        "address",
    ),
    "blocks write the same row with the same values": Mutant(FIR, "i < g.rows", "i <= g.rows", "thread"),
    "a grid without blocks": Mutant(BIAS, "ceil_div(map.packs, kThreads))", "(map.packs / kThreads))", "fwd"),
    "the filter isn't flipped": Mutant(
        FIR, "return flip ? i : a.all_taps - 1 - i;", "return flip ? a.all_taps - 1 - i : i;", "fwd"
    ),
    "a shuffle from the wrong side": Mutant(
        FIR, "v = to_left ? __shfl_up_sync", "v = !to_left ? __shfl_up_sync", "fwd"
    ),
    "pixels of the plane beside shine in": Mutant(FIR, "    if (loads & kAtEnd << k) v = A(0);\n", "", "fwd"),
    "an approximate division": Mutant(DEVICE, "<< 32) / d + 1);", "<< 32) / d);", "fwd"),
    "the clamp hides NaN": Mutant(
        BIAS,
        "  return y < -m.limit ? -m.limit : y;\n",
        "return max(-m.limit, min(m.limit, y));",
        "fwd",
    ),
    "the edge of the clamp counts as outside": Mutant(
        BIAS, "return y > m.limit || y < -m.limit;", "return y >= m.limit || y <= -m.limit;", "fwd"
    ),
    "no barrier between the passes along x and y": Mutant(
        FIR,
        "    filtered[r][column] = sum;\n  }\n  __syncthreads();\n",
        "    filtered[r][column] = sum;\n  }\n",
        "ptx",
    ),
    "pieces add to one sum": Mutant(BIAS, "i += piece.inner, slot += splits)", "i += piece.inner)", "fwd"),
    "lrelu without its slope": Mutant(
        BIAS, "static_cast<A>(m.act == Act::lrelu ?", "static_cast<A>(m.act == Act::elu ?", "fwd"
    ),
}

# What a check prints when it stops, and the short name of it.
_REASONS = {
    "AddressSanitizer": "memory",
    "runtime error": "undefined",
    "data race": "race",
    "ptx: race": "race",
    "ptx: shared access": "bounds",
    "ptx: global access": "bounds",
    "never written": "unset",
    "misaligned": "alignment",
    "divergent": "barrier",
    "invalid launch": "launch",
    "FAIL": "numbers",
}


def _emulated(sanitizer: str = "", **environment: str) -> Callable[[cuda_harness.Harness], str]:
    small = ["small"] if sanitizer else ["f16"]
    return lambda harness: _verdict(harness.emulated(sanitizer), ["f32", *small], environment)


def _ptx(harness: cuda_harness.Harness) -> str:
    program = harness.translated(cuda_harness.HARNESS / "driver.cpp", 80, r"If|OrderIf|add_up")
    return _verdict(program, ["f32"], {})


CHECKS: dict[str, Callable[[cuda_harness.Harness], str]] = {
    "fwd": _emulated(EMU_ORDER="fwd"),
    "rev": _emulated(EMU_ORDER="rev"),
    "address": _emulated("address"),
    "thread": _emulated("thread"),
    "ptx": _ptx,
}


def _verdict(program: Path, arguments: list[str], environment: dict[str, str]) -> str:
    try:
        done = cuda_harness.execute([program, *arguments], timeout=300, **environment)
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode == 0:
        return ""
    text = done.stdout + done.stderr
    return next((reason for sign, reason in _REASONS.items() if sign in text), f"status {done.returncode}")


def plant(mutant: Mutant | None, folder: Path) -> cuda_harness.Harness:
    """A harness on a copy of the kernels with this bug in them."""
    csrc = folder / "csrc"
    shutil.copytree(cuda_harness.CSRC / "cuda", csrc / "cuda")
    shutil.copy(cuda_harness.CSRC / "ops.h", csrc)
    if mutant:
        path = csrc / "cuda" / mutant.file
        text = path.read_text()
        if mutant.old not in text:
            raise ValueError(f"{mutant.file} has no {mutant.old!r}")
        path.write_text(text.replace(mutant.old, mutant.new))
    (folder / "build").mkdir()
    return cuda_harness.Harness(csrc, folder / "build")


def run_check(name: str, harness: cuda_harness.Harness) -> str:
    """Why the check `name` complains; "" if it doesn't. A compiler that refuses is a complaint too."""
    try:
        return CHECKS[name](harness)
    except cuda_harness.BuildError:
        return "compiler"


def main(names: list[str]) -> int:
    chosen = {name: MUTANTS[name] for name in names} if names else {"no bug": None, **MUTANTS}
    wrong = 0
    for name, mutant in chosen.items():
        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            harness = plant(mutant, Path(folder))
            verdicts = {check: run_check(check, harness) for check in CHECKS}
        seen = any(verdicts.values())
        wrong += seen == (mutant is None)
        row = "  ".join(f"{check}: {verdict or 'ok':9}" for check, verdict in verdicts.items())
        print(f"{name:50} {row} {time.time() - start:.0f} s", flush=True)
    print(f"{len(chosen) - wrong} as they should be, {wrong} not")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
