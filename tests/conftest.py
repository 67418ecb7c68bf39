"""Settings for every test, and the small things that several of them share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# No deadlines: the machine may be busy. Derandomised: the same code fails the same way everywhere.
settings.register_profile("quiet", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("quiet")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """One thread for torch, in fixtures of every scope too: tests are so small that a second one only waits.
    The ops keep theirs."""
    torch = sys.modules.get("torch")
    if torch is None or "cuda_ops" in item.path.parts:
        return (yield)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return (yield)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright; without either, a test that asks for it is skipped."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright to drive a browser with: pip install '.[test]'"
    )
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROMIUM")
    flags = [
        "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--disable-component-update", "--disable-sync",
    ]  # fmt: skip
    with api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def make_images() -> Callable[..., Path]:
    """make_images(folder, count=24, size=16): random PNG files, the same at every call."""

    def make(folder: Path, count: int = 24, size: int = 16) -> Path:
        from PIL import Image

        folder.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(0)
        for i in range(count):
            # Coarse squares, which look alike at every resolution of the pyramid.
            pixels = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            pixels = pixels.repeat(size // 4, 0).repeat(size // 4, 1)
            Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        return folder

    return make


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data that lies beside the repository where the project is developed."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("INFOSTYLEGAN_SHARED") or root.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"{folder} is not here: it holds reference data that this test compares with")
    return folder
