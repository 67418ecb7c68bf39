"""How long the paper's form of MIG takes: 200,000 images, 40 binary attributes, the paper's 18 codes.

    python benchmarks/mig.py

Prints seconds on the clock, seconds of CPU and the most memory held, for each family of Q's continuous codes.
"""

from __future__ import annotations

import time

import numpy as np

from dnnlib.log import format_bytes
from dnnlib.memory import peak_memory_bytes
from metrics import DiscreteQ, NormalQ, TruncatedNormalQ, mig
from metrics.posteriors import PosteriorRows

N, ATTRIBUTES, UNIFORM = 200_000, 40, 10


def main() -> None:
    rng = np.random.default_rng(0)
    attributes = {f"a{k}": rng.random(N) < rng.uniform(0.02, 0.98) for k in range(ATTRIBUTES)}
    discrete: list[PosteriorRows] = [DiscreteQ(rng.dirichlet(np.ones(3), N))]
    discrete += [DiscreteQ(rng.random(N)) for _ in range(7)]
    families: dict[str, list[PosteriorRows]] = {
        "unit": [NormalQ(rng.normal(0, 0.6, N)) for _ in range(UNIFORM)],
        "gaussian": [NormalQ(rng.normal(0, 0.6, N), 0.2 + rng.gamma(1, 0.2, N)) for _ in range(UNIFORM)],
        "truncnormal": [
            TruncatedNormalQ(np.tanh(rng.normal(0, 1, N)), np.exp(rng.uniform(np.log(0.2), np.log(50), N)))
            for _ in range(UNIFORM)
        ],
    }
    print(f"the arrays themselves: {format_bytes(peak_memory_bytes())}")
    for name, uniform in families.items():
        clock, cpu = time.perf_counter(), time.process_time()
        mig(discrete + uniform, attributes)
        clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
        print(f"{name:12} {clock:6.2f} s, {cpu:6.2f} s of CPU; peak {format_bytes(peak_memory_bytes())}")


if __name__ == "__main__":
    main()
