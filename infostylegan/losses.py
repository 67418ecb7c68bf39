"""Adversarial, R1 and mutual-information losses: pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from infostylegan.codes import BernoulliPosterior, CategoricalPosterior, CodeSpec, Posterior


def generator_logistic(fake_score: Tensor) -> Tensor:
    """Non-saturating logistic loss softplus(-D(G(z))), [N]."""
    return F.softplus(-fake_score)


def discriminator_logistic(real_score: Tensor, fake_score: Tensor) -> Tensor:
    """softplus(D(G(z))) + softplus(-D(x)): the negative of Eq. 2 with D = sigmoid(score), [N]."""
    return F.softplus(fake_score) + F.softplus(-real_score)


def r1_penalty(real_score: Tensor, real: Tensor) -> Tensor:
    """Squared norm of the score's gradient at each real image, [N]; `real` must require gradients.

    The loss adds (gamma / 2) times this. It acts on the adversarial score alone, never on Q's outputs. The
    sum over the batch separates the images' gradients, as far as minibatch-stddev lets it.
    """
    (gradient,) = torch.autograd.grad(real_score.sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def information(spec: CodeSpec, posterior: Sequence[Posterior], c: Tensor) -> Tensor:
    """log Q(c_i | image) - log p(c_i) for each sample and code, [N, len(spec)], in nats.

    Its mean over the batch is the Monte Carlo estimate of L_info (Eq. 3), code by code.
    """
    return spec.log_posterior(posterior, c) - spec.log_prior(c)


def information_weights(spec: CodeSpec, beta: float, beta_uniform: float | None = None) -> Tensor:
    """Weight of each code's information in the loss, [len(spec)]: beta of Eq. 4, one number for all codes
    unless uniform codes are given their own."""
    uniform = beta if beta_uniform is None else beta_uniform
    return torch.tensor([uniform if code.kind == "unif" else beta for code in spec], dtype=torch.float32)


def image_gradient(adversarial: Tensor, informative: Tensor, images: Tensor, clip: float) -> Tensor:
    """Gradient of two losses (scalars) with respect to `images`, which both are made of; of their shape.

    With `clip` > 0 the second's share is at most `clip` times as long as the first's: the adaptive gradient
    clipping of Belghazi et al. (Mutual Information Neural Estimation, 2018), here at the images, not at the
    weights, so that one pass back through G is enough. It costs one more through D.
    """
    if clip <= 0.0:
        return torch.autograd.grad(adversarial + informative, images)[0]
    (first,) = torch.autograd.grad(adversarial, images, retain_graph=True)
    (second,) = torch.autograd.grad(informative, images)
    limit = clip * torch.linalg.vector_norm(first)
    length = torch.linalg.vector_norm(second)
    return first + second * torch.where(length > limit, limit / length, 1.0)


# Weight of the evenness of Q's use of a code's values beside its agreement, in `agreed_information`. With 1,
# values that are unused at the start stay unused; with 2, Q can rest at knowing nothing (docs/mnist.md).
EVENNESS = 1.5


def agreed_information(
    spec: CodeSpec, one: Sequence[Posterior], two: Sequence[Posterior], evenness: float = EVENNESS
) -> Tensor:
    """What Q reads alike from two views of each image of a batch, for each discrete code, in nats. [codes]

    evenness · H(mean of Q) - mean cross-entropy between Q(c | one view) and Q(c | the other); 0 for uniform
    codes. High where Q is sure of each image, says the same of both of its views, and uses all values of the
    code equally. With evenness 1 and both views the same, it is the information that Q reads from the batch
    (compare section 4.3: I(V; C) through Q); unsupervised classifiers that are trained so are described by
    Krause et al. 2010 and Hu et al. 2017.
    """
    if not one:
        return torch.zeros(0)
    discrete = (CategoricalPosterior, BernoulliPosterior)
    values = []
    for a, b in zip(one, two):
        if isinstance(a, discrete) and isinstance(b, discrete):
            log_p, log_q = a.log_probs, b.log_probs
            p, q = log_p.exp(), log_q.exp()
            # The mean is kept off 0: the derivative of p ln p is infinite there.
            mean = ((p + q) / 2).mean(dim=0).clamp(min=1e-30)
            cross = -(p * log_q + q * log_p).sum(dim=1).mean() / 2
            values.append(-evenness * (mean * mean.log()).sum() - cross)
        else:
            values.append(a.mean.new_zeros(()))
    return torch.stack(values)
