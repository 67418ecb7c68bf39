"""Facts about what importing the pure functions brings along."""

import subprocess
import sys


def test_pure_functions_load_neither_torch_nor_the_method_nor_scikit_learn():
    code = (
        "import sys, metrics, metrics.study, metrics.judges; "
        "print([m for m in ('torch', 'infostylegan', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
