"""What metrics measure: a snapshot and a data set, and the images, features and codes that come of them.

Everything is computed when it is first asked for, and kept: `fid`, `kid` and `pr` share their features, and
all metrics of codes share one pass of Q over the labelled images.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnnlib.cache import cache_folder
from dnnlib.files import DamagedFile, read_digested, sha256_file, write_digested
from dnnlib.seeding import seed_step
from infostylegan.code_version import code_version
from infostylegan.codes import (
    BernoulliPosterior,
    CategoricalPosterior,
    Posterior,
    TruncatedNormalPosterior,
    shown_name,
)
from infostylegan.data import Dataset
from infostylegan.data.loading import permutation
from infostylegan.data.pyramid import box_sums, to_float
from infostylegan.export import load_snapshot
from infostylegan.export.card import record
from infostylegan.naming import code_names
from infostylegan.networks import Discriminator, Generator
from infostylegan.render.grids import to_uint8
from infostylegan.training.step import fade_reals
from metrics.errors import MetricError
from metrics.features import Extractor
from metrics.frechet import FeatureStatistics, Moments
from metrics.posteriors import DiscreteQ, NormalQ, PosteriorRows, TruncatedNormalQ

# Images made at a time. Each chunk has a seed of its own, so that image i is the same whatever is measured.
CHUNK = 16
KEPT = 10_000  # feature vectors that are kept for metrics that need more than their moments
LABELLED = 50_000  # images at most that Q reads
STREAM = 7  # separates these draws from those of training
BATCH = 64  # real images that Q reads at a time
CACHE_VERSION = 1


@dataclass(frozen=True)
class Features:
    """Moments of all feature vectors, and the vectors of the first `KEPT` images."""

    moments: Moments
    kept: np.ndarray  # float32 [n, D]
    indices: np.ndarray  # int64 [n]: which images those are


@dataclass(frozen=True)
class Reading:
    """What Q says of the labelled images."""

    posteriors: list[PosteriorRows]  # one a code
    codes: np.ndarray  # float64 [n, L]: Q's mean, or its likeliest category
    hidden: np.ndarray  # float32 [n, F]: the layer that Q's parameters are read from


@dataclass
class Evaluation:
    """One snapshot measured on one data set.

    extractor_source  opens the extractor when a metric first needs it
    say               where progress and warnings go
    unlabelled        digest of the data set without labels, as a model without labels was trained on it
    """

    snapshot: Path
    dataset: Dataset
    extractor_source: Callable[[], Extractor]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    estimates: int = 5
    say: Callable[[str], None] = lambda text: None
    unlabelled: Callable[[], str] = lambda: ""

    def __post_init__(self) -> None:
        content = load_snapshot(self.snapshot)
        self.G: Generator = content["G_ema"].to(self.device)
        found = content.get("D")
        self.D: Discriminator | None = found.to(self.device) if isinstance(found, Discriminator) else None
        self.images = int(content.get("images", 0))
        self.code_names = code_names(content)
        self.trained_on = str(record(content, "dataset").get("digest") or "")
        self._generated: dict[int, Features] = {}
        self._real: dict[int | None, Features] = {}
        data = self.dataset
        if data.channels != self.G.channels:
            raise MetricError(
                f"{data.name} has {data.channels} channels and the generator {self.G.channels}: give the "
                "data set that it was trained on"
            )

    @functools.cached_property
    def extractor(self) -> Extractor:
        return self.extractor_source()

    @functools.cached_property
    def model_digest(self) -> str:
        return sha256_file(self.snapshot)

    @functools.cached_property
    def shown(self) -> list[str]:
        """The codes' names, as people are shown them."""
        return [shown_name(name, self.code_names) for name in self.G.codes.names]

    @functools.cached_property
    def on_training_set(self) -> bool:
        if self.dataset.digest == self.trained_on:
            return True
        return self.dataset.labels is not None and self.unlabelled() == self.trained_on != ""

    def protocol(self) -> dict[str, Any]:
        """What every result names, whichever metric it is of."""
        return {
            "model_digest": self.model_digest,
            "dataset": self.dataset.name,
            "dataset_digest": self.dataset.digest,
            "dataset_images": len(self.dataset),
            "dataset_is_training_set": self.on_training_set,
            "resolution": int(self.G.grown_resolution),
            "truncation": None,
            "seed": self.seed,
            **code_version(),
        }

    # ---- generated images ------------------------------------------------------------------------------

    def latents(self, n: int, number: int, stream: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
        """z', c and labels of one chunk on the device; labels as often as the data set has them."""
        draw = torch.Generator().manual_seed(seed_step(self.seed, number, stream, STREAM))
        z, c = self.G.sample_latents(n, generator=draw)
        y: Tensor | None = None
        if self.G.labels:
            labels = self.dataset.labels
            if labels is None:
                raise MetricError(
                    f"{self.dataset.name} has no labels, and the generator draws by label: give the data set "
                    "with its labels"
                )
            if labels.max() >= self.G.labels:
                raise MetricError(
                    f"{self.dataset.name} has classes up to {labels.max()}, and the generator knows "
                    f"{self.G.labels}: give the data set that it was trained on"
                )
            y = torch.from_numpy(labels)[torch.randint(len(labels), (n,), generator=draw)]
        return z.to(self.device), c.to(self.device), y if y is None else y.to(self.device)

    def generated(self, n: int, estimate: int = 0) -> Iterator[Tensor]:
        """The first n images of one estimate, uint8 [<= CHUNK, C, R, R], on the device."""
        for number, start in enumerate(range(0, n, CHUNK)):
            yield from_bytes(to_uint8(self.chunk(number, estimate)[: n - start])).to(self.device)

    @torch.no_grad()
    def chunk(self, number: int, estimate: int = 0) -> Tensor:
        """CHUNK images of one estimate, float; the random state of the process is left as it was."""
        z, c, y = self.latents(CHUNK, number, estimate)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            # The layers' noise comes from the global generator.
            torch.manual_seed(seed_step(self.seed, number, estimate, STREAM + 1))
            return self.G(z, c, y)

    def pictures(self, indices: np.ndarray, estimate: int = 0) -> np.ndarray:
        """Generated images by their numbers within an estimate, uint8 [n, H, W, C]."""
        found: dict[int, np.ndarray] = {}
        wanted = {int(i) for i in indices}
        last = max(wanted) + 1
        for number, start in enumerate(range(0, last, CHUNK)):
            if wanted & set(range(start, start + CHUNK)):
                chunk = to_uint8(self.chunk(number, estimate))
                found.update((start + i, pixels) for i, pixels in enumerate(chunk))
        return np.stack([found[int(i)] for i in indices])

    def generated_moments(self, n: int, estimate: int) -> Moments:
        """Moments of the features of n images of one estimate."""
        if estimate == 0:
            return self.generated_features(n).moments
        return self._gather(self.generated(n, estimate), n, "generated images", keep=0).moments

    def generated_features(self, n: int) -> Features:
        """Features of the first n images of the first estimate."""
        if n not in self._generated:
            self._generated[n] = self._gather(self.generated(n), n, "generated images")
        return self._generated[n]

    def generated_sample(self, n: int) -> np.ndarray:
        """Feature vectors [n, D] of the same images, n no more than KEPT; those that are there are used."""
        there = [found.kept for m, found in self._generated.items() if m >= n]
        return there[0][:n] if there else self.generated_features(n).kept

    # ---- real images -----------------------------------------------------------------------------------

    def order(self, count: int | None = None) -> np.ndarray:
        """The real images in the order in which they are taken: all of them, or `count`."""
        return permutation(0, 0, len(self.dataset))[:count]

    def real_features(self, count: int | None = None) -> Features:
        """Features of all real images, or of `count` of them, from the cache if they are there.

        The cache goes by content: the data's digest, size and channels, and the extractor's weights and
        resizing. A name never enters it.
        """
        count = None if count is None or count >= len(self.dataset) else count
        if count not in self._real:
            path = self._cache_path(count)
            found = self._recall(path)
            if found is None:
                order = self.order(count)
                found = self._gather(self.real(order), len(order), "real images", order)
                self._remember(path, found)
            self._real[count] = found
        return self._real[count]

    def real_sample(self, n: int) -> Features:
        """Features of n real images, or of all there are; no others are computed for it."""
        everything = self._real.get(None)
        if everything is None and self._recall_everything():
            everything = self._real[None]
        if everything is None:
            return self.real_features(n)
        # The order is the same, so that these are the same images.
        return Features(everything.moments, everything.kept[:n], everything.indices[:n])

    def _recall_everything(self) -> bool:
        found = self._recall(self._cache_path(None))
        if found is not None:
            self._real[None] = found
        return found is not None

    def real(self, order: np.ndarray) -> Iterator[Tensor]:
        for start in range(0, len(order), CHUNK):
            yield torch.from_numpy(self.dataset.images(order[start : start + CHUNK])).to(self.device)

    def _cache_path(self, count: int | None) -> Path:
        key = json.dumps([
            CACHE_VERSION, KEPT, count, self.dataset.digest, len(self.dataset), self.dataset.resolution,
            self.dataset.channels, self.extractor.name, self.extractor.digest, self.extractor.resize,
        ])  # fmt: skip
        return cache_folder() / "features" / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.npz"

    def _recall(self, path: Path) -> Features | None:
        try:
            with np.load(io.BytesIO(read_digested(path))) as kept:
                moments = Moments(kept["mean"], kept["covariance"], int(kept["count"]))
                return Features(moments, kept["kept"], kept["indices"])
        except FileNotFoundError:
            return None
        except (DamagedFile, OSError, KeyError, ValueError) as error:
            self.say(f"warning: {error}; it is computed anew")
            return None

    def _remember(self, path: Path, features: Features) -> None:
        buffer = io.BytesIO()
        m = features.moments
        np.savez(buffer, mean=m.mean, covariance=m.covariance, count=m.count, kept=features.kept,
                 indices=features.indices)  # fmt: skip
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_digested(path, buffer.getvalue())
        except OSError as error:  # no more than time is lost
            self.say(f"warning: features are not kept: {error}")

    def _gather(
        self,
        batches: Iterator[Tensor],
        total: int,
        what: str,
        order: np.ndarray | None = None,
        keep: int | None = None,
    ) -> Features:
        """Moments of all, features of the first KEPT: memory does not grow with `total` beyond that."""
        keep = KEPT if keep is None else keep
        statistics = FeatureStatistics(self.extractor.dimensions)
        kept: list[np.ndarray] = []
        done = 0
        for images in batches:
            features = self.extractor(images).cpu().numpy()
            statistics.append(features)
            if done < keep or not kept:
                kept.append(features[: max(0, keep - done)])
            done += len(features)
            if done // 2048 > (done - len(features)) // 2048 or done == total:
                self.say(f"  features of {done:,} of {total:,} {what}")
        indices = np.arange(total) if order is None else order
        return Features(statistics.moments(), np.concatenate(kept), indices[:keep])

    # ---- codes -----------------------------------------------------------------------------------------

    def attributes(self) -> dict[str, np.ndarray]:
        """All that is known of the real images: their class, generative factors and observed attributes."""
        data = self.dataset
        known = {**(data.factors or {}), **(data.attributes or {})}
        if data.labels is not None and not any(np.array_equal(data.labels, v) for v in known.values()):
            return {"label": data.labels, **known}
        return known

    def factors(self) -> dict[str, np.ndarray]:
        """What the real images were drawn from; where that is unknown, all that is known of them."""
        return dict(self.dataset.factors) if self.dataset.factors else self.attributes()

    @functools.cached_property
    def labelled(self) -> np.ndarray:
        """Which real images Q reads, int64 [n]."""
        return np.sort(self.order(LABELLED))

    def known(self) -> dict[str, np.ndarray]:
        """The attributes of the images that Q reads."""
        return {name: np.asarray(values)[self.labelled] for name, values in self.attributes().items()}

    def require_q(self) -> Discriminator:
        """D with its head Q. Raises MetricError where the snapshot has none."""
        if self.D is None or self.D.q_head is None:
            raise MetricError(f"{self.snapshot} has no Q that reads codes (it was trained without codes)")
        return self.D

    def as_trained(self, pixels: np.ndarray) -> Tensor:
        """Real images as D met them last: at the size and the fade that growth has come to."""
        resolution = int(self.G.grown_resolution)
        real = to_float(box_sums(pixels, resolution), pixels.shape[-1] // resolution)
        return fade_reals(real, float(self.G.grown_fade)).to(self.device)

    @functools.cached_property
    def categorical(self) -> tuple[int, ...]:
        """Which columns of the representation are categories."""
        return tuple(i for i, code in enumerate(self.G.codes) if code.kind == "cat")

    @torch.no_grad()
    def generated_reading(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes [n, L] of generated images, and the layer of D [n, F] that Q's parameters are read from."""
        D = self.require_q()
        assert D.q_head is not None
        codes, hidden = [], []
        for number in range(-(-n // CHUNK)):
            codes.append(self.latents(CHUNK, number)[1].cpu().numpy())
            features = D.trunk(self.chunk(number), float(self.G.grown_fade)).flatten(1)
            hidden.append(D.q_head.dense(features).float().cpu().numpy())
        return np.concatenate(codes)[:n].astype(np.float64), np.concatenate(hidden)[:n]

    @functools.cached_property
    def reading(self) -> Reading:
        """One pass of Q over the labelled images."""
        D, fade = self.require_q(), float(self.G.grown_fade)
        assert D.q_head is not None
        posteriors: list[list[Posterior]] = []
        codes, hidden = [], []
        with torch.no_grad():
            for start in range(0, len(self.labelled), BATCH):
                pixels = self.dataset.images(self.labelled[start : start + BATCH])
                features = D.trunk(self.as_trained(pixels), fade).flatten(1)
                last = D.q_head.dense(features)
                hidden.append(last.float().cpu().numpy())
                posterior = D.codes.posterior(D.q_head.out(last))
                posteriors.append(posterior)
                codes.append(D.codes.representation(posterior))
        rows = [posterior_rows([batch[i] for batch in posteriors]) for i in range(len(D.codes))]
        return Reading(rows, np.concatenate(codes).astype(np.float64), np.concatenate(hidden))


def posterior_rows(batches: list[Posterior]) -> PosteriorRows:
    """One code's posteriors, batch after batch, as arrays of parameters."""

    def joined(name: str) -> np.ndarray:
        parts = [getattr(batch, name).detach().double().cpu().numpy() for batch in batches]
        return np.concatenate(parts)

    first = batches[0]
    if isinstance(first, (CategoricalPosterior, BernoulliPosterior)):
        return DiscreteQ(np.exp(joined("log_probs")))
    kind = TruncatedNormalQ if isinstance(first, TruncatedNormalPosterior) else NormalQ
    return kind(joined("loc"), joined("scale"))


def from_bytes(pixels: np.ndarray) -> Tensor:
    """uint8 [N, H, W, C] -> [N, C, H, W]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
