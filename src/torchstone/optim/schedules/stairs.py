"""Schedules that fall in steps: at even distances, or at milestones."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torchstone.core.protocols import History
from torchstone.optim.schedules.warmup import ROUNDING, WarmedUp, updates_of, whole_periods


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(WarmedUp):
    """Multiplied by `factor` every so often: factor^floor(s / every), s counted from the end of the warm-up.

    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012, section 5; torch's StepLR. By default
    every third of the run a tenth, as networks on ImageNet are trained for 90 epochs with a step every 30.
    """

    every: float = 1 / 3
    """Between two steps: a share of what follows the warm-up if below 1, whole updates from 1 on."""
    factor: float = 0.1
    """What each step multiplies by."""

    neutral: ClassVar["Step"]

    def check(self) -> None:
        self._duration("every", self.every)
        self._factor("factor", self.factor)

    def curve(self, step: int, length: int, start: int, history: History) -> float:
        return self.factor ** whole_periods(step, updates_of(self.every, length))


Step.neutral = Step(factor=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiStep(WarmedUp):
    """Multiplied by `factor` at each milestone.

    He et al., "Deep Residual Learning", 2016, https://arxiv.org/abs/1512.03385, section 4.2: a tenth at half and at three quarters of the
    run; torch's MultiStepLR. Milestones count from the first update of the run, the warm-up included.
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    """When, rising: shares of the run if below 1, whole updates from 1 on."""
    factor: float = 0.1
    """What each milestone multiplies by."""

    neutral: ClassVar["MultiStep"]

    def check(self) -> None:
        for milestone in self.milestones:
            self._duration("milestones", milestone)
        if any(b <= a for a, b in pairwise(self.milestones)) or len({m < 1 for m in self.milestones}) > 1:
            raise ValueError(f"MultiStep.milestones must rise, all shares or all updates, got {list(self.milestones)}")
        self._factor("factor", self.factor)

    def fits(self, total: int) -> None:
        WarmedUp.fits(self, total)
        if self.milestones and self.milestones[-1] >= max(total, 1):
            raise ValueError(f"the milestone {self.milestones[-1]:.0f} is never met, the run has {total} updates")

    def curve(self, step: int, length: int, start: int, history: History) -> float:
        passed = sum((step + start) * (1 + ROUNDING) >= updates_of(m, start + length) for m in self.milestones)
        return self.factor**passed


MultiStep.neutral = MultiStep(factor=1.0)
