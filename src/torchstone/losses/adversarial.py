"""What the two networks of a generative adversarial pair minimize, and penalties on the critic's slope.

Minimax and non-saturating: Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661. Least squares: Mao et al., 2016,
https://arxiv.org/abs/1611.04076. Hinge: Lim & Ye, 2017, https://arxiv.org/abs/1705.02894. Wasserstein: Arjovsky et al., 2017,
https://arxiv.org/abs/1701.07875; gradient penalty: Gulrajani et al., 2017, https://arxiv.org/abs/1704.00028, eq. 3. R1: Mescheder et
al., 2018, https://arxiv.org/abs/1801.04406, eq. 9.

A loss is two functions of the critic's outputs (logits, "real" is large), each one number a sample: `critic(real, fake)` for the
critic, `generator(fake)` for the generator. A penalty is a function of the critic itself.
Shapes: N samples, `...` a sample's own shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

OTHER = "an adversarial game has no setting in which it is none"
Scores = Float[Tensor, " N"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Minimax:
    """The critic: -log D(real) - log(1 - D(fake)); the generator: log(1 - D(fake)), whose slope dies where the critic is sure."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER

    smoothing: float = 0.0
    """One-sided: the critic's target for real samples is 1 - smoothing (Salimans et al., 2016)."""

    def __post_init__(self) -> None:
        _check_smoothing(self)

    def critic(self, real: Scores, fake: Scores) -> Scores:
        return _logistic(real, fake, self.smoothing)

    def generator(self, fake: Scores) -> Scores:
        return -F.softplus(fake)


@dataclass(frozen=True, kw_only=True, slots=True)
class NonSaturating:
    """The critic as in minimax; the generator: -log D(fake), whose slope is largest where the critic is sure."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER

    smoothing: float = 0.0
    """One-sided: the critic's target for real samples is 1 - smoothing (Salimans et al., 2016)."""

    def __post_init__(self) -> None:
        _check_smoothing(self)

    def critic(self, real: Scores, fake: Scores) -> Scores:
        return _logistic(real, fake, self.smoothing)

    def generator(self, fake: Scores) -> Scores:
        return F.softplus(-fake)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hinge:
    """The critic: max(0, 1 - real) + max(0, 1 + fake); the generator: -fake."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER

    def critic(self, real: Scores, fake: Scores) -> Scores:
        return (1 - real).clamp(min=0) + (1 + fake).clamp(min=0)

    def generator(self, fake: Scores) -> Scores:
        return -fake


@dataclass(frozen=True, kw_only=True, slots=True)
class LeastSquares:
    """The critic: ((real - 1)^2 + fake^2) / 2; the generator: (fake - 1)^2 / 2."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER

    def critic(self, real: Scores, fake: Scores) -> Scores:
        return ((real - 1).square() + fake.square()) / 2

    def generator(self, fake: Scores) -> Scores:
        return (fake - 1).square() / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Wasserstein:
    """The critic: fake - real; the generator: -fake. The critic must be held to slopes of 1: `GradientPenalty`."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER

    def critic(self, real: Scores, fake: Scores) -> Scores:
        return fake - real

    def generator(self, fake: Scores) -> Scores:
        return -fake


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientPenalty:
    """strength x (|gradient of the critic at a point between a real and a fake sample| - 1)^2."""

    neutral: ClassVar["GradientPenalty"]

    strength: float = 10.0
    """0 is no penalty."""

    def __post_init__(self) -> None:
        _check_strength(self)

    def __call__(
        self, critic: Callable[[Tensor], Tensor], real: Float[Tensor, "N ..."], fake: Float[Tensor, "N ..."], share: Scores
    ) -> Scores:
        """`share`: uniform draws in [0, 1], one a sample: the point is share x real + (1 - share) x fake."""
        share = share.reshape(-1, *(1,) * (real.ndim - 1))
        slope = slopes(critic, (share * real + (1 - share) * fake).detach())
        # The root's slope at 0 is infinite, so a critic that is flat there would spoil every weight.
        return self.strength * (slope.square().sum(dim=1).clamp(min=1e-24).sqrt() - 1).square()


@dataclass(frozen=True, kw_only=True, slots=True)
class R1:
    """strength / 2 x |gradient of the critic at a real sample|^2."""

    neutral: ClassVar["R1"]

    strength: float = 10.0
    """The paper's gamma; 0 is no penalty."""

    def __post_init__(self) -> None:
        _check_strength(self)

    def __call__(self, critic: Callable[[Tensor], Tensor], real: Float[Tensor, "N ..."]) -> Scores:
        return self.strength / 2 * slopes(critic, real.detach()).square().sum(dim=1)


def slopes(critic: Callable[[Tensor], Tensor], points: Float[Tensor, "N ..."]) -> Float[Tensor, "N D"]:
    """The gradient of the critic's output at each point, flat, itself differentiable with respect to the critic's weights."""
    points = points.requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    return gradient.flatten(1)


def _logistic(real: Scores, fake: Scores, smoothing: float) -> Scores:
    return F.softplus(-real) + smoothing * real + F.softplus(fake)


def _check_smoothing(loss: Minimax | NonSaturating) -> None:
    if not 0 <= loss.smoothing < 1:
        raise ValueError(f"{type(loss).__name__}.smoothing must be >= 0 and < 1, got {loss.smoothing}")


def _check_strength(penalty: GradientPenalty | R1) -> None:
    if not (isfinite(penalty.strength) and penalty.strength >= 0):
        raise ValueError(f"{type(penalty).__name__}.strength must be finite and >= 0, got {penalty.strength}")


GradientPenalty.neutral = GradientPenalty(strength=0.0)
R1.neutral = R1(strength=0.0)
