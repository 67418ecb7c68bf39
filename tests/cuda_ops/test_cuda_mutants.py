"""Each bug planted in the kernels is seen by the check that is there for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "harness"))

import cuda_harness
import mutants

pytestmark = pytest.mark.skipif(cuda_harness.compiler() is None, reason="no C++ compiler")


@pytest.mark.slow
@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_every_planted_bug_is_seen(name: str, tmp_path: Path) -> None:
    mutant = mutants.MUTANTS[name]
    if mutant.seen_by == "ptx" and cuda_harness.nvcc() is None:
        pytest.skip("nvcc isn't installed (set CUDA_HOME)")
    sanitizer = "address" if mutant.seen_by == "ptx" else mutant.seen_by
    if sanitizer in cuda_harness.SANITIZERS and not cuda_harness.has_sanitizer(sanitizer):
        pytest.skip(f"the compiler's {sanitizer} sanitizer doesn't run here")
    verdict = mutants.run_check(mutant.seen_by, mutants.plant(mutant, tmp_path))
    assert verdict not in ("", "compiler", "hangs")
