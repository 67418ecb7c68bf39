"""Packaging entry point; all metadata is in pyproject.toml.

INFOSTYLEGAN_BUILD_OPS=1 compiles the native kernels of cuda_ops into the package. Only then is torch
imported, so that pip needs --no-build-isolation to find it.
"""

import os
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

BUILD_OPS = os.environ.get("INFOSTYLEGAN_BUILD_OPS") == "1"
ROOT = Path(__file__).resolve().parent


class BuildWithOps(build_py):
    def run(self) -> None:
        super().run()
        if BUILD_OPS:
            sys.path.insert(0, str(ROOT))
            from cuda_ops.build import build_ahead

            package = (ROOT if self.editable_mode else Path(self.build_lib)) / "cuda_ops"
            for library in build_ahead(package / "prebuilt"):
                print(f"built {library}")


class WithOps(Distribution):
    def has_ext_modules(self) -> bool:
        """A wheel with kernels in it is for one platform."""
        return BUILD_OPS or super().has_ext_modules()


setup(cmdclass={"build_py": BuildWithOps}, distclass=WithOps)
