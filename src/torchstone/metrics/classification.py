"""How often, and in what way, the largest output names the class of the target.

Shapes: `...` the terms (N examples, or N x T tokens), C classes. A probability target stands for its likeliest class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.metrics.counts import Target, class_of, pairs


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """`accuracy`: the share of terms of positive weight whose largest output is at the target's class."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        counted = weight > 0
        return {"correct": ((outputs.argmax(dim=-1) == class_of(target)) & counted).sum(), "count": counted.sum()}

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        correct, count = int(sums["correct"]), int(sums["count"])
        return {"accuracy": correct / count if count else float("nan")}


@dataclass(frozen=True, kw_only=True, slots=True)
class TopK:
    """`top_<k>_accuracy`: the share of terms of positive weight whose target is among the k largest outputs.

    Of equal outputs the one of the smaller class counts as larger, as in `Accuracy`, which this is at k = 1.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    k: int = 5
    """How many guesses are allowed."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"TopK.k must be >= 1, got {self.k}")

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        counted = weight > 0
        label = torch.where(counted, class_of(target), 0).unsqueeze(-1)
        its_output = outputs.gather(-1, label)
        first_of_equals = (outputs == its_output) & (torch.arange(outputs.shape[-1], device=outputs.device) < label)
        rank = ((outputs > its_output) | first_of_equals).sum(dim=-1)
        found = (rank < self.k) & ~its_output.isnan().squeeze(-1)  # nothing is larger than NaN, which is no guess all the same
        return {"found": (found & counted).sum(), "count": counted.sum()}

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        found, count = int(sums["found"]), int(sums["count"])
        return {f"top_{self.k}_accuracy": found / count if count else float("nan")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """`confusion`: C rows of C counts, the row the class of the target, the column the largest output's."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        truth, named = class_of(target).flatten(), outputs.argmax(dim=-1).flatten()
        return {"confusion": pairs(truth, named, (weight > 0).flatten(), outputs.shape[-1])}

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, list[list[int]]]:
        return {"confusion": sums["confusion"].tolist()}
