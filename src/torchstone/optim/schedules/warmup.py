"""What all schedules share: the number they are on, and a warm-up that rises to where the curve begins.

Linear: Goyal et al., "Accurate, Large Minibatch SGD", 2017, https://arxiv.org/abs/1706.02677, section 2.2.
"""

from dataclasses import dataclass
from math import cos, inf, pi
from typing import Literal

from torchstone.core.protocols import History

ROUNDING = 1e-9
"""Relative: a share of the run that should fall on an update may miss it by as much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmedUp:
    """A warm-up, then a curve.

    With W warm-up updates and update s from 0, the factor at s < W is rise((s + 1) / W) times the curve's first value, where rise(x) is
    a + (1 - a) x (linear), a^(1 - x) (exponential) or a + (1 - a) (1 - cos(pi x)) / 2 (cosine) and a is `warmup_start`: a itself would be
    the update before the first. From s = W on the curve runs over the total - W updates that are left.
    """

    path: str = "optimizer.lr"
    """The number of the method that is scheduled; its own value is where the factor is 1."""
    warmup: float = 0.0
    """How long the factor rises: a share of the run if below 1, whole updates from 1 on."""
    warmup_start: float = 0.0
    """Factor that the rise starts from."""
    warmup_shape: Literal["linear", "exponential", "cosine"] = "linear"
    """How it rises; exponential (the same ratio every update) needs a warmup_start above 0."""

    def __post_init__(self) -> None:
        if not self.path or any(not word for word in self.path.split(".")):
            raise ValueError(f"{self._kind}.path must be a path such as optimizer.lr, got {self.path!r}")
        self._duration("warmup", self.warmup, zero=True)
        self._factor("warmup_start", self.warmup_start)
        self._word("warmup_shape", self.warmup_shape, ("linear", "exponential", "cosine"))
        if self.warmup_shape == "exponential" and not self.warmup_start > 0:
            raise ValueError(f"{self._kind}.warmup_start must be above 0 for an exponential warm-up, such as 0.01, got {self.warmup_start}")
        self.check()

    def check(self) -> None:
        """What a schedule demands of its own fields."""

    def fits(self, total: int) -> None:
        """Raises ValueError where the schedule does not fit in a run of `total` updates."""
        if self.warmup >= max(total, 1):
            raise ValueError(f"warmup is {self.warmup:.0f} updates, but the run has {total}; a share below 1 fits any run")

    def curve(self, step: int, length: int, start: int, history: History) -> float:
        """The factor `step` updates after the `start` of the curve, which has `length` updates to go."""
        raise NotImplementedError

    def __call__(self, step: int, total: int, history: History) -> float:
        step, start = min(step, total), self.warmup_updates(total)
        if step < start:
            return self.rise((step + 1) / start) * self.curve(0, total - start, start, history)
        return self.curve(step - start, total - start, start, history)

    def warmup_updates(self, total: int) -> int:
        """W: at least one update is left for the curve."""
        return min(int(updates_of(self.warmup, total)), total - 1)

    def rise(self, share: float) -> float:
        """`warmup_start` at 0, 1 at 1."""
        if self.warmup_shape == "exponential":
            return self.warmup_start ** (1 - share)
        if self.warmup_shape == "cosine":
            return half_cosine(self.warmup_start, 1.0, share)
        return self.warmup_start + (1 - self.warmup_start) * share

    @property
    def _kind(self) -> str:
        return type(self).__name__

    def _duration(self, field: str, amount: float, *, zero: bool = False) -> None:
        if not (0 <= amount < 1 or (1 <= amount < inf and amount == int(amount))) or (amount == 0 and not zero):
            least = "in [0, 1)" if zero else "above 0 and below 1"
            raise ValueError(f"{self._kind}.{field} must be a share {least} or a whole number of updates, got {amount}")

    def _factor(self, field: str, factor: float) -> None:
        if not 0 <= factor < inf:
            raise ValueError(f"{self._kind}.{field} must be finite and >= 0, got {factor}")

    def _word(self, field: str, word: str, known: tuple[str, ...]) -> None:
        if word not in known:
            raise ValueError(f"{self._kind}.{field} must be one of {', '.join(known)}, got {word!r}")


def half_cosine(start: float, end: float, share: float) -> float:
    """`start` at 0, `end` at 1."""
    return end + (start - end) * (1 + cos(pi * share)) / 2


def updates_of(amount: float, total: int) -> float:
    """A duration in updates: a share of `total` if below 1, else itself."""
    return amount * total if amount < 1 else amount


def whole_periods(step: int, length: float) -> int:
    """How many periods of `length` updates are over at `step`."""
    return int(step / length * (1 + ROUNDING))
