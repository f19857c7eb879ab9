"""How good the probabilities are, whatever the loss that was trained: proper scores, least where the truth is told.

Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 78, 1950; Good, "Rational Decisions",
1952 (the logarithmic score). From the softmax of the outputs, in float64. Shapes: `...` the terms, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torchstone.metrics.counts import Target


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLoss:
    """`log_loss`: the mean of -log of the probability of the truth, in nats; of a probability target q the mean of -sum_c q_c log p_c.

    Unlike `loss` it is of no smoothing, weight or margin. A truth given probability 0 makes it infinite (scikit-learn clips at 2e-16).
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        counted = (weight > 0).flatten()
        log_p_MC = outputs.double().log_softmax(dim=-1).flatten(0, -2)
        truth_MC = shares_of(target, counted, outputs.shape[-1])
        nats = -torch.where(truth_MC > 0, truth_MC * log_p_MC, 0).sum(dim=-1)  # 0 log 0 is 0
        return {"nats": torch.where(counted, nats, 0).sum(), "count": counted.sum()}

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        count = int(sums["count"])
        return {"log_loss": float(sums["nats"]) / count if count else float("nan")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Brier:
    """`brier`: the mean of sum_c (p_c - y_c)^2, y the truth as 0 and 1 (or probabilities): 0 … 2; with two classes halved to 0 … 1.

    The half is (p - y)^2 of the second class alone, as the score of an event is usually told (and as scikit-learn does).
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        counted, classes = (weight > 0).flatten(), outputs.shape[-1]
        p_MC = outputs.double().softmax(dim=-1).flatten(0, -2)
        squares = (p_MC - shares_of(target, counted, classes)).square().sum(dim=-1) * (0.5 if classes == 2 else 1.0)
        return {"squares": torch.where(counted, squares, 0).sum(), "count": counted.sum()}

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        count = int(sums["count"])
        return {"brier": float(sums["squares"]) / count if count else float("nan")}


def shares_of(target: Target, counted: Tensor, classes: int) -> Float[Tensor, "M C"]:
    """The truth as a probability of each class, float64; of a term that does not count, of class 0."""
    if target.is_floating_point():
        return target.double().flatten(0, -2)
    return F.one_hot(torch.where(counted, target.flatten().long(), 0), classes).double()
