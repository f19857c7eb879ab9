"""Where to cut a probability to say yes: rules that choose the threshold on a split that was not trained on.

Youden, "Index for rating diagnostic tests", Cancer 3, 1950; Lipton et al., "Thresholding Classifiers to Maximize F1 Score", 2014,
https://arxiv.org/abs/1402.1892. A threshold is a score that occurs: what scores at least it is called positive. Shapes: M terms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from torchstone.metrics.averages import REASON
from torchstone.metrics.counts import Target, class_of
from torchstone.ops.curves import Found, found


@dataclass(frozen=True, kw_only=True, slots=True)
class FScore:
    """The threshold of the largest F-beta; of equal ones the highest threshold."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "it chooses a threshold; the class of the largest output has none"

    beta: float = 1.0
    """How many times as much recall counts as precision."""

    def __post_init__(self) -> None:
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"FScore.beta must be > 0 and finite, got {self.beta}")

    def best(self, curve: Found) -> int:
        """Its place among the thresholds."""
        square, called = self.beta**2, curve.true_positive + curve.false_positive
        return int(((1 + square) * curve.true_positive / (called + square * curve.positives)).argmax())


@dataclass(frozen=True, kw_only=True, slots=True)
class Youden:
    """The threshold of the largest recall + specificity - 1, the height of the ROC curve over chance; of equal ones the highest."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "it chooses a threshold; the class of the largest output has none"

    def best(self, curve: Found) -> int:
        """Its place among the thresholds."""
        # In integers, or the rounding of two rates would break ties.
        return int((curve.true_positive * curve.negatives - curve.false_positive * curve.positives).argmax())


@dataclass(frozen=True, kw_only=True, slots=True)
class AtPrecision:
    """The threshold of the largest recall at which the precision is still at least this; of equal recalls that of more precision.

    Where no threshold is so precise, the most precise one (of equal ones the one of more recall).
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "it chooses a threshold; the class of the largest output has none"

    precision: float = 0.9
    """What share of what is called positive must be so."""

    def __post_init__(self) -> None:
        if not 0 < self.precision <= 1:
            raise ValueError(f"AtPrecision.precision must be in (0, 1], got {self.precision}")

    def best(self, curve: Found) -> int:
        """Its place among the thresholds."""
        precision, recall = curve.precision, curve.true_positive
        enough = precision >= self.precision
        if not enough.any():
            enough = precision == precision.max()
        most = np.flatnonzero(enough & (recall == recall[enough].max()))
        return int(most[0])


ThresholdRule = FScore | Youden | AtPrecision


def choose(rule: ThresholdRule, scores: Float[np.ndarray, " M"], positive: Bool[np.ndarray, " M"]) -> float | None:
    """The threshold by the rule; None where there is nothing to choose by: no positives, no negatives or a NaN among the scores."""
    if not positive.any() or positive.all() or np.isnan(scores).any():
        return None
    curve = found(scores, positive)
    return float(curve.threshold[rule.best(curve)])


@dataclass(frozen=True, kw_only=True, slots=True)
class AtThreshold:
    """`threshold_precision`, `_recall`, `_specificity`, `_f1`, `_accuracy` of saying the second of two classes from a probability on.

    Undefined (NaN) as ever: precision where it is never said, recall where it never is.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = REASON

    threshold: float = 0.5
    """The second class is said where its probability is at least this."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"AtThreshold.threshold must be in [0, 1], got {self.threshold}")

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        counted, truth = weight > 0, class_of(target) == 1
        said = outputs.double().softmax(dim=-1)[..., 1] >= self.threshold
        return {
            "true_positive": (counted & truth & said).sum(),
            "false_positive": (counted & ~truth & said).sum(),
            "false_negative": (counted & truth & ~said).sum(),
            "true_negative": (counted & ~truth & ~said).sum(),
        }

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        tp, fp, fn, tn = (int(sums[name]) for name in ("true_positive", "false_positive", "false_negative", "true_negative"))
        return {
            "threshold_precision": _share(tp, tp + fp),
            "threshold_recall": _share(tp, tp + fn),
            "threshold_specificity": _share(tn, tn + fp),
            "threshold_f1": _share(2 * tp, 2 * tp + fn + fp) if tp + fn else float("nan"),
            "threshold_accuracy": _share(tp + tn, tp + fp + fn + tn),
        }


def _share(part: int, of: int) -> float:
    return part / of if of else float("nan")
