"""How well the probabilities rank the terms: the areas under the ROC and the precision-recall curve, and the curves themselves.

One class against the rest (Provost and Domingos, "Well-Trained PETs", 2000: the mean weighted by class; Fawcett 2006, section 9).
With two classes there is one curve: the second class is the positive one. These need every score of the split, so their state is the
rows themselves, laid end to end (`rows`), and exact for any cut. Shapes: `...` the terms, M of them in all, C classes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from torchstone.core.protocols import Facts
from torchstone.metrics.averages import REASON, Average, mean_over
from torchstone.metrics.counts import Target, class_of
from torchstone.ops.curves import average_precision, drawn, found, roc_auc

ROWS = ("outputs", "target")
LEFT_OUT = -1
"""The target of a term that does not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RocAuc:
    """`roc_auc`: the chance that a term of the class is given a higher probability of it than one of another class, ties counting half.

    Undefined for a class that no term or every term has; NaN if no class is left. `weighted_roc_auc`, `micro_roc_auc` of other averages.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = REASON
    rows: ClassVar[tuple[str, ...]] = ROWS

    average: Average = "macro"
    """macro: each class counts the same; weighted: as often as it occurs; micro: every (term, class) pair in one ranking."""

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        return scored_rows(outputs, target, weight)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return {_named("roc_auc", self.average): averaged(roc_auc, sums, self.average)}


@dataclass(frozen=True, kw_only=True, slots=True)
class AveragePrecision:
    """`average_precision`: the mean precision at the ranks of the terms of the class; the area under the precision-recall curve.

    Undefined for a class that no term has. `weighted_average_precision`, `micro_average_precision` of other averages.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = REASON
    rows: ClassVar[tuple[str, ...]] = ROWS

    average: Average = "macro"
    """macro: each class counts the same; weighted: as often as it occurs; micro: every (term, class) pair in one ranking."""

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        return scored_rows(outputs, target, weight)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return {_named("average_precision", self.average): averaged(average_precision, sums, self.average)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """`curves`: of each class its terms, both areas, and the curves' points: threshold, false_positive_rate, recall, precision.

    With two classes the second alone. A class without terms has no recall (NaN), one without others no false positive rate.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = REASON
    rows: ClassVar[tuple[str, ...]] = ROWS

    points: int = 200
    """Points of a curve at most; the areas are of all."""
    classes: tuple[str, ...] = ()
    """Names of the classes, one an output; empty: their numbers."""

    def __post_init__(self) -> None:
        if self.points < 2:
            raise ValueError(f"Curves.points must be >= 2, got {self.points}")

    def resolve(self, facts: Facts) -> "Curves":
        return self if self.classes else replace(self, classes=facts.classes)

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        return scored_rows(outputs, target, weight)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, list[dict[str, Any]]]:
        probabilities, target = counted_rows(sums)
        return {"curves": [self._curve(*each) for each in one_against_rest(probabilities, target)]}

    def _curve(self, label: int, scores: np.ndarray, positive: np.ndarray) -> dict[str, Any]:
        points: dict[str, Any] = {}
        if not np.isnan(scores).any():
            points = drawn(found(scores, positive), self.points)
        return {
            "class": self.classes[label] if self.classes else str(label),
            "count": int(positive.sum()),
            "roc_auc": roc_auc(scores, positive),
            "average_precision": average_precision(scores, positive),
            **points,
        }


def scored_rows(outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."]) -> dict[str, Tensor]:
    """One row a term: its outputs as they are, and its class, LEFT_OUT where it does not count (so no device waits to select)."""
    rows = outputs.float() if outputs.dtype.itemsize < 4 else outputs
    return {
        "outputs": rows.reshape(-1, rows.shape[-1]),
        "target": torch.where(weight > 0, class_of(target), LEFT_OUT).flatten(),
    }


def counted_rows(sums: Mapping[str, Tensor]) -> tuple[Float64[np.ndarray, "M C"], np.ndarray]:
    """(probabilities, class) of the terms that count."""
    kept = sums["target"] != LEFT_OUT
    return sums["outputs"][kept].double().softmax(dim=-1).cpu().numpy(), sums["target"][kept].cpu().numpy()


def one_against_rest(
    probabilities: Float64[np.ndarray, "M C"], target: np.ndarray
) -> Iterator[tuple[int, Float64[np.ndarray, " M"], Bool[np.ndarray, " M"]]]:
    """(class, its scores, whether each term has it); of two classes the second alone."""
    classes = probabilities.shape[1]
    for label in (1,) if classes == 2 else range(classes):
        yield label, np.ascontiguousarray(probabilities[:, label]), target == label


def averaged(area: Callable[[np.ndarray, np.ndarray], float], sums: Mapping[str, Tensor], average: Average) -> float:
    """The area of each class against the rest as one number."""
    probabilities, target = counted_rows(sums)
    each = list(one_against_rest(probabilities, target))
    if average == "micro":
        return area(np.concatenate([scores for _, scores, _ in each]), np.concatenate([positive for *_, positive in each]))
    values = np.array([area(scores, positive) for _, scores, positive in each])
    return mean_over(values, np.array([positive.sum() for *_, positive in each]), average)


def _named(area: str, average: Average) -> str:
    return area if average == "macro" else f"{average}_{area}"
