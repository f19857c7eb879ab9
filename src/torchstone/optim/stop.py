"""When to stop before the budget is spent: pure functions of the history, which say why. A NaN is neither progress nor a reason."""

from dataclasses import dataclass
from math import inf, isnan
from typing import ClassVar, Literal

from torchstone.core.errors import UserError
from torchstone.core.protocols import History


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """Stops after `patience` evaluations in a row without a new best.

    Prechelt, "Early Stopping - But When?", 1998, criterion UP in its usual form. An evaluation whose metric is NaN does not count.
    """

    metric: str = "accuracy"
    """A metric of the validation split."""
    patience: int = 5
    """Evaluations without progress that are borne."""
    min_delta: float = 0.0
    """A new best must be better by more than this."""
    mode: Literal["max", "min"] = "max"
    """Which direction is better."""

    neutral: ClassVar["Patience"]

    def __post_init__(self) -> None:
        if not self.metric:
            raise ValueError("Patience.metric must be a metric's name, got ''")
        if self.patience < 1:
            raise ValueError(f"Patience.patience must be >= 1, got {self.patience}")
        if not 0 <= self.min_delta < inf:
            raise ValueError(f"Patience.min_delta must be finite and >= 0, got {self.min_delta}")
        if self.mode not in ("max", "min"):
            raise ValueError(f"Patience.mode must be max or min, got {self.mode!r}")

    def __call__(self, history: History) -> str | None:
        best, best_step, waited = None, 0, 0
        for evaluation in history.evaluations:
            if self.metric not in evaluation.metrics:
                known = ", ".join(sorted(evaluation.metrics)) or "no metric"
                raise UserError(f"stop.metric: found {self.metric!r}, the evaluation has {known}")
            value = evaluation.metrics[self.metric]
            if isnan(value):
                continue
            gain = inf if best is None else (value - best if self.mode == "max" else best - value)
            if gain > self.min_delta:
                best, best_step, waited = value, evaluation.step, 0
            else:
                waited += 1
        if waited < self.patience:
            return None
        return f"{self.metric} has not improved on {best:.6g} (step {best_step}) for {waited} evaluations"


Patience.neutral = Patience(patience=2**31 - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossThreshold:
    """Stops when the training loss of a step is at or below `threshold`: good enough."""

    threshold: float = 0.0
    """The loss that is good enough; -inf never stops."""

    neutral: ClassVar["LossThreshold"]

    def __post_init__(self) -> None:
        if isnan(self.threshold):
            raise ValueError("LossThreshold.threshold must be a number, got nan")

    def __call__(self, history: History) -> str | None:
        if history.loss <= self.threshold:
            return f"training loss {history.loss:.6g} reached {self.threshold:.6g}"
        return None


LossThreshold.neutral = LossThreshold(threshold=-inf)
