"""The run's own loss over a split."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import PyTree


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanLoss:
    """`loss`: the weighted mean of the loss's terms, as the step computes it over a batch."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    def measure(self, outputs: PyTree, target: PyTree, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]) -> dict[str, Tensor]:
        weight = weight.double()
        # A padding row may hold anything, NaN included: it is left out, not multiplied by 0.
        return {"loss": torch.where(weight > 0, terms.double() * weight, 0).sum(), "weight": weight.sum()}

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        weight = float(sums["weight"])
        return {"loss": float(sums["loss"]) / weight if weight else float("nan")}
