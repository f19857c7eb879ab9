"""Losses of a margin: zero once the right side is ahead by enough. Thin doors to torch's, one number a term.

Multi-class: Crammer & Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines", 2001 (here the sum
over classes of Weston & Watkins, 1999). Contrastive: Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping",
2006. Shapes: `...` the terms, N examples, C classes, D dimensions.
"""

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from torchstone.losses.layouts import Pair, ones
from torchstone.losses.targets import Target, full_precision, index_weight, left_out, probabilities

OTHER = "a margin is another objective than cross-entropy; none of its settings is equal to it"
Sign = Int[Tensor, "..."] | Float[Tensor, "..."]
"""1 or -1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiMargin:
    """sum over the classes j != y of max(0, margin - x_y + x_j)^power, over C; of probabilities the mean under them."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("classes",)

    margin: float = 1.0
    """By how much the right class must be ahead of each other one."""
    power: int = 1
    """1: the hinge; 2: its square."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        _check_margin(self)
        if self.power not in (1, 2):
            raise ValueError(f"MultiMargin.power must be 1 or 2, got {self.power}")

    def __call__(self, outputs: Float[Tensor, "... C"], target: Target) -> Float[Tensor, "..."]:
        outputs = full_precision(outputs)
        wanted, kept = probabilities(target, outputs, self.ignore_index)
        if kept is not None:
            right = wanted.argmax(dim=-1).flatten()
            flat = F.multi_margin_loss(outputs.flatten(0, -2), right, p=self.power, margin=self.margin, reduction="none")
            return left_out(flat.view(outputs.shape[:-1]), kept)
        behind = (self.margin - outputs.unsqueeze(-1) + outputs.unsqueeze(-2)).clamp(min=0).pow(self.power)  # [..., y, j]
        each = (behind.sum(dim=-1) - behind.diagonal(dim1=-2, dim2=-1)) / outputs.shape[-1]
        return (wanted * each).sum(dim=-1)

    def weight(self, target: Target) -> Float[Tensor, "..."]:
        return index_weight(target, self.ignore_index)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftMargin:
    """log(1 + exp(-y x)) for y of 1 or -1."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("signs",)

    def __call__(self, outputs: Float[Tensor, "..."], target: Sign) -> Float[Tensor, "..."]:
        outputs = full_precision(outputs)
        return F.softplus(-same_shape(self, target, outputs) * outputs)

    def weight(self, target: Sign) -> Float[Tensor, "..."]:
        return ones(target, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class HingeEmbedding:
    """x for y = 1, max(0, margin - x) for y = -1, where x is a distance."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("signs",)

    margin: float = 1.0
    """How far apart what does not belong together must be."""

    def __post_init__(self) -> None:
        _check_margin(self)

    def __call__(self, outputs: Float[Tensor, "..."], target: Sign) -> Float[Tensor, "..."]:
        outputs = full_precision(outputs)
        return F.hinge_embedding_loss(outputs, same_shape(self, target, outputs), margin=self.margin, reduction="none")

    def weight(self, target: Sign) -> Float[Tensor, "..."]:
        return ones(target, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginRanking:
    """max(0, margin - y (x_1 - x_2)) for pairs of scores: y = 1 says that the first belongs above."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("pairs",)

    margin: float = 0.0
    """By how much the one must be above the other."""

    def __post_init__(self) -> None:
        _check_margin(self)

    def __call__(self, outputs: Pair, target: Sign) -> Float[Tensor, "..."]:
        first, second = full_precision(outputs.first), full_precision(outputs.second)
        return F.margin_ranking_loss(first, second, same_shape(self, target, first), margin=self.margin, reduction="none")

    def weight(self, target: Sign) -> Float[Tensor, "..."]:
        return ones(target, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class CosineEmbedding:
    """1 - cos(a, b) for y = 1, max(0, cos(a, b) - margin) for y = -1."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("pairs",)

    margin: float = 0.0
    """The cosine up to which two that do not belong together cost nothing."""

    def __post_init__(self) -> None:
        if not -1 <= self.margin <= 1:
            raise ValueError(f"CosineEmbedding.margin must be in [-1, 1], got {self.margin}")

    def __call__(self, outputs: Pair, target: Sign) -> Float[Tensor, " N"]:
        first, second = full_precision(outputs.first), full_precision(outputs.second)
        return F.cosine_embedding_loss(first, second, same_shape(self, target, first[..., 0]), margin=self.margin, reduction="none")

    def weight(self, target: Sign) -> Float[Tensor, "..."]:
        return ones(target, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrastive:
    """d^2 / 2 for y = 1 and max(0, margin - d)^2 / 2 for y = -1, where d is the Euclidean distance of the pair."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("pairs",)

    margin: float = 1.0
    """The distance from which two that do not belong together cost nothing."""

    def __post_init__(self) -> None:
        _check_margin(self)

    def __call__(self, outputs: Pair, target: Sign) -> Float[Tensor, " N"]:
        first, second = full_precision(outputs.first), full_precision(outputs.second)
        squared = (first - second).square().sum(dim=-1)
        apart = squared > 0
        distance = torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)  # the root's slope at 0 is infinite
        far = (self.margin - distance).clamp(min=0).square()
        return torch.where(same_shape(self, target, squared) > 0, squared, far) / 2

    def weight(self, target: Sign) -> Float[Tensor, "..."]:
        return ones(target, 0)


def same_shape(loss: object, target: Tensor, terms: Tensor) -> Tensor:
    """The target as numbers of the terms' type. Raises ValueError where one would be broadcast against the other."""
    if target.shape != terms.shape:
        raise ValueError(f"{type(loss).__name__} needs a target of shape {tuple(terms.shape)}, got {tuple(target.shape)}")
    return target.to(terms.dtype)


def _check_margin(loss: MultiMargin | HingeEmbedding | MarginRanking | Contrastive) -> None:
    if not (isfinite(loss.margin) and loss.margin >= 0):
        raise ValueError(f"{type(loss).__name__}.margin must be finite and >= 0, got {loss.margin}")
