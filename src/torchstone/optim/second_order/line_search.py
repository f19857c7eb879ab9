"""How far to go along a direction: backtracking, the strong Wolfe conditions, or a fixed step.

Nocedal and Wright, "Numerical Optimization", 2nd edition, 2006: algorithm 3.1 (backtracking until Armijo's condition holds, 1966),
algorithms 3.5 and 3.6 (strong Wolfe), equation 3.59 (cubic interpolation). Close to a minimum the values are equal to the last digit
while the gradients still tell; there a rise within rounding passes for a fall, as in Hager and Zhang, "A New Conjugate Gradient Method
with Guaranteed Descent", 2005, section 4. With phi(t) = f(x + t d), s = phi'(0) < 0:

    Armijo: phi(t) <= phi(0) + c1 t s            strong Wolfe: that, and |phi'(t)| <= c2 |s|

Shapes: P unknowns.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from torchstone.optim.second_order.problem import Point, Problem


@runtime_checkable
class Search(Protocol):
    def __call__(self, problem: Problem, start: Point, direction: Tensor, first: float) -> tuple[float, Point] | None:
        """(step, where it leads) from `start` along a direction of descent, trying the step `first` first; None: nothing lower."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedStep:
    """The same step every time, whatever it does to the value: the classic gradient descent."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a direction without a length is no step"

    size: float = 0.1
    """What the direction is multiplied by; below 2 / (largest curvature) gradient descent converges."""

    def __post_init__(self) -> None:
        if not 0 < self.size < float("inf"):
            raise ValueError(f"FixedStep.size must be finite and > 0, got {self.size}")

    def __call__(self, problem: Problem, start: Point, direction: Float[Tensor, " P"], first: float) -> tuple[float, Point] | None:
        return self.size, problem.at(start.x + self.size * direction)


@dataclass(frozen=True, kw_only=True, slots=True)
class Backtracking:
    """The first of ever shorter steps that lowers the value enough (Armijo's condition)."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a direction without a length is no step"

    c1: float = 1e-4
    """Share of the fall that the slope promises which must come true."""
    most: int = 40
    """Steps tried at most."""

    def __post_init__(self) -> None:
        if not 0 < self.c1 < 0.5:
            raise ValueError(f"Backtracking.c1 must be in (0, 0.5), got {self.c1}")
        if self.most < 1:
            raise ValueError(f"Backtracking.most must be >= 1, got {self.most}")

    def __call__(self, problem: Problem, start: Point, direction: Float[Tensor, " P"], first: float) -> tuple[float, Point] | None:
        slope, step = float(start.gradient @ direction), first
        for _ in range(self.most):
            point = problem.at(start.x + step * direction)
            if point.finite and point.value <= start.value + self.c1 * step * slope + problem.rounding * abs(start.value):
                return step, point
            # The minimum of the parabola through value and slope at 0 and the value here, kept between a tenth and a half.
            rise = point.value - start.value - step * slope
            best = -slope * step**2 / (2 * rise) if point.finite and rise > 0 else 0.0
            step = min(max(best, 0.1 * step), 0.5 * step)
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class StrongWolfe:
    """A step that lowers the value enough and ends where the slope along the direction is nearly flat."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a direction without a length is no step"

    c1: float = 1e-4
    """Share of the fall that the slope promises which must come true."""
    c2: float = 0.9
    """Share of the slope that may be left: 0.9 for Newton-like directions, 0.1 for conjugate gradients."""
    most: int = 40
    """Evaluations at most."""

    def __post_init__(self) -> None:
        if not 0 < self.c1 < self.c2 < 1:
            raise ValueError(f"StrongWolfe.c1 and c2 must be 0 < c1 < c2 < 1, got {self.c1} and {self.c2}")
        if self.most < 2:
            raise ValueError(f"StrongWolfe.most must be >= 2, got {self.most}")

    def __call__(self, problem: Problem, start: Point, direction: Float[Tensor, " P"], first: float) -> tuple[float, Point] | None:
        return _Wolfe(self, problem, start, direction).search(first)


@dataclass(frozen=True, slots=True)
class _Trial:
    step: float
    point: Point
    slope: float

    @property
    def value(self) -> float:
        return self.point.value


class _Wolfe:
    """One search: first outwards until a bracket holds a good step, then inwards."""

    def __init__(self, rule: StrongWolfe, problem: Problem, start: Point, direction: Tensor) -> None:
        self.rule, self.problem, self.direction = rule, problem, direction
        self.start = _Trial(0.0, start, float(start.gradient @ direction))
        self.noise = problem.rounding * abs(start.value)
        self.left = rule.most

    def search(self, first: float) -> tuple[float, Point] | None:
        last, step = self.start, first
        while self.left:
            trial = self.at(step)
            if self.too_high(trial) or (last.step > 0 and trial.value > last.value + self.noise):
                return self.zoom(last, trial)
            if self.flat(trial):
                return trial.step, trial.point
            if trial.slope >= 0:
                return self.zoom(trial, last)
            outwards = _cubic_minimum(last, trial)
            last, step = trial, min(max(outwards, 2 * step), 10 * step)
        return (last.step, last.point) if last.step > 0 else None

    def zoom(self, low: _Trial, high: _Trial) -> tuple[float, Point] | None:
        """`low` falls enough and its slope points towards `high`."""
        while self.left and abs(high.step - low.step) > 1e-14 * max(low.step, high.step):
            a, b = sorted((low.step, high.step))
            guess = _cubic_minimum(low, high)
            trial = self.at(min(max(guess, a + 0.1 * (b - a)), b - 0.1 * (b - a)))
            if self.too_high(trial) or trial.value > low.value + self.noise:
                high = trial
                continue
            if self.flat(trial):
                return trial.step, trial.point
            if trial.slope * (high.step - low.step) >= 0:
                high = low
            low = trial
        return (low.step, low.point) if low.step > 0 else None

    def at(self, step: float) -> _Trial:
        self.left -= 1
        point = self.problem.at(self.start.point.x + step * self.direction)
        return _Trial(step, point, float(point.gradient @ self.direction))

    def too_high(self, trial: _Trial) -> bool:
        limit = self.start.value + self.rule.c1 * trial.step * self.start.slope + self.noise
        return not trial.point.finite or trial.value > limit

    def flat(self, trial: _Trial) -> bool:
        return abs(trial.slope) <= self.rule.c2 * abs(self.start.slope)


def _cubic_minimum(a: _Trial, b: _Trial) -> float:
    """Where the cubic through both values and slopes is lowest; the middle where there is none."""
    middle = (a.step + b.step) / 2
    if not (a.point.finite and b.point.finite):
        return middle
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step)
    inside = d1**2 - a.slope * b.slope
    if not inside >= 0:
        return middle
    d2 = math.copysign(math.sqrt(inside), b.step - a.step)
    below = b.slope - a.slope + 2 * d2
    return middle if below == 0 else b.step - (b.step - a.step) * (b.slope + d2 - d1) / below
