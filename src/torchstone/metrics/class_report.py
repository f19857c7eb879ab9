"""How well each class is found, and the averages in which every class counts the same.

van Rijsbergen, "Information Retrieval", 1979, chapter 7 (F, of precision and recall); Brodersen et al., "The Balanced Accuracy
and Its Posterior Distribution", ICPR 2010. Shapes: `...` the terms, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from torchstone.metrics.counts import Target, class_counts

NAN = float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassReport:
    """`per_class`: count, precision, recall and F1 of each class; `balanced_accuracy` and `macro_f1`, the means of recall and F1.

    A class without a term has no recall and no F1 (NaN), one that is never named has no precision. The means are over the
    classes that have terms, those with a positive `count` in `per_class`; F1 = 2 correct / (named + count) is 0 where such a
    class is never named. scikit-learn: `balanced_accuracy_score`, `f1_score(labels=present, average="macro")`.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    classes: tuple[str, ...] = ()
    """Names of the classes, one an output; empty: their numbers."""

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        return class_counts(outputs, target, weight)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, Any]:
        columns = [sums[name].tolist() for name in ("correct", "named", "count")]
        names = self.classes or tuple(str(label) for label in range(len(columns[0])))
        rows = [_row(name, *counts) for name, *counts in zip(names, *columns, strict=True)]
        present = [row for row in rows if row["count"]]
        means = {name: sum(row[column] for row in present) / len(present) if present else NAN for name, column in MEANS.items()}
        return {**means, "per_class": rows}


MEANS = {"balanced_accuracy": "recall", "macro_f1": "f1"}


def _row(name: str, correct: int, named: int, count: int) -> dict[str, Any]:
    return {
        "class": name,
        "count": count,
        "precision": correct / named if named else NAN,
        "recall": correct / count if count else NAN,
        "f1": 2 * correct / (named + count) if count else NAN,
    }
