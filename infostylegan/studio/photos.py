"""Photographs that were projected: their likeness, and what becomes of it when codes change."""

from __future__ import annotations

import math
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from infostylegan.codes import Uniform
from infostylegan.projection import Projection, project, with_codes
from infostylegan.render.grids import to_uint8
from infostylegan.render.walk import sweep_uniform
from infostylegan.studio.jobs import Job, Work
from infostylegan.studio.model import BadSettings, Model, Pixels, Settings, encode_png, with_code
from infostylegan.studio.photograph import read_photograph

KEPT = 8
STEPS = 200
PREVIEWS = 25  # in all


@dataclass(frozen=True)
class Photo:
    """A photograph as the generator sees it, uint8 [H, W, C], and its projection."""

    original: Pixels
    projection: Projection


class Photos:
    """The last few projected photographs, by id; older ones are forgotten."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._kept: OrderedDict[str, Photo] = OrderedDict()

    def find(self, id: str) -> Photo:
        """Raises BadSettings where the photograph is not kept (any more)."""
        photo = self._kept.get(id)
        if photo is None:
            raise BadSettings("this photograph is no longer kept: drop it again")
        return photo

    def projecting(self, content: bytes, index: int | None) -> Work:
        """The work of a job: project an uploaded file, or image `index` of the data set."""

        def work(job: Job) -> None:
            model, G = self.model, self.model.G
            if index is None:
                pixels = read_photograph(content, model.resolution, G.channels)
            else:
                pixels = model.real(index)
            image = torch.tensor(pixels).permute(2, 0, 1)[None] / 127.5 - 1.0

            def progress(step: int, steps: int, loss: float, likeness: Tensor) -> None:
                due = step % max(1, steps // PREVIEWS) == 0
                job.step(step, steps, encode_png(to_uint8(likeness)[0]) if due else None)
                model.turn.yield_turn()

            with model.turn:
                found = project(G, model.D, image, steps=STEPS, progress=progress)
            id = secrets.token_urlsafe(12)
            self._kept[id] = Photo(pixels, found)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            job.result = {
                "photo": id,
                "codes": dict(zip(G.codes.names, found.c[0].tolist())),
                "psnr": round(found.psnr, 1) if math.isfinite(found.psnr) else None,
            }

        return work

    def pixels(self, settings: Sequence[Settings]) -> Pixels:
        """Pictures of several settings of one photograph, uint8 [N, H, W, C]. The caller has the turn."""
        photo = self.find(settings[0].photo or "")
        c = torch.tensor([s.codes for s in settings]).reshape(len(settings), -1)
        return to_uint8(with_codes(self.model.G, photo.projection, c))

    def sweep(self, settings: Settings, name: str, count: int) -> Iterator[Pixels]:
        """`count` frames, uint8 [H, W, 3], of one code swept through its range and back to the first."""
        index = self.model.G.codes.names.index(name)
        code = self.model.G.codes[index]
        values = code.traversal()
        for frame in range(count):
            phase = frame / count
            if isinstance(code, Uniform):
                value = sweep_uniform(phase, "smooth")
            else:
                value = float(values[int(phase * len(values))])
            picture = self.pixels([with_code(settings, index, value)])[0]
            yield np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
