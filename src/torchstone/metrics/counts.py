"""What happened to each class: how often it was meant, how often it was named, and how often both.

Three rows of C counts hold all that precision, recall, F, specificity and Matthews' correlation ask of the C x C confusion.
Shapes: `...` the terms (M of them), C classes. A probability target stands for its likeliest class.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, Shaped
from torch import Tensor

Target = Int[Tensor, "..."] | Float[Tensor, "... C"]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The four outcomes of "is it this class?", for each class.

    False names what the answer was, not what the truth is: a false negative was answered no and is truly yes, a miss; a false
    positive was answered yes and is truly no, a false alarm. Recall is TP / (TP + FN), precision TP / (TP + FP).
    """

    true_positive: Int64[np.ndarray, " C"]
    false_positive: Int64[np.ndarray, " C"]
    false_negative: Int64[np.ndarray, " C"]
    true_negative: Int64[np.ndarray, " C"]

    @property
    def count(self) -> Int64[np.ndarray, " C"]:
        """Terms of each class."""
        return self.true_positive + self.false_negative


def class_counts(outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."]) -> dict[str, Tensor]:
    """`correct`, `named` and `count` of each class among the terms of positive weight: int64 [C] each."""
    counted = (weight > 0).flatten()
    truth, named = class_of(target).flatten(), outputs.argmax(dim=-1).flatten()
    classes = outputs.shape[-1]
    return {
        "correct": tally(truth, counted & (truth == named), classes),
        "named": tally(named, counted, classes),
        "count": tally(truth, counted, classes),
    }


def outcomes(sums: Mapping[str, Tensor]) -> Outcomes:
    """The outcomes that the sums of `class_counts` mean."""
    correct, named, count = (sums[name].cpu().numpy() for name in ("correct", "named", "count"))
    return Outcomes(correct, named - correct, count - correct, count.sum() - named - count + correct)


def shares(part: Shaped[np.ndarray, " C"], of: Shaped[np.ndarray, " C"]) -> Float64[np.ndarray, " C"]:
    """part / of; NaN where there is nothing to take a part of."""
    return np.divide(part, of, out=np.full(len(of), np.nan), where=of != 0)


def tally(labels: Int64[Tensor, " M"], which: Bool[Tensor, " M"], classes: int) -> Int64[Tensor, " C"]:
    """How often each class is among the labels; adding 0 for what does not count keeps an accelerator from waiting for the host."""
    counts = torch.zeros(classes, dtype=torch.int64, device=labels.device)
    return counts.scatter_add_(0, torch.where(which, labels, 0), which.long())


def pairs(truth: Int64[Tensor, " M"], named: Int64[Tensor, " M"], which: Bool[Tensor, " M"], classes: int) -> Int64[Tensor, "C C"]:
    """How often each (truth, named) pair occurs among the rows of `which`: the confusion matrix, the row the truth."""
    return tally(truth * classes + named, which, classes * classes).view(classes, classes)


def class_of(target: Target) -> Int[Tensor, "..."]:
    """The class that each target names."""
    return target.argmax(dim=-1) if target.is_floating_point() else target.long()
