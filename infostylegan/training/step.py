"""One training step: D, then G with fresh latents, then the moving average of G.

Gradient routing is InfoGAN's (Chen et al. 2016): in D's step, on detached images, the trunk (as far as
`trunk_share` lets it) and Q learn to read the codes; in G's step the generator learns to write them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dnnlib import distributed
from infostylegan.codes import CodeSpec
from infostylegan.growth import Phase
from infostylegan.losses import (
    agreed_information,
    discriminator_logistic,
    generator_logistic,
    image_gradient,
    information,
    information_weights,
    r1_penalty,
)
from infostylegan.networks import Discriminator, Generator, Judgement
from infostylegan.networks.layers import box_downsample, nearest_upsample
from infostylegan.views import random_view


@dataclass(frozen=True)
class LossSettings:
    """What the loss is made of. `beta` of Eq. 4; gamma comes from the phase."""

    beta: float = 1.0
    beta_uniform: float | None = None
    beta_real: float = 0.0  # weight of what Q reads alike from two views of a real image (discrete codes)
    share_codes: bool = False  # discrete codes in common within each minibatch-stddev group of fakes
    margin: float = 0.0  # nats below its ceiling from which a discrete code's information earns G no more
    trunk_share: float = 1.0  # of the information's gradient, what D's trunk learns from beside Q's head
    information_clip: float = 0.0  # longest that G's gradient from it may be, in adversarial ones; 0: any
    views: float = 0.0  # strength of the random views that the discrete codes are read through; 0: none
    r1_interval: int = 1  # R1 every so many steps, weighted to the same strength
    micro_batch: int | None = None  # images of one backward pass; None: the whole batch

    def weights(self, spec: CodeSpec) -> Tensor:
        """Weight of each code's information, [codes]."""
        return information_weights(spec, self.beta, self.beta_uniform)


