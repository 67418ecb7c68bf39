"""Static figures of the CUDA kernels: registers, occupancy, what their PTX executes by output. Needs no GPU.

    python benchmarks/cuda_static.py [--arch 80]

nvcc compiles the kernels; ptxas tells registers, spills and shared memory; the PTX itself is run on the CPU
(see docs/cuda.md), which counts instructions, 32-byte sectors of global memory and wavefronts of shared
memory. None of this is a time: no GPU has measured these kernels.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "cuda_ops" / "harness"))

import cuda_harness

# Of one multiprocessor: registers, warps, blocks, bytes of shared memory, of these reserved for each block.
LIMITS = {
    75: (65536, 32, 16, 64 << 10, 0),
    80: (65536, 64, 32, 164 << 10, 1024),
    86: (65536, 48, 16, 100 << 10, 1024),
    89: (65536, 48, 24, 100 << 10, 1024),
    90: (65536, 64, 32, 228 << 10, 1024),
    100: (65536, 64, 32, 228 << 10, 1024),
    120: (65536, 48, 24, 100 << 10, 1024),
}
# The kernel behind each operation of profile.cpp; "LEFT" is told by the padding used there.
KERNEL = {
    "bias_act lrelu": "bias_act_forward_kernel<float, 4, true>",
    "bias_act lrelu backward with bias gradient": "bias_act_rows<4, FirstOrder<float, true> >",
    "blur 4x4 taps": "upfirdn2d_planes<float, 1, 1, false, 2>",
    "blur 4 taps, separable": "upfirdn2d_planes<float, 1, 1, true, 2>",
    "up 2 4x4 taps": "upfirdn2d_planes<float, 2, 1, false, 1>",
    "up 2 4 taps, separable": "upfirdn2d_planes<float, 2, 1, false, 1>",
    "down 2 4x4 taps": "upfirdn2d_planes<float, 1, 2, false, 1>",
    "down 2 4 taps, separable": "upfirdn2d_planes<float, 1, 2, true, 1>",
}
COLUMNS = (
    "kernel",
    "registers",
    "spills",
    "shared",
    "occupancy",
    "global access",
    "PTX instructions",
    "bytes in sectors (floor)",
    "shared wavefronts x32",
    "shuffles",
)


def occupancy(arch: int, registers: int, shared: int, threads: int = 256) -> float:
    """Share of a multiprocessor's warps that fit with blocks of `threads`."""
    all_registers, warps, blocks, all_shared, reserved = LIMITS[arch]
    of_block = threads // 32
    by_registers = all_registers // (math.ceil(registers * 32 / 256) * 256) // 4 * 4 // of_block
    by_shared = all_shared // max(1, math.ceil((shared + reserved) / 128) * 128)
    return min(by_registers, by_shared, warps // of_block, blocks) * of_block / warps


def registers_of(arch: int) -> dict[str, dict[str, int]]:
    """ptxas's figures of each kernel."""
    figures: dict[str, dict[str, int]] = {}
    for kernel in cuda_harness.KERNELS:
        source = cuda_harness.CSRC / "cuda" / f"{kernel}.cu"
        flags = [*cuda_harness.NVCC_FLAGS, f"-arch=sm_{arch}", "-Xptxas", "-v"]
        log = cuda_harness.run([str(cuda_harness.nvcc()), *flags, "-cubin", "-o", "/dev/null", source])
        figures |= {name.split(" ", 1)[1]: value for name, value in cuda_harness.ptxas_figures(log).items()}
    return figures


def profile(arch: int, planes: int, size: int) -> list[dict]:
    """Counts by output for `planes` planes of size x size, cut into the strips that so many get."""
    # As few planes are run as fill blocks. Strips are cut by the number of threads, so few must count as all.
    run = min(planes, max(4, 2048 // size))
    few = max(1, 131072 * run // planes)
    defines = (f"-DISG_FEW_THREADS={few}",)
    pattern = (
        "forward_kernelIfLi4ELb1|rowsILi4EN.*FirstOrderIfLb1|add_upIf|planesIfLi[12]ELi[12]ELb[01]ELi[12]E"
    )
    program = cuda_harness.Harness().translated(
        cuda_harness.HARNESS / "profile.cpp", arch, pattern, defines, profile=True
    )
    out = subprocess.run(
        [program, "1", str(run), str(size), str(size)], capture_output=True, text=True, check=True
    ).stdout
    return [json.loads(line) for line in out.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", type=int, choices=LIMITS, default=80)
    parser.add_argument("--planes", type=int, default=1024, help="images times channels (default 1024)")
    parser.add_argument("--size", type=int, default=256, help="side of an input image (default 256)")
    parser.add_argument(
        "--json", action="store_true", help="one line of JSON an operation instead of a table"
    )
    args = parser.parse_args()
    if not cuda_harness.nvcc() or not cuda_harness.compiler():
        parser.exit(1, "cuda_static: nvcc and a C++ compiler are needed; set CUDA_HOME\n")
    figures = registers_of(args.arch)
    rows = []
    for row in profile(args.arch, args.planes, args.size):
        if row.pop("status"):
            parser.exit(1, f"cuda_static: {row['operation']} failed\n")
        of_kernel = figures[KERNEL[row["operation"]]]
        rows.append(
            {
                **row,
                **of_kernel,
                "occupancy": occupancy(args.arch, of_kernel["registers"], of_kernel["shared"]),
            }
        )
    if args.json:
        for row in rows:
            print(json.dumps({"arch": args.arch, "planes": args.planes, "size": args.size, **row}))
        return
    size = f"{args.planes} planes of {args.size}x{args.size}"
    print(f"sm_{args.arch}, fp32, {size}, 256 threads a block; by output:\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for r in rows:
        widest = [
            max(int(k.split()[1]) for k in r["global_access"] if k.startswith(kind))
            for kind in ("load", "store")
        ]
        print(
            f"| {r['operation']} | {r['registers']} | {r['spills']} | {r['shared']} | {r['occupancy']:.0%} | "
            f"{widest[0]}-bit in, {widest[1]}-bit out | {r['instructions']:.2f} | "
            f"{r['bytes']:.2f} ({r['least_bytes']:.0f}) | "
            f"{r['wavefronts']:.2f} | {r['shuffles']:.2f} |"
        )


if __name__ == "__main__":
    main()
