"""A trained generator behind the page: what it is, and pictures of it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, PngImagePlugin

from infostylegan.codes import Code
from infostylegan.export import load_snapshot
from infostylegan.export.card import listed
from infostylegan.naming import code_names
from infostylegan.render.grids import to_uint8
from infostylegan.render.latents import seeded_latents
from infostylegan.studio.jobs import FairLock

if TYPE_CHECKING:
    from infostylegan.data.loading import Dataset

Pixels = npt.NDArray[np.uint8]

MAX_SEED = 2**32 - 1
MAX_PSI = 1.5
STRIP = 7  # pictures of a continuous code's strip
STRIP_MOST = 12  # and of a category's, however many values it has


class BadSettings(ValueError):  # noqa: N818  named for what it is
    """Settings that this generator cannot follow; the message says which and why."""


@dataclass(frozen=True)
class Settings:
    """What decides one picture. `codes` are values in the generator's order."""

    seed: int
    psi: float
    label: int | None
    codes: tuple[float, ...]
    photo: str | None = None  # the id of a projected photograph, whose likeness is edited


class Model:
    """One snapshot, shared by everybody who has the page open.

    turn   held during inference; a long job holds it and yields it between its steps
    """

    def __init__(self, snapshot: Path, data: Dataset | None = None) -> None:
        content = load_snapshot(snapshot)
        self.snapshot = snapshot
        self.data = data
        self.G = content["G_ema"]
        self.D = content.get("D")
        self.names: dict[str, str] = code_names(content)
        self.label_names = listed(content, "label_names")
        self.content = content
        self.turn = FairLock()

    @property
    def resolution(self) -> int:
        """Pixels a side of what the generator makes: what it has grown to."""
        return int(self.G.grown_resolution)

    def describe(self) -> dict[str, Any]:
        """What the page needs to know of the generator, as plain data."""
        labels = self.label_names
        if len(labels) != self.G.labels:
            labels = [str(i) for i in range(self.G.labels)]
        return {
            "name": self.snapshot.stem,
            "run": self.snapshot.resolve().parent.name,
            "resolution": self.resolution,
            "styles": self.G.mapping is not None,
            "images": self.content.get("images"),
            "labels": labels if self.G.labels else [],
            "codes": [
                {
                    "name": code.name,
                    "kind": code.kind,
                    "values": code.width if code.kind == "cat" else 2,
                    "title": self.names.get(code.name, ""),
                }
                for code in self.G.codes
            ],
            "maxSeed": MAX_SEED,
            "maxPsi": MAX_PSI,
            "data": None if self.data is None else {"name": self.data.name, "images": len(self.data)},
        }

    def read(self, document: Any) -> Settings:
        """Settings from the page's JSON. Raises BadSettings."""
        if not isinstance(document, Mapping):
            raise BadSettings("settings are an object with seed, psi, label and codes")
        seed = _whole(document.get("seed"), "seed", 0, MAX_SEED)
        psi = number_within(document.get("psi", 1.0), "psi", 0.0, MAX_PSI)
        label = None
        if self.G.labels:
            label = _whole(document.get("label"), "label", 0, self.G.labels - 1)
        given = document.get("codes", {})
        if not isinstance(given, Mapping):
            raise BadSettings("codes are an object, a value for each code")
        unknown = sorted(set(given) - set(self.G.codes.names))
        if unknown:
            raise BadSettings(f"this generator has no code {str(unknown[0])[:40]!r}")
        codes = tuple(_value(code, given.get(code.name, 0)) for code in self.G.codes)
        photo = document.get("photo")
        if photo is not None and (not isinstance(photo, str) or len(photo) > 64):
            raise BadSettings("photo is the id of a photograph that was projected")
        return Settings(seed, psi, label, codes, photo)

    def drawn_codes(self, seed: int) -> dict[str, float]:
        """The codes that `generate` draws for a seed."""
        return dict(zip(self.G.codes.names, seeded_latents(self.G, [seed])[1][0].tolist()))

    # no_grad, not inference_mode: what is cached here is met again by projection's gradients.
    @torch.no_grad()
    def pixels(self, settings: Sequence[Settings]) -> Pixels:
        """Pictures of several settings that share ψ, uint8 [N, H, W, C]. The caller has the turn."""
        z = seeded_latents(self.G, [s.seed for s in settings])[0]
        c = torch.tensor([s.codes for s in settings]).reshape(len(settings), len(self.G.codes))
        label = torch.tensor([s.label for s in settings]) if self.G.labels else None
        return to_uint8(self.G(z, c, label, settings[0].psi, noise="const"))

    def real(self, index: int) -> Pixels:
        """Image `index` of the data set as the generator's are, uint8 [R, R, C]. Raises BadSettings."""
        if self.data is None or not 0 <= index < len(self.data):
            raise BadSettings(f"there is no image {index} to take")
        return np.ascontiguousarray(self.data.images([index])[0].transpose(1, 2, 0))

    def about(self, settings: Settings) -> dict[str, Any]:
        """What a saved picture says of itself."""
        return {
            "snapshot": self.snapshot.name,
            "seed": settings.seed,
            "psi": settings.psi,
            "label": settings.label,
            "codes": dict(zip(self.G.codes.names, settings.codes)),
        }


def with_code(settings: Settings, index: int, value: float) -> Settings:
    codes = (*settings.codes[:index], value, *settings.codes[index + 1 :])
    return replace(settings, codes=codes)


def strip_values(code: Code) -> list[float]:
    """The values that the strip of a code shows; the page counts in the same way."""
    if code.kind == "unif":
        return [float(value) for value in code.traversal(STRIP)]
    values = len(code.traversal())
    shown = min(values, STRIP_MOST)
    return [float(i * (values - 1) // (shown - 1)) for i in range(shown)]


def encode_png(pixels: Pixels, about: Mapping[str, Any] | None = None) -> bytes:
    """uint8 [H, W, C] as a PNG file: quickly, since a slider waits for it."""
    info = PngImagePlugin.PngInfo()
    if about is not None:
        info.add_text("infostylegan", json.dumps(about))
    out = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.save(out, format="PNG", compress_level=1, pnginfo=info)
    return out.getvalue()


def number_within(value: Any, what: str, low: float, high: float) -> float:
    asked = f"a number from {low:.10g} to {high:.10g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # NaN
        raise BadSettings(f"{what} is {asked}")
    if not low <= value <= high:  # before it is made a float: JSON's whole numbers have no bound
        raise BadSettings(f"{what}: {asked}")
    return float(value)


def _whole(value: Any, what: str, low: int, high: int) -> int:
    number = number_within(value, what, low, high)
    if number != int(number):
        raise BadSettings(f"{what} {value:g}: a whole number from {low} to {high}")
    return int(number)


def _value(code: Code, value: Any) -> float:
    if code.kind == "unif":
        return number_within(value, code.name, -1.0, 1.0)
    return float(_whole(value, code.name, 0, code.width - 1 if code.kind == "cat" else 1))
