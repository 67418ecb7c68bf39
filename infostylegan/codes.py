"""The latent codes c: what a code is, how it enters the generator, and how Q describes it.

A code has a prior p(c_i), an encoding that the generator reads, and a posterior family that the head Q
parametrises. The information of a code is the variational bound of Chen et al. 2016 (paper, Eq. 3 and 13),

    L_info(c_i) = E[log Q(c_i | image)] - E[log p(c_i)]   <=   I(C_i; image),      in nats.

Codes are held as one float column each: a category index, {0, 1}, or a number in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dnnlib.errors import UserError

LOG_2 = math.log(2.0)
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)

UNIFORM_POSTERIORS = ("unit", "gaussian", "truncnormal")
# The floor of Q's learned scale for uniform codes. It caps the information of one code, so that a code
# already known to a tenth of its range stops competing with the others.
DEFAULT_SIGMA_MIN = 0.2


class CodeError(UserError, ValueError):
    """A code specification that cannot be used; the message says what and how to mend it."""


def shown_name(code: str, names: Mapping[str, str] | None) -> str:
    """What people read: `unif3 (pigmentation)`, or `unif3` where it has no name of its own."""
    called = names.get(code) if names else None
    return f"{code} ({called})" if called and called != code else code


class Posterior(Protocol):
    """Q(c_i | image) of one code for a batch of N images."""

    @property
    def mean(self) -> Tensor:
        """[N], or [N, K] for a categorical: the expectation of the code (of its one-hot)."""
        ...

    def log_prob(self, value: Tensor) -> Tensor:
        """log Q(value) in nats, [N], for code values [N]."""
        ...


@dataclass(frozen=True)
class CategoricalPosterior:
    logits: Tensor  # [N, K]

    @property
    def mean(self) -> Tensor:
        return self.logits.softmax(dim=1)

    @property
    def log_probs(self) -> Tensor:
        """Log-probability of every value, [N, K]."""
        return self.logits.log_softmax(dim=1)

    def log_prob(self, value: Tensor) -> Tensor:
        return -F.cross_entropy(self.logits, value.long(), reduction="none")


@dataclass(frozen=True)
class BernoulliPosterior:
    logit: Tensor  # [N]

    @property
    def mean(self) -> Tensor:
        return self.logit.sigmoid()

    @property
    def log_probs(self) -> Tensor:
        """Log-probability of either value, [N, 2]."""
        return torch.stack([F.logsigmoid(-self.logit), F.logsigmoid(self.logit)], dim=1)

    def log_prob(self, value: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(self.logit, value, reduction="none")


@dataclass(frozen=True)
class GaussianPosterior:
    loc: Tensor  # [N]
    scale: Tensor  # [N]

    @property
    def mean(self) -> Tensor:
        return self.loc

    def log_prob(self, value: Tensor) -> Tensor:
        return -0.5 * ((value - self.loc) / self.scale).square() - self.scale.log() - HALF_LOG_2PI


@dataclass(frozen=True)
class TruncatedNormalPosterior:
    """A normal restricted to [-1, 1]; as its scale grows it becomes the uniform prior itself."""

    loc: Tensor  # [N], within [-1, 1]
    scale: Tensor  # [N]

    def _bounds(self) -> tuple[Tensor, Tensor]:
        return (-1.0 - self.loc) / self.scale, (1.0 - self.loc) / self.scale

    def _log_mass(self) -> Tensor:
        # loc lies within the interval, so both terms are non-negative and nothing cancels, at any scale.
        low, high = self._bounds()
        root_half = math.sqrt(0.5)
        return (0.5 * (torch.erf(high * root_half) + torch.erf(-low * root_half))).log()

    @property
    def mean(self) -> Tensor:
        # The difference of the densities at both ends, from the nearer one: nothing cancels at a large scale.
        near = (1.0 - self.loc.abs()) / self.scale
        gap = (-0.5 * near.square()).exp() * torch.expm1(-2.0 * self.loc.abs() / self.scale.square())
        return self.loc + self.scale * self.loc.sign() * gap * (-HALF_LOG_2PI - self._log_mass()).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        gaussian = GaussianPosterior(self.loc, self.scale).log_prob(value)
        return gaussian - self._log_mass()


@dataclass(frozen=True)
class Categorical:
    """One of K values, uniformly. Value: the index 0 … K-1."""

    k: int
    name: str = "cat0"
    kind = "cat"

    def __post_init__(self) -> None:
        if self.k < 2:
            raise CodeError(f"cat:{self.k}: a categorical code needs at least 2 values")

    @property
    def width(self) -> int:
        return self.k

    @property
    def posterior_width(self) -> int:
        return self.k

    @property
    def entropy(self) -> float:
        return math.log(self.k)

    @property
    def ceiling(self) -> float:
        return self.entropy

    def sample(self, n: int, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
        return torch.randint(self.k, (n,), generator=generator, device=device).float()

    def encode(self, value: Tensor, plain: bool) -> Tensor:
        one_hot = F.one_hot(value.long(), self.k).float()
        # Each column of a one-hot has mean 1/K and standard deviation sqrt(K-1)/K.
        return one_hot if plain else (one_hot - 1.0 / self.k) * (self.k / math.sqrt(self.k - 1))

    def log_prior(self, value: Tensor) -> Tensor:
        return torch.full_like(value, -math.log(self.k))

    def posterior(self, params: Tensor) -> Posterior:
        return CategoricalPosterior(params)

    def traversal(self, steps: int | None = None) -> Tensor:
        return torch.arange(self.k).float()


@dataclass(frozen=True)
class Bernoulli:
    """A fair coin. Value: 0 or 1; the generator reads -1 or 1."""

    name: str = "bern0"
    kind = "bern"
    width = 1
    posterior_width = 1
    entropy = LOG_2
    ceiling = LOG_2

    def sample(self, n: int, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
        return torch.randint(2, (n,), generator=generator, device=device).float()

    def encode(self, value: Tensor, plain: bool) -> Tensor:
        return (value if plain else 2.0 * value - 1.0).unsqueeze(1)

    def log_prior(self, value: Tensor) -> Tensor:
        return torch.full_like(value, -LOG_2)

    def posterior(self, params: Tensor) -> Posterior:
        return BernoulliPosterior(params[:, 0])

    def traversal(self, steps: int | None = None) -> Tensor:
        return torch.tensor([0.0, 1.0])


@dataclass(frozen=True)
class Uniform:
    """Uniform on [-1, 1]; Q describes it by one of three families.

    `unit`: Gaussian with sigma = 1, as the paper; its bound stays below ln 2 - ln(2 pi)/2 = -0.226 nats.
    `gaussian`: Gaussian with learned sigma >= sigma_min.
    `truncnormal`: normal truncated to [-1, 1], its natural parameters learned, scale >= sigma_min.
    """

    family: str = "truncnormal"
    sigma_min: float = DEFAULT_SIGMA_MIN
    name: str = "unif0"
    kind = "unif"
    width = 1
    entropy = LOG_2

    def __post_init__(self) -> None:
        if self.family not in UNIFORM_POSTERIORS:
            raise CodeError(
                f"uniform posterior {self.family!r}: choose one of {', '.join(UNIFORM_POSTERIORS)}"
            )
        if not 0.01 <= self.sigma_min <= 1.0:
            raise CodeError(f"sigma_min {self.sigma_min}: must lie within 0.01 … 1")

    @property
    def posterior_width(self) -> int:
        return 1 if self.family == "unit" else 2

    @property
    def ceiling(self) -> float:
        """The largest value that the bound can take with this family, in nats."""
        if self.family == "unit":
            return LOG_2 - HALF_LOG_2PI
        if self.family == "gaussian":
            return LOG_2 - math.log(self.sigma_min) - HALF_LOG_2PI
        # Truncated normal: the best location for each value, averaged over the prior.
        grid = torch.linspace(-1.0, 1.0, 401, dtype=torch.float64)
        scale = torch.full_like(grid, self.sigma_min)
        density = torch.stack([TruncatedNormalPosterior(grid, scale).log_prob(value) for value in grid]).amax(
            dim=1
        )
        return LOG_2 + float(torch.trapezoid(density, grid)) / 2.0

    def sample(self, n: int, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
        return torch.rand(n, generator=generator, device=device) * 2.0 - 1.0

    def encode(self, value: Tensor, plain: bool) -> Tensor:
        return (value if plain else value * math.sqrt(3.0)).unsqueeze(1)

    def log_prior(self, value: Tensor) -> Tensor:
        return torch.full_like(value, -LOG_2)

    def posterior(self, params: Tensor) -> Posterior:
        if self.family == "unit":
            return GaussianPosterior(params[:, 0], torch.ones_like(params[:, 0]))
        if self.family == "gaussian":
            return GaussianPosterior(params[:, 0], self.sigma_min + F.softplus(params[:, 1]))
        # Density as exp(tilt x - precision x^2 / 2), as far as sigma_min lets it. Q gives its natural
        # parameters, as it gives a categorical its logits: the derivative by the tilt is c - mean, which does
        # not fade at the prior (tilt 0, precision 0), where a learned location would be stuck.
        tilt = params[:, 0]
        # No less than the tilt, so that the location lies within [-1, 1]; the small term keeps the scale
        # finite (a scale of 100 is 1e-9 nats away from the uniform).
        precision = tilt.abs() + F.softplus(params[:, 1]) + 1e-4
        return TruncatedNormalPosterior(tilt / precision, (self.sigma_min**2 + 1.0 / precision).sqrt())

    def traversal(self, steps: int | None = None) -> Tensor:
        return torch.linspace(-1.0, 1.0, steps or 8)


Code = Categorical | Bernoulli | Uniform


@dataclass(frozen=True)
class CodeSpec(Sequence[Code]):
    """An ordered set of independent codes: p(c) is the product of p(c_i).

    A batch of codes is a float tensor [N, len(spec)] of values, one column a code.
    """

    codes: tuple[Code, ...] = ()
    _ceilings: dict[str, float] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def parse(text: str, *, uniform: str = "truncnormal", sigma_min: float = DEFAULT_SIGMA_MIN) -> CodeSpec:
        """`cat:3,bern:7,unif:10` -> one categorical of three values, seven Bernoulli, ten uniform codes.

        Repeat `cat:K` for several categoricals. `none` is the empty set (a plain GAN).
        Raises CodeError, with the offending part, for anything else.
        """
        codes: list[Code] = []
        counts = {"cat": 0, "bern": 0, "unif": 0}
        parts = [part.strip() for part in text.split(",")]
        for part in [] if text.strip() == "none" else parts:
            kind, _, number = part.partition(":")
            if kind not in counts or not number.isascii() or not number.isdigit() or int(number) < 1:
                raise CodeError(
                    f"--codes {text!r}: cannot read {part!r}; write cat:K (K values), bern:N or unif:N "
                    "(how many), separated by commas, as in cat:3,bern:7,unif:10"
                )
            if len(number) > 4:
                raise CodeError(
                    f"--codes {text!r}: {part!r} is more than the 9999 that any latent has room for"
                )
            if kind == "cat":
                codes.append(Categorical(int(number), name=f"cat{counts['cat']}"))
                counts["cat"] += 1
                continue
            for _ in range(int(number)):
                name = f"{kind}{counts[kind]}"
                counts[kind] += 1
                codes.append(Bernoulli(name) if kind == "bern" else Uniform(uniform, sigma_min, name))
        return CodeSpec(tuple(codes))

    def __str__(self) -> str:
        parts: list[str] = []
        for code in self.codes:
            last = parts[-1].partition(":") if parts else ("", "", "")
            if code.kind == "cat":
                parts.append(f"cat:{code.width}")
            elif last[0] == code.kind:
                parts[-1] = f"{code.kind}:{int(last[2]) + 1}"
            else:
                parts.append(f"{code.kind}:1")
        return ",".join(parts) or "none"

    def to_config(self) -> dict[str, Any]:
        """Plain data from which `from_config` rebuilds this spec."""
        uniform = next((code for code in self.codes if isinstance(code, Uniform)), Uniform())
        return {"codes": str(self), "uniform": uniform.family, "sigma_min": uniform.sigma_min}

    @staticmethod
    def from_config(config: dict[str, Any]) -> CodeSpec:
        return CodeSpec.parse(config["codes"], uniform=config["uniform"], sigma_min=config["sigma_min"])

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[Code]:
        return iter(self.codes)

    def __getitem__(self, index: Any) -> Any:
        return self.codes[index]

    @property
    def names(self) -> list[str]:
        return [code.name for code in self.codes]

    @property
    def width(self) -> int:
        """Columns of the encoded codes: what the generator reads."""
        return sum(code.width for code in self.codes)

    @property
    def posterior_width(self) -> int:
        """Numbers that Q outputs for one image."""
        return sum(code.posterior_width for code in self.codes)

    def entropy(self) -> float:
        """H(C) in nats (differential for uniform codes)."""
        return sum(code.entropy for code in self.codes)

    def ceilings(self) -> dict[str, float]:
        """For each code, the largest value that its information bound can take, in nats."""
        if not self._ceilings:
            self._ceilings.update((code.name, code.ceiling) for code in self.codes)
        return dict(self._ceilings)

    def sample(
        self, n: int, *, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Draw c ~ p(c): values [n, len(self)]."""
        if not self.codes:
            return torch.zeros(n, 0, device=device)
        return torch.stack([code.sample(n, generator, device) for code in self.codes], dim=1)

    def encode(self, c: Tensor, *, plain: bool = False) -> Tensor:
        """Values [N, len(self)] -> the generator's input [N, width].

        By default each column is standardised (zero mean, unit variance under the prior). `plain` is the
        paper's reading: one-hot and {0, 1} and [-1, 1] as they are.
        """
        self.check(c)
        if not self.codes:
            return c.new_zeros(c.shape[0], 0)
        return torch.cat([code.encode(c[:, i], plain) for i, code in enumerate(self.codes)], dim=1)

    def check(self, c: Tensor) -> None:
        """Raise CodeError unless c is [N, len(self)]."""
        if c.ndim != 2 or c.shape[1] != len(self):
            raise CodeError(
                f"codes must be [N, {len(self)}] (one column for each of {self}), got {list(c.shape)}"
            )

    def log_prior(self, c: Tensor) -> Tensor:
        """log p(c_i) in nats, [N, len(self)]."""
        if not self.codes:
            return torch.zeros_like(c)
        return torch.stack([code.log_prior(c[:, i]) for i, code in enumerate(self.codes)], dim=1)

    def posterior(self, params: Tensor) -> list[Posterior]:
        """Q's output [N, posterior_width] -> one distribution a code."""
        widths = [code.posterior_width for code in self.codes]
        return [code.posterior(p) for code, p in zip(self.codes, params.float().split(widths, dim=1))]

    def log_posterior(self, posterior: Sequence[Posterior], c: Tensor) -> Tensor:
        """log Q(c_i | image) in nats, [N, len(self)]."""
        if not self.codes:
            return torch.zeros_like(c)
        return torch.stack([q.log_prob(c[:, i]) for i, q in enumerate(posterior)], dim=1)

    def representation(self, posterior: Sequence[Posterior]) -> np.ndarray:
        """Q's reading of each image as one float column a code: the mean, or the likeliest category."""
        columns = [q.mean.argmax(1).float() if q.mean.ndim == 2 else q.mean for q in posterior]
        return torch.stack(columns, dim=1).detach().cpu().numpy()
