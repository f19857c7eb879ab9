"""Yes or no for each of several labels: binary cross-entropy and the multi-label margin.

Classes are labels of which exactly one is there: for classification with binary cross-entropy see Wightman et al., "ResNet
Strikes Back", 2021, https://arxiv.org/abs/2110.00476. Shapes: `...` the terms, C labels or classes.
"""

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts
from torchstone.losses.layouts import ones
from torchstone.losses.targets import Target, full_precision, index_weight, left_out, probabilities

OTHER = "one yes or no for each class is another objective than one choice among them"
Labels = Bool[Tensor, "... C"] | Int[Tensor, "... C"] | Float[Tensor, "... C"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BCE:
    """Mean over the labels of -(q log p + (1 - q) log(1 - p)) with p = sigmoid(logit), in nats; a class is one label that is there."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False

    given: Literal["logits", "probabilities"] = "logits"
    """What the outputs are. The sigmoid inside the loss is the exact way; probabilities are clipped as torch does, at log p = -100."""
    smoothing: float = 0.0
    """Targets move this share of the way to 1/2."""
    positive_weight: tuple[float, ...] = ()
    """How much "yes" counts against "no" for each label; empty: the same."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"BCE.smoothing must be >= 0 and < 1, got {self.smoothing}")
        if not all(isfinite(w) and w > 0 for w in self.positive_weight):
            raise ValueError(f"BCE.positive_weight must be finite and > 0, got {self.positive_weight}")

    @property
    def takes(self) -> tuple[str, ...]:
        return ("labels", "classes") if self.given == "logits" else ("probabilities",)

    def resolve(self, facts: Facts) -> "BCE":
        if self.positive_weight and facts.classes and len(self.positive_weight) != len(facts.classes):
            raise UserError(
                "method.loss.positive_weight must hold one number a class: "
                f"found {len(self.positive_weight)}, the data have {len(facts.classes)}"
            )
        return self

    def __call__(self, outputs: Float[Tensor, "... C"], target: Target) -> Float[Tensor, "..."]:
        outputs = full_precision(outputs)
        wanted, kept = probabilities(target, outputs, self.ignore_index)
        if self.smoothing:
            wanted = wanted * (1 - self.smoothing) + self.smoothing / 2
        yes = torch.tensor(self.positive_weight, dtype=outputs.dtype, device=outputs.device) if self.positive_weight else None
        if self.given == "logits":
            terms = F.binary_cross_entropy_with_logits(outputs, wanted, pos_weight=yes, reduction="none")
        elif yes is None:
            terms = F.binary_cross_entropy(outputs, wanted, reduction="none")
        else:
            floor = -100.0
            terms = -(yes * wanted * outputs.log().clamp(min=floor) + (1 - wanted) * (-outputs).log1p().clamp(min=floor))
        return left_out(terms.mean(dim=-1), kept)

    def weight(self, target: Target) -> Float[Tensor, "..."]:
        return index_weight(target, self.ignore_index)


@dataclass(frozen=True, kw_only=True, slots=True)
class MultilabelSoftMargin:
    """Mean over the labels of the weighted binary cross-entropy of logits: torch's MultiLabelSoftMarginLoss."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("labels", "classes")

    label_weights: tuple[float, ...] = ()
    """How much each label counts; empty: all the same."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        if not all(isfinite(w) and w >= 0 for w in self.label_weights):
            raise ValueError(f"MultilabelSoftMargin.label_weights must be finite and >= 0, got {self.label_weights}")

    def __call__(self, logits: Float[Tensor, "... C"], target: Target) -> Float[Tensor, "..."]:
        logits = full_precision(logits)
        wanted, kept = probabilities(target, logits, self.ignore_index)
        weights = torch.tensor(self.label_weights, dtype=logits.dtype, device=logits.device) if self.label_weights else None
        return left_out(F.multilabel_soft_margin_loss(logits, wanted, weight=weights, reduction="none"), kept)

    def weight(self, target: Target) -> Float[Tensor, "..."]:
        return index_weight(target, self.ignore_index)


@dataclass(frozen=True, kw_only=True, slots=True)
class MultilabelMargin:
    """sum over labels i that are there and j that are not of max(0, 1 - (x_i - x_j)), over C: torch's MultiLabelMarginLoss.

    The target is 0 or 1 for each label (torch's own form is a list of indices that -1 ends).
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("labels",)

    def __call__(self, outputs: Float[Tensor, "... C"], target: Labels) -> Float[Tensor, "..."]:
        outputs = full_precision(outputs)
        flat, there = outputs.flatten(0, -2), (target != 0).flatten(0, -2)
        order = torch.argsort(~there, dim=-1, stable=True)  # the labels that are there first
        listed = torch.where(there.gather(-1, order), order, -1)
        return F.multilabel_margin_loss(flat, listed, reduction="none").view(outputs.shape[:-1])

    def weight(self, target: Labels) -> Float[Tensor, "..."]:
        return ones(target, 1)
