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


def aggregate_information(spec: CodeSpec, posterior: Sequence[Posterior]) -> Tensor:
    """H(mean of Q) - mean of H(Q), in nats, for each discrete code over a batch; 0 for uniform codes. [codes]

    On real images it is the information that Q reads from them (compare section 4.3: I(V; C) through Q). It
    is high where Q is sure of each image and uses all values of the code equally.
    """
    if not posterior:
        return torch.zeros(0)
    values = []
    for q in posterior:
        if isinstance(q, CategoricalPosterior):
            log_p = q.logits.log_softmax(dim=1)
        elif isinstance(q, BernoulliPosterior):
            log_p = torch.stack([F.logsigmoid(q.logit), F.logsigmoid(-q.logit)], dim=1)
        else:
            values.append(q.mean.new_zeros(()))
            continue
        # From log p, and the mean kept off 0: the derivative of p ln p is infinite there.
        p = log_p.exp()
        mean = p.mean(dim=0).clamp(min=1e-30)
        values.append((p * log_p).sum(dim=1).mean() - (mean * mean.log()).sum())
    return torch.stack(values)
