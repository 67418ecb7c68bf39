"""Opening an extractor: its weights found, checked and loaded, or one line that says how to get them."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib.cache import cache_folder
from dnnlib.downloads import DownloadError, Progress, download
from dnnlib.files import DamagedFile, sha256_file
from metrics.errors import MetricError
from metrics.features import efficientnet, inception
from metrics.features.resize import resize

AUTO = "auto"
Warn = Callable[[str], None]


class ExtractorError(MetricError):
    """An extractor cannot be had; the message says what to install or where to put what."""


@dataclass
class Extractor:
    """A network with everything that its results must name."""

    name: str
    digest: str  # sha256 of its file of weights
    dimensions: int
    resize: str
    published: bool  # whether its distances can be compared with published FIDs
    network: nn.Module
    prepare: Callable[[Tensor], Tensor]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, 1 or 3, R, R], bytes or float in 0 … 255, on the network's device -> float32 [N, D]."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        # Full float32 on GPUs too: TF32's ten bits would be a part of the distance.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            return self.network(self.prepare(images)).float()

    @property
    def tag(self) -> str:
        """What follows a result's name: nothing where it may stand beside published ones."""
        return "" if self.published else f"@{self.name}"

    def protocol(self) -> dict[str, Any]:
        return {"extractor": self.name, "extractor_digest": self.digest, "resize": self.resize,
                "comparable_with_published": self.published}  # fmt: skip


def open_extractor(
    name: str = AUTO,
    *,
    weights: Path | None = None,
    device: torch.device | str = "cpu",
    warn: Warn = lambda text: None,
    progress: Progress | None = None,
) -> Extractor:
    """The extractor of this name, or for "auto" Inception where it can be had, else EfficientNet-Lite0.

    `weights` is Inception's file; without it, it is looked for in the cache and then downloaded. Raises
    ExtractorError where a network cannot be had and DamagedFile where its file is not what it should be.
    """
    if name != AUTO:
        if name not in EXTRACTORS:
            raise ExtractorError(
                f"extractor {name!r}: there is none of that name; use {AUTO}, {', '.join(EXTRACTORS)}"
            )
        extractor = EXTRACTORS[name](weights, warn, progress)
    else:
        try:
            extractor = open_inception(weights, warn, progress)
        except ExtractorError as error:
            if weights is not None or importlib.util.find_spec(efficientnet.PACKAGE) is None:
                raise
            extractor = open_efficientnet(None, warn, progress)
            warn(
                f"{inception.NAME} cannot be had ({error.__cause__ or error}); {efficientnet.NAME} stands "
                "in, and its numbers cannot be compared with published FIDs"
            )
    extractor.network.to(device)
    return extractor


def inception_file() -> Path:
    """Where Inception's weights are kept."""
    return cache_folder() / "extractors" / inception.FILE


def open_inception(weights: Path | None, warn: Warn, progress: Progress | None) -> Extractor:
    if weights is not None:
        if not weights.is_file():
            raise ExtractorError(f"--inception-weights {weights}: no such file")
        path = weights
    else:
        try:
            path = download(inception.URL, inception_file(), inception.SHA256_PREFIX, progress)
        except DownloadError as error:
            raise ExtractorError(
                f"{error}. Without the internet, fetch {inception.FILE} elsewhere and give "
                f"--inception-weights PATH, or use --extractor {efficientnet.NAME} (pip install "
                "'.[features]'), whose numbers cannot be compared with published FIDs"
            ) from error
    digest = sha256_file(path)
    published = digest.startswith(inception.SHA256_PREFIX)
    state = inception.check_state(load_weights(path, inception.FILE if not published else ""), path)
    if not published:
        warn(
            f"{path} has the right layers, but is not {inception.FILE} (SHA-256 {digest[:8]}…): its results "
            "are not marked as comparable with published FIDs"
        )
    return Extractor(
        inception.NAME, digest, inception.DIMENSIONS,
        "bicubic to 299², Pillow's in floating point, cut off at 0 and 255",
        published, inception.FoldedInception(state), prepare_inception,
    )  # fmt: skip


def prepare_inception(images: Tensor) -> Tensor:
    """Clean FID's input (Parmar et al. 2022): Pillow's bicubic filter, not rounded, cut off at 0 and 255."""
    return (resize(images.float(), inception.SIZE, "bicubic").clamp(0.0, 255.0) - 128.0) / 128.0


def open_efficientnet(weights: Path | None, warn: Warn, progress: Progress | None) -> Extractor:
    found = importlib.util.find_spec(efficientnet.PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ExtractorError(f"{efficientnet.NAME} is not installed: pip install '.[features]'")
    path = Path(found.submodule_search_locations[0], efficientnet.FILE)
    if not path.is_file():
        raise ExtractorError(f"{path} is missing: pip install --force-reinstall {efficientnet.PACKAGE}")
    digest = sha256_file(path)
    if not digest.startswith(efficientnet.SHA256_PREFIX):
        raise DamagedFile(path, f"its SHA-256 is {digest[:8]}…, not {efficientnet.SHA256_PREFIX}…; install "
                                f"{efficientnet.PACKAGE} again")  # fmt: skip
    network = efficientnet.EfficientNetLite0(load_weights(path), path)
    return Extractor(
        efficientnet.NAME, digest, efficientnet.DIMENSIONS, "bicubic to 224², Pillow's", False, network,
        efficientnet.prepare,
    )  # fmt: skip


EXTRACTORS: dict[str, Callable[[Path | None, Warn, Progress | None], Extractor]] = {
    inception.NAME: open_inception,
    efficientnet.NAME: open_efficientnet,
}


def load_weights(path: Path, meant: str = "") -> Mapping[str, Tensor]:
    """A state dict, read without executing anything in the file. Raises DamagedFile."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = f"; it should be {meant}" if meant else ""
        raise DamagedFile(path, f"it cannot be read as weights ({reason[:80]}){hint}") from error
    return state