@dataclass
class StepStats:
    """Sums over a step's images, to be averaged by whoever reports them.

    They stay tensors on the device of the step: reading a number would make a GPU wait.
    """

    images: int = 0
    loss_g: Tensor | float = 0.0
    loss_d: Tensor | float = 0.0
    r1: Tensor | float = 0.0
    r1_images: int = 0
    score_real: Tensor | float = 0.0
    score_fake: Tensor | float = 0.0
    information: Tensor = field(default_factory=lambda: torch.zeros(0))  # [codes], nats × images
    skipped: int = 0

    def add(self, other: StepStats) -> None:
        for name in ("images", "loss_g", "loss_d", "r1", "r1_images", "score_real", "score_fake", "skipped"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.information = (
            other.information + self.information if self.information.numel() else other.information
        )


def fade_reals(real: Tensor, fade: float) -> Tensor:
    """Reals at the sharpness that G can reach: towards their own 2×2-box-then-nearest version."""
    return real if fade >= 1.0 else nearest_upsample(box_downsample(real)).lerp(real, fade)


def uses_views(D: Discriminator, views: float) -> bool:
    """Only discrete codes are read through views: for others, another pass through the trunk buys nothing."""
    return views > 0.0 and any(code.kind != "unif" for code in D.codes)


def read_information(
    D: Discriminator, fake: Tensor, judged: Judgement, c: Tensor, fade: float, views: float,
    trunk_share: float = 1.0,
) -> Tensor:  # fmt: skip
    """L_info a sample and code, [N, codes]; with views, the discrete codes are read from a random view."""
    posterior = judged.posterior
    if uses_views(D, views):
        seen = D.posterior(random_view(fake, views), fade=fade, trunk_share=trunk_share)
        posterior = [a if code.kind == "unif" else b for code, a, b in zip(D.codes, posterior, seen)]
    return information(D.codes, posterior, c)


def read_reals(
    D: Discriminator, real: Tensor, judged: Judgement, fade: float, views: float, trunk_share: float = 1.0
) -> Tensor:
    """What Q reads alike from two random views of each real image (or, without views, from it), [codes].

    It depends on averages over the (micro-)batch.
    """
    if not uses_views(D, views):
        return agreed_information(D.codes, judged.posterior, judged.posterior)
    one, two = (D.posterior(random_view(real, views), fade=fade, trunk_share=trunk_share) for _ in range(2))
    return agreed_information(D.codes, one, two)


def share_codes(D: Discriminator, c: Tensor, share: bool) -> Tensor:
    """Codes [N, codes] such that the fakes of one minibatch-stddev group have their discrete codes in common.

    The spread that D sees in a group of fakes is then the spread that z' and the uniform codes give, so that
    a generator whose codes have each become one picture is easily told from the data.
    """
    group = D.score_head.group
    if not share or len(c) % group:
        return c
    first = c[: len(c) // group].repeat(group, 1)
    discrete = torch.tensor([code.kind != "unif" for code in D.codes], dtype=torch.bool, device=c.device)
    return torch.where(discrete, first, c)


def enough(nats: Tensor, D: Discriminator, margin: float) -> Tensor:
    """Information capped, sample by sample, at `margin` below the ceiling of each discrete code: past that
    point G would only buy certainty with the variety that z' gives."""
    if margin <= 0.0:
        return nats
    caps = [code.ceiling - margin if code.kind != "unif" else float("inf") for code in D.codes]
    return torch.minimum(nats, torch.tensor(caps, device=nats.device))


def discriminator_step(
    G: Generator, D: Discriminator, real: Tensor, label: Tensor | None, phase: Phase, fade: float,
    settings: LossSettings, r1_weight: float, stats: StepStats,
) -> None:  # fmt: skip
    """Accumulate D's gradients: logistic + R1 - beta · L_info, on detached fakes."""
    n, views, share = real.shape[0], settings.views, settings.trunk_share
    weights = settings.weights(D.codes)
    informed = bool(weights.any())
    weights = weights.to(real.device)
    z, c = G.sample_latents(n, device=real.device)
    for part in micro_batches(n, settings.micro_batch):
        y = None if label is None else label[part]
        c[part] = share_codes(D, c[part], settings.share_codes)
        with torch.no_grad():
            fake = G(z[part], c[part], y, resolution=phase.resolution, fade=fade)
        x = real[part].detach().requires_grad_(r1_weight > 0.0)
        judged_real, judged_fake = (D(images, y, fade=fade, trunk_share=share) for images in (x, fake))
        loss = discriminator_logistic(judged_real.score, judged_fake.score)
        if informed:
            loss = loss - read_information(D, fake, judged_fake, c[part], fade, views, share) @ weights
        if settings.beta_real > 0.0:
            agreed = read_reals(D, x.detach(), judged_real, fade, views, share)
            loss = loss - settings.beta_real * agreed.sum()
        if r1_weight > 0.0:
            penalty = r1_penalty(judged_real.score, x)
            loss = loss + 0.5 * r1_weight * penalty
            stats.r1 += penalty.detach().sum()
            stats.r1_images += len(x)
        (loss.sum() / n).backward()
        stats.loss_d += loss.detach().sum()
        stats.score_real += judged_real.score.detach().sum()
        stats.score_fake += judged_fake.score.detach().sum()


def generator_step(
    G: Generator, D: Discriminator, n: int, label: Tensor | None, device: torch.device, phase: Phase,
    fade: float, settings: LossSettings, stats: StepStats,
) -> None:  # fmt: skip
    """Accumulate G's gradients: non-saturating logistic - beta · L_info, through a fixed D and Q."""
    weights = settings.weights(D.codes)
    informed = bool(weights.any())
    views = settings.views if informed else 0.0
    clip = settings.information_clip if informed else 0.0
    weights = weights.to(device)
    z, c = G.sample_latents(n, device=device)
    ws = []
    for part in micro_batches(n, settings.micro_batch):
        y = None if label is None else label[part]
        c[part] = share_codes(D, c[part], settings.share_codes)
        w = G.map(z[part], c[part], y)
        ws.append(w.detach())
        fake = G.synthesize(w, resolution=phase.resolution, fade=fade)
        judged = D(fake, y, fade=fade)
        nats = read_information(D, fake, judged, c[part], fade, views)
        adversarial = generator_logistic(judged.score).sum()
        informative = -(enough(nats, D, settings.margin) @ weights).sum()
        fake.backward(image_gradient(adversarial / n, informative / n, fake, clip))
        stats.loss_g += (adversarial + informative).detach()
        stats.information = nats.detach().sum(dim=0) + (
            stats.information if stats.information.numel() else 0.0
        )
    if G.mapping is not None:
        G.mapping.update_average(torch.cat(ws))


def apply_gradients(network: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
    """Average gradients over processes and step; a non-finite gradient skips the step (returns False)."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    distributed.all_reduce_mean_(gradients)
    # One norm over all: it is non-finite exactly when some gradient is (or overflows, which is as bad).
    finite = bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum()))
    if finite:
        optimizer.step()
    return finite


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average's weights towards the network's; buffers (w_avg, growth) are copied."""
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1.0 - decay)
    for average, current in zip(ema.buffers(), network.buffers()):
        average.copy_(current)


def train_step(
    G: Generator, D: Discriminator, G_ema: Generator, g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer, real: Tensor, label: Tensor | None, phase: Phase, fade: float,
    step: int, ema_decay: float, settings: LossSettings,
) -> StepStats:  # fmt: skip
    """One step on this process's share of the batch: real images [n, channels, R, R], labels [n] or None."""
    stats = StepStats(images=real.shape[0])
    G.set_growth(phase.resolution, fade)
    real = fade_reals(real, fade)

    D.requires_grad_(True)
    d_optimizer.zero_grad(set_to_none=True)
    lazy = step % settings.r1_interval == 0
    r1_weight = phase.gamma * settings.r1_interval if lazy else 0.0
    discriminator_step(G, D, real, label, phase, fade, settings, r1_weight, stats)
    stats.skipped += not apply_gradients(D, d_optimizer)

    D.requires_grad_(False)
    g_optimizer.zero_grad(set_to_none=True)
    generator_step(G, D, real.shape[0], label, real.device, phase, fade, settings, stats)
    stats.skipped += not apply_gradients(G, g_optimizer)

    update_ema(G_ema, G, ema_decay)
    return stats


def micro_batches(n: int, size: int | None) -> Iterator[slice]:
    """Slices of at most `size` samples that cover n."""
    size = size or n
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
