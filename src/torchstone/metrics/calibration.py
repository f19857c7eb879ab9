"""Whether a model that says "90 %" is right nine times in ten, and the one number that makes it so.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599, eq. 3, and section 4.2 (temperature).
Shapes: `...` the terms, C classes, B bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchstone.metrics.counts import Target, class_of

NAN = float("nan")
TEMPERATURES = (0.01, 100.0)
"""Between these a temperature is looked for."""


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
        return binned(outputs, target, weight, self.bins)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        count = int(sums["count"])
        gaps = (sums["right"].double() - sums["confidence"]).abs()
        return {"calibration_error": float(gaps.sum()) / count if count else float("nan")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """`reliability`: the points of the reliability diagram: of each bin of confidence its count, mean confidence and accuracy.

    The bins are those of `calibration_error`; a bin without terms has no confidence and no accuracy (NaN).
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    bins: int = 15
    """Equal slices of the confidences 0 to 1; the paper's number."""

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"Reliability.bins must be >= 1, got {self.bins}")

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        return binned(outputs, target, weight, self.bins)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, list[dict[str, float]]]:
        columns = zip(*(sums[name].tolist() for name in ("in_bin", "confidence", "right")), strict=True)
        return {"reliability": [_point(*each, low=number / self.bins) for number, each in enumerate(columns)]}


def binned(outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], bins: int) -> dict[str, Tensor]:
    """Sums of each bin of confidence, [B]: terms, confidence, right answers; and the count of all."""
    counted = (weight > 0).flatten()
    probability, named = outputs.double().softmax(dim=-1).max(dim=-1)
    confidence = torch.where(counted, probability.flatten(), 0)
    right = counted & (named == class_of(target)).flatten()
    # The clamp also gives a NaN its place: bin 0, whose sum it makes NaN, and so the result.
    bin_of = ((confidence * bins).ceil().long() - 1).clamp_(0, bins - 1)
    return {
        "confidence": confidence.new_zeros(bins).index_add_(0, bin_of, confidence),
        "right": right.new_zeros(bins, dtype=torch.int64).index_add_(0, bin_of, right.long()),
        "in_bin": right.new_zeros(bins, dtype=torch.int64).index_add_(0, bin_of, counted.long()),
        "count": counted.sum(),
    }


def _point(count: int, confidence: float, right: int, *, low: float) -> dict[str, float]:
    mean = {"confidence": confidence / count, "accuracy": right / count} if count else {"confidence": NAN, "accuracy": NAN}
    return {"above": low, "count": count, **mean}


def fit_temperature(outputs: Float[Tensor, "N C"], target: Int64[Tensor, " N"]) -> float:
    """The T for which softmax(outputs / T) has the least log loss: one number, so no label changes (Guo et al., section 4.2).

    The log loss is convex in b = 1 / T with the slope sum_c p_c z_c - z_y and the curvature Var_p(z), so Newton's steps, halved
    back into the bracket wherever they leave it, find the one root. Where there is none in [0.01, 100] (all right, or no better
    than chance) the nearer end. 1.0 where nothing can be fitted: no rows, equal outputs, or one that is not finite.
    """
    z = outputs.double()
    if not len(z) or not bool(z.isfinite().all()) or not bool((z.amax(dim=1) > z.amin(dim=1)).any()):
        return 1.0
    truth = z.gather(1, target[:, None]).squeeze(1)

    def slopes(b: float) -> tuple[float, float]:
        p = (b * z).softmax(dim=1)
        mean = (p * z).sum(dim=1)
        return float((mean - truth).mean()), float((p * (z - mean[:, None]).square()).sum(dim=1).mean())

    low, high = (1 / limit for limit in reversed(TEMPERATURES))
    if slopes(low)[0] >= 0:
        return 1 / low
    if slopes(high)[0] <= 0:
        return 1 / high
    b = 1.0
    for _ in range(200):
        slope, curvature = slopes(b)
        if slope == 0:
            break
        low, high = (b, high) if slope < 0 else (low, b)
        step = b - slope / curvature if curvature > 0 else high
        if not low < step < high:
            step = (low * high) ** 0.5  # the bracket spans four decades
        if abs(step - b) <= 1e-14 * b:
            break
        b = step
    return 1 / b
