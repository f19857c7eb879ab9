"""Schedules that are constant or fall smoothly. Below, x = s / T: updates since the warm-up, over all updates after it."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Literal

from torchstone.core.protocols import History
from torchstone.optim.schedules.warmup import WarmedUp, half_cosine, updates_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant(WarmedUp):
    """The same factor at every update after the warm-up: with 1, a warm-up alone.

    Goyal et al., "Accurate, Large Minibatch SGD", 2017, https://arxiv.org/abs/1706.02677, section 2.2; torch's ConstantLR, without its end.
    """

    factor: float = 1.0
    """The factor."""

    neutral: ClassVar["Constant"]

    def check(self) -> None:
        self._factor("factor", self.factor)

    def curve(self, step: int, length: int, start: int, history: History) -> float:
        return self.factor


Constant.neutral = Constant()


@dataclass(frozen=True, kw_only=True, slots=True)
class Exponential(WarmedUp):
    """The same ratio every update: final^x, which is torch's ExponentialLR of gamma = final^(1 / T).

    Bottou, "Stochastic Gradient Descent Tricks", 2012, discusses it against 1 / t.
    """

    final: float = 0.01
    """Factor at the end; above 0."""

    neutral: ClassVar["Exponential"]

    def check(self) -> None:
        if not 0 < self.final < float("inf"):
            raise ValueError(f"Exponential.final must be finite and > 0, got {self.final}")

    def curve(self, step: int, length: int, start: int, history: History) -> float:
        return self.final ** (step / length)


Exponential.neutral = Exponential(final=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Polynomial(WarmedUp):
    """final + (1 - final) (1 - x)^power: a straight line at power 1.

    Chen et al., "DeepLab", 2017, https://arxiv.org/abs/1606.00915, section 4.1.1 ("poly", power 0.9); torch's PolynomialLR.
    """

    power: float = 0.9
    """1 is a straight line; above 1 it falls steeply at first."""
    final: float = 0.0
    """Factor at the end."""

    neutral: ClassVar["Polynomial"]

    def check(self) -> None:
        if not 0 < self.power < float("inf"):
            raise ValueError(f"Polynomial.power must be finite and > 0, got {self.power}")
        self._factor("final", self.final)

    def curve(self, step: int, length: int, start: int, history: History) -> float:
        return self.final + (1 - self.final) * (1 - step / length) ** self.power


Polynomial.neutral = Polynomial(final=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cosine(WarmedUp):
    """Half a cosine: final + (1 - final) (1 + cos(pi x)) / 2.

    Loshchilov and Hutter, "SGDR", 2017, https://arxiv.org/abs/1608.03983, eq. 5, without restarts; torch's CosineAnnealingLR. The last
    update of the run is one notch above `final`: at rate 0 it would teach nothing.
    """

    final: float = 0.0
    """Factor at the end."""

    neutral: ClassVar["Cosine"]

    def check(self) -> None:
        self._factor("final", self.final)

    def curve(self, step: int, length: int, start: int, history: History) -> float:
        return half_cosine(1.0, self.final, step / length)


Cosine.neutral = Cosine(final=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class InverseSqrt(WarmedUp):
    """Falls as one over the square root of the update, after a warm-up of W: sqrt(W / (s + 1)), s counted from the run's first update.

    Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762, eq. 3 ("Noam"), whose
    dim^-1/2 min(n^-1/2, n W^-3/2) is this times the highest rate 1 / sqrt(dim W). Without a warm-up W = 1.
    """

    warmup: float = 0.04
    """How long the factor rises: a share of the run if below 1, whole updates from 1 on (the paper's 4000 of 100,000)."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "it falls from its first update on; nothing in it is a strength"

    def __call__(self, step: int, total: int, history: History) -> float:
        step, start = min(step, total), self.warmup_updates(total)
        return self.rise((step + 1) / start) if step < start else sqrt(max(start, 1) / (step + 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class WSD(WarmedUp):
    """Warm-up, stable, decay (trapezoid): 1 until the last part of the run, where the factor falls to `final`.

    Hu et al., "MiniCPM", 2024, https://arxiv.org/abs/2404.06395, section 4; one_minus_sqrt over 20 percent: Haegele et al., "Scaling
    Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024, https://arxiv.org/abs/2405.18392. With y the share of the
    decay that is over: 1 - y (linear), (1 + cos(pi y)) / 2, 1 - sqrt(y), all scaled to end at `final`; final^y (exponential).
    A run can be made longer without a new one: its weights before the decay depend on no end.
    """

    warmup: float = 0.05
    """How long the factor rises: a share of the run if below 1, whole updates from 1 on."""
    decay: float = 0.2
    """How long it falls at the end: a share of the run if below 1, whole updates from 1 on."""
    final: float = 0.0
    """Factor at the end."""
    shape: Literal["linear", "cosine", "one_minus_sqrt", "exponential"] = "one_minus_sqrt"
    """How it falls; exponential needs a `final` above 0."""

    neutral: ClassVar["WSD"]

    def check(self) -> None:
        self._duration("decay", self.decay)
        self._factor("final", self.final)
        self._word("shape", self.shape, ("linear", "cosine", "one_minus_sqrt", "exponential"))
        if self.shape == "exponential" and self.final == 0:
            raise ValueError("WSD.final must be above 0 for an exponential decay, such as 0.01, got 0.0")
        if self.warmup < 1 and self.decay < 1 and self.warmup + self.decay > 1:
            raise ValueError(f"WSD.decay must leave room for the warm-up of {self.warmup}, got {self.decay}")

    def fits(self, total: int) -> None:
        if updates_of(self.warmup, total) + updates_of(self.decay, total) > total * (1 + 1e-9):
            raise ValueError(
                f"warmup {self.warmup:g} and decay {self.decay:g} are longer than the run of {total} updates; shares below 1 fit"
            )

    def curve(self, step: int, length: int, start: int, history: History) -> float:
        falling = min(updates_of(self.decay, start + length), length)
        share = max(0.0, 1 - (length - step) / falling)
        if self.shape == "exponential":
            return self.final**share
        if self.shape == "cosine":
            return half_cosine(1.0, self.final, share)
        return self.final + (1 - self.final) * (1 - (sqrt(share) if self.shape == "one_minus_sqrt" else share))


WSD.neutral = WSD(warmup=0.0, final=1.0)
