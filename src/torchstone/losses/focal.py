"""Focal loss: cross-entropy that discounts the examples the model already gets right.

Lin et al., "Focal Loss for Dense Object Detection", 2017, https://arxiv.org/abs/1708.02002, eq. 5 (softmax form).
Shapes: `...` the terms (N examples, or N x T tokens), C classes.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import Facts
from torchstone.losses import class_weights
from torchstone.losses.class_weights import Weighting
from torchstone.losses.targets import Target, expectation, full_precision, without_ignored


@dataclass(frozen=True, kw_only=True, slots=True)
class Focal:
    """(1 - p_y)^gamma (-log p_y); over probabilities sum_c q_c (1 - p_c)^gamma (-log p_c)."""

    neutral: ClassVar["Focal"]
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("classes",)

    gamma: float = 2.0
    """How steeply easy examples are discounted; 0 is plain cross-entropy."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""
    class_weights: tuple[float, ...] = ()
    """How much each class counts (the paper's alpha); empty: all the same."""
    weighting: Weighting = "none"
    """class_weights are written from the training data. balanced: n / (C n_c); effective: as for `beta`."""
    beta: float = 0.999
    """With weighting=effective, in proportion to (1 - beta) / (1 - beta^n_c): how much samples of a class overlap (near 1: little)."""

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < float("inf"):
            raise ValueError(f"Focal.gamma must be finite and >= 0, got {self.gamma}")
        class_weights.check(self)

    def resolve(self, facts: Facts) -> Self:
        return class_weights.resolved(self, facts)

    def __call__(self, logits: Float[Tensor, "... C"], target: Target) -> Float[Tensor, "..."]:
        log_p = full_precision(logits).log_softmax(dim=-1)
        if target.is_floating_point():
            terms = self._discounted(log_p)
            weights = class_weights.weight_vector(self, log_p.dtype, log_p.device)
            return expectation(target, terms if weights is None else terms * weights)
        safe, kept = without_ignored(target, self.ignore_index)
        # Gathered first: a class masked out by a logit of -inf would turn the other classes' zero gradients into NaN.
        return torch.where(kept, self._discounted(expectation(safe, log_p)), 0)

    def _discounted(self, log_p: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        # expm1 keeps 1 - p exact near p = 1; the floor keeps the derivative of pow finite there for gamma < 1.
        miss = (-log_p.expm1()).clamp(min=1e-12)
        return -miss.pow(self.gamma) * log_p

    def weight(self, target: Target) -> Float[Tensor, "..."]:
        return class_weights.term_weight(self, target)


Focal.neutral = Focal(gamma=0.0)
