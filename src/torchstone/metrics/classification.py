"""How often, and in what way, the largest output names the class of the target.

Shapes: `...` the terms (N examples, or N x T tokens), C classes. A probability target stands for its likeliest class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

Target = Int[Tensor, "..."] | Float[Tensor, "... C"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """`accuracy`: the share of terms of positive weight whose largest output is at the target's class."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        counted = weight > 0
        return {"correct": ((outputs.argmax(dim=-1) == _class_of(target)) & counted).sum(), "count": counted.sum()}

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        correct, count = int(sums["correct"]), int(sums["count"])
        return {"accuracy": correct / count if count else float("nan")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """`confusion`: C rows of C counts, the row the class of the target, the column the largest output's."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        classes = outputs.shape[-1]
        counted = weight > 0
        cell = torch.where(counted, _class_of(target) * classes + outputs.argmax(dim=-1), 0)
        # Adding 0 for what does not count, rather than selecting, keeps an accelerator from waiting for the host.
        counts = torch.zeros(classes * classes, dtype=torch.int64, device=outputs.device)
        return {"confusion": counts.scatter_add_(0, cell.flatten(), counted.flatten().long()).view(classes, classes)}

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, list[list[int]]]:
        return {"confusion": sums["confusion"].tolist()}


def _class_of(target: Target) -> Int[Tensor, "..."]:
    return target.argmax(dim=-1) if target.is_floating_point() else target.long()
