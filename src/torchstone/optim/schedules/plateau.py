"""The schedule that looks: falls when the validation metric has stopped getting better."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isnan
from typing import ClassVar, Literal

from torchstone.core.errors import UserError
from torchstone.core.protocols import History
from torchstone.optim.schedules.warmup import WarmedUp


@dataclass(frozen=True, kw_only=True, slots=True)
class Plateau(WarmedUp):
    """Multiplied by `factor` after more than `patience` evaluations in a row without a new best; torch's ReduceLROnPlateau.

    Bengio, "Practical Recommendations for Gradient-Based Training of Deep Architectures", 2012, https://arxiv.org/abs/1206.5533, section
    3.1.1, and He et al., 2016, https://arxiv.org/abs/1512.03385, section 3.4 ("divided by 10 when the error plateaus"). A pure function of
    all evaluations so far, so a resumed run goes on where it was. An evaluation whose metric is NaN does not count.
    """

    metric: str = "loss"
    """A metric of the validation split."""
    mode: Literal["min", "max"] = "min"
    """Which direction is better."""
    factor: float = 0.1
    """What each fall multiplies by."""
    patience: int = 10
    """Evaluations without progress that are borne."""
    threshold: float = 1e-4
    """Progress is more than this: relative to the best, or absolute."""
    threshold_mode: Literal["relative", "absolute"] = "relative"
    """How the threshold counts."""
    cooldown: int = 0
    """Evaluations after a fall that do not count."""
    lowest: float = 0.0
    """The factor never falls below."""

    neutral: ClassVar["Plateau"]

    def check(self) -> None:
        if not self.metric:
            raise ValueError("Plateau.metric must be a metric's name, got ''")
        self._word("mode", self.mode, ("min", "max"))
        self._word("threshold_mode", self.threshold_mode, ("relative", "absolute"))
        for name in ("factor", "lowest"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Plateau.{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("patience", "cooldown"):
            if getattr(self, name) < 0:
                raise ValueError(f"Plateau.{name} must be >= 0, got {getattr(self, name)}")
        self._factor("threshold", self.threshold)

    def curve(self, step: int, length: int, start: int, history: History) -> float:
        return _reached(self, tuple(self._value(evaluation.metrics) for evaluation in history.evaluations))

    def _value(self, metrics: Mapping[str, float]) -> float:
        if self.metric not in metrics:
            known = ", ".join(sorted(metrics)) or "no metric"
            raise UserError(f"schedules.plateau.metric: found {self.metric!r}, the evaluation has {known}")
        return metrics[self.metric]

    def better(self, value: float, best: float) -> bool:
        """Whether `value` is progress."""
        if best in (inf, -inf):
            return True
        sign = 1 if self.mode == "max" else -1
        return sign * value > sign * best + self.threshold * (best if self.threshold_mode == "relative" else 1.0)


@lru_cache(maxsize=16)
def _reached(part: Plateau, values: tuple[float, ...]) -> float:
    """The factor after these evaluations."""
    best = inf if part.mode == "min" else -inf
    factor, bad, cooling = 1.0, 0, 0
    for value in values:
        if isnan(value):
            continue
        if part.better(value, best):
            best, bad = value, 0
        else:
            bad += 1
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        if bad > part.patience:
            factor, cooling, bad = max(factor * part.factor, part.lowest), part.cooldown, 0
    return factor


Plateau.neutral = Plateau(factor=1.0)
