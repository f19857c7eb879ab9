"""Whether a model that says "90 %" is right nine times in ten.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599, eq. 3.
Shapes: `...` the terms, C classes, B bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.metrics.classification import Target, class_of


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationError:
    """`calibration_error`: the mean over terms of |accuracy - mean confidence| of the bin the term's confidence falls in.

    Confidence is the largest probability, softmax of the outputs; bin b of B holds (b / B, (b + 1) / B].
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    bins: int = 15
    """Equal slices of the confidences 0 to 1; the paper's number."""

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"CalibrationError.bins must be >= 1, got {self.bins}")

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        counted = (weight > 0).flatten()
        probability, named = outputs.double().softmax(dim=-1).max(dim=-1)
        confidence = torch.where(counted, probability.flatten(), 0)
        right = counted & (named == class_of(target)).flatten()
        # The clamp also gives a NaN its place: bin 0, whose sum it makes NaN, and so the result.
        bin_of = ((confidence * self.bins).ceil().long() - 1).clamp_(0, self.bins - 1)
        return {
            "confidence": confidence.new_zeros(self.bins).index_add_(0, bin_of, confidence),
            "right": right.new_zeros(self.bins, dtype=torch.int64).index_add_(0, bin_of, right.long()),
            "count": counted.sum(),
        }

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        count = int(sums["count"])
        gaps = (sums["right"].double() - sums["confidence"]).abs()
        return {"calibration_error": float(gaps.sum()) / count if count else float("nan")}
