"""Cross-entropy between the softmax of logits and class indices or probabilities.

Label smoothing: Szegedy et al., "Rethinking the Inception Architecture", 2015, https://arxiv.org/abs/1512.00567, section 7.
Shapes: `...` the terms (N examples, or N x T tokens), C classes.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import Facts
from torchstone.losses import class_weights
from torchstone.losses.class_weights import Weighting
from torchstone.losses.targets import Target, classes_named, full_precision


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossEntropy:
    """-sum_c q_c log p_c with p = softmax(logits), in nats.

    The weighted mean of the terms is torch's `F.cross_entropy(..., reduction="mean")` for every setting, with one
    exception: an index target of a class of weight 0 is left out altogether, where torch still adds its smoothing.
    """

    neutral: ClassVar["CrossEntropy"]
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("classes",)

    smoothing: float = 0.0
    """Share of the target that is spread evenly over all C classes: p_y = 1 - (C-1)/C x smoothing."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""
    class_weights: tuple[float, ...] = ()
    """How much each class counts; empty: all the same."""
    weighting: Weighting = "none"
    """class_weights are written from the training data. balanced: n / (C n_c); effective: as for `beta`."""
    beta: float = 0.999
    """With weighting=effective, in proportion to (1 - beta) / (1 - beta^n_c): how much samples of a class overlap (near 1: little)."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"CrossEntropy.smoothing must be >= 0 and < 1, got {self.smoothing}")
        class_weights.check(self)

    def resolve(self, facts: Facts) -> Self:
        return class_weights.resolved(self, facts)

    def __call__(self, logits: Float[Tensor, "... C"], target: Target) -> Float[Tensor, "..."]:
        soft = target.is_floating_point()
        if logits.ndim != 2:
            classes = logits.shape[-1]
            with classes_named(target, classes, self.ignore_index):  # by the row of the target as it came
                terms = self(logits.reshape(-1, classes), target.reshape(-1, classes) if soft else target.reshape(-1))
            return terms.view(logits.shape[:-1])
        logits = full_precision(logits)
        weights = class_weights.weight_vector(self, logits.dtype, logits.device)
        with classes_named(target, logits.shape[-1], self.ignore_index):
            terms = F.cross_entropy(
                logits,
                target.to(logits.dtype) if soft else target.long(),
                weight=weights,
                ignore_index=-100 if soft else self.ignore_index,  # torch refuses another one beside probabilities
                label_smoothing=self.smoothing,
                reduction="none",
            )
        if weights is None or soft:
            return terms
        # torch's term of index target y, with smoothing eps, is already weighted, the even part by each class's own weight:
        #     t = (1 - eps) w_y (-log p_y) + eps/C sum_c w_c (-log p_c),       mean = sum t / sum w_y.
        # The step computes sum(term x weight) / sum weight with weight = w_y, so the term is t / w_y, and 0 where w_y is.
        weight = self.weight(target).to(terms.dtype)
        counts = weight > 0
        return torch.where(counts, terms / torch.where(counts, weight, 1), 0)

    def weight(self, target: Target) -> Float[Tensor, "..."]:
        return class_weights.term_weight(self, target)


CrossEntropy.neutral = CrossEntropy()
