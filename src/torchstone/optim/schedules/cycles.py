"""Schedules that come back: warm restarts, triangles, and the one cycle over a whole run."""

from dataclasses import dataclass
from math import floor, inf, log
from typing import ClassVar, Literal

from torchstone.core.protocols import History
from torchstone.optim.schedules.warmup import ROUNDING, WarmedUp, half_cosine, updates_of, whole_periods


@dataclass(frozen=True, kw_only=True, slots=True)
class CosineRestarts(WarmedUp):
    """Half a cosine from 1 to `final`, again and again, each `growth` times as long as the one before.

    Loshchilov and Hutter, "SGDR", 2017, https://arxiv.org/abs/1608.03983, eq. 5; torch's CosineAnnealingWarmRestarts. The defaults make
    three falls that end with the run: 1/7, 2/7 and 4/7 of it. The weights before each restart make a snapshot ensemble.
    """

    first: float = 1 / 7
    """The first fall: a share of what follows the warm-up if below 1, whole updates from 1 on."""
    growth: float = 2.0
    """How much longer each fall is than the one before."""
    final: float = 0.0
    """Factor at the end of each fall."""

    neutral: ClassVar["CosineRestarts"]

    def check(self) -> None:
        self._duration("first", self.first)
        self._factor("final", self.final)
        if not 1 <= self.growth < inf:
            raise ValueError(f"CosineRestarts.growth must be finite and >= 1, got {self.growth}")

    def curve(self, step: int, length: int, start: int, history: History) -> float:
        first, growth = updates_of(self.first, length), self.growth
        if growth == 1:
            begun, period = whole_periods(step, first) * first, first
        else:
            falls = floor(log(1 + step / first * (growth - 1), growth) + ROUNDING)
            begun, period = first * (growth**falls - 1) / (growth - 1), first * growth**falls
        return half_cosine(1.0, self.final, max(0.0, step - begun) / period)


CosineRestarts.neutral = CosineRestarts(final=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cyclic(WarmedUp):
    """Straight up and down between `lowest` and 1: lowest + (1 - lowest) z g, z the triangle from 0 to 1 and back.

    Smith, "Cyclical Learning Rates", 2017, https://arxiv.org/abs/1506.01186, section 3.2; torch's CyclicLR as a factor on the highest rate.
    g is 1 (triangular), 1 / 2^(cycle - 1) (triangular2) or gamma^s (exp_range). The paper's highest rate is three to four times the
    lowest, and half a cycle two to ten epochs. A second one on `optimizer.momentum` with lowest > 1 cycles the other way.
    """

    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    """Whether the peaks stay, halve every cycle, or shrink by gamma every update."""
    lowest: float = 0.25
    """Factor between the peaks."""
    up: float = 0.125
    """The way up: a share of what follows the warm-up if below 1, whole updates from 1 on."""
    down: float | None = None
    """The way down, counted the same; none: as long as the way up."""
    gamma: float = 0.99994
    """Of exp_range, an update."""

    neutral: ClassVar["Cyclic"]

    def check(self) -> None:
        self._word("mode", self.mode, ("triangular", "triangular2", "exp_range"))
        self._factor("lowest", self.lowest)
        self._duration("up", self.up)
        if self.down is not None:
            self._duration("down", self.down)
        if not 0 < self.gamma <= 1:
            raise ValueError(f"Cyclic.gamma must be in (0, 1], got {self.gamma}")

    def curve(self, step: int, length: int, start: int, history: History) -> float:
        up = updates_of(self.up, length)
        period = up + (up if self.down is None else updates_of(self.down, length))
        cycle = whole_periods(step, period)
        inside = max(0.0, step - cycle * period)
        share = inside / up if inside <= up else (period - inside) / (period - up)
        scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": self.gamma**step}[self.mode]
        return self.lowest + (1 - self.lowest) * max(0.0, share) * scale


Cyclic.neutral = Cyclic(lowest=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class OneCycle(WarmedUp):
    """Up to the highest rate in the first part of the run, and down to almost nothing: the warm-up is the way up.

    Smith and Topin, "Super-Convergence", 2018, https://arxiv.org/abs/1708.07120; values as torch.optim.lr_scheduler.OneCycleLR, as a factor
    on the highest rate. The first update has `warmup_start`, the peak lies at update warmup * total - 1, rounded by neither, and the last
    update, total - 1, has `final`, as have all after it. With `three_phases` (the paper's, torch's three_phase) the way down mirrors the
    way up to `warmup_start`, and the rest of the run falls to `final`. The momentum, which torch's class cycles too, stays: a second
    one_cycle with path optimizer.momentum and warmup_start = final = 1.1 or so cycles it the other way.
    """

    warmup: float = 0.3
    """How long it goes up: a share of the run if below 1, whole updates from 1 on."""
    warmup_start: float = 1 / 25
    """Factor at the first update."""
    warmup_shape: Literal["linear", "exponential", "cosine"] = "cosine"
    """How it goes up."""
    final: float = 4e-6
    """Factor at the last update; the default is torch's 1e-4 of the start."""
    shape: Literal["linear", "cosine"] = "cosine"
    """How it goes down."""
    three_phases: bool = False
    """Down as it went up, then down to `final`."""

    neutral: ClassVar["OneCycle"]

    def check(self) -> None:
        self._factor("final", self.final)
        self._word("shape", self.shape, ("linear", "cosine"))
        if self.three_phases and 0.5 < self.warmup < 1:
            raise ValueError(f"OneCycle.warmup must be at most 0.5 with three phases, got {self.warmup}")

    def __call__(self, step: int, total: int, history: History) -> float:
        step, last = min(step, total - 1), total - 1
        peak = (self.warmup * total if self.warmup < 1 else min(self.warmup, last)) - 1
        turn = min(2 * peak, last)
        if step < peak:
            return self.rise(step / peak)
        if not self.three_phases:
            return self._fall(1.0, self.final, (step - peak) / (last - peak))
        if step < turn:
            return self._fall(1.0, self.warmup_start, (step - peak) / (turn - peak))
        return self._fall(self.warmup_start, self.final, (step - turn) / (last - turn) if last > turn else 1.0)

    def _fall(self, start: float, end: float, share: float) -> float:
        return half_cosine(start, end, share) if self.shape == "cosine" else end + (start - end) * (1 - share)


OneCycle.neutral = OneCycle(warmup_start=1.0, final=1.0)
