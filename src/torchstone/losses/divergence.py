"""Divergences of the target's distribution from the model's.

Kullback & Leibler, "On Information and Sufficiency", 1951. Lin, "Divergence Measures Based on the Shannon Entropy", 1991: the
Jensen-Shannon divergence is symmetric and lies in [0, 1] bits, that is [0, log 2] nats.
Shapes: `...` the terms, C classes.
"""

from dataclasses import dataclass
from math import log
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.losses.targets import Target, full_precision, index_weight, left_out, probabilities

Unit = Literal["nats", "bits"]


@dataclass(frozen=True, kw_only=True, slots=True)
class KLDiv:
    """KL(q || p) = sum_c q_c (log q_c - log p_c) with p = softmax(logits): cross-entropy less the target's own entropy.

    That entropy is 0 for class indices: in nats the loss is cross-entropy there, bit for bit.
    """

    neutral: ClassVar["KLDiv"]
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("classes",)

    unit: Unit = "nats"
    """nats (natural logarithm) or bits (base 2)."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        _check_unit(self)

    def __call__(self, logits: Float[Tensor, "... C"], target: Target) -> Float[Tensor, "..."]:
        log_p = full_precision(logits).log_softmax(dim=-1)
        q, kept = probabilities(target, log_p, self.ignore_index)
        return left_out(kl(q, log_p) * _scale(self.unit), kept)

    def weight(self, target: Target) -> Float[Tensor, "..."]:
        return index_weight(target, self.ignore_index)


@dataclass(frozen=True, kw_only=True, slots=True)
class JSDiv:
    """(KL(q || m) + KL(p || m)) / 2 with p = softmax(logits) and m = (p + q) / 2: symmetric, 0 to 1 bit."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a bounded divergence is another objective than cross-entropy"
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("classes",)

    unit: Unit = "bits"
    """bits (base 2, at most 1) or nats (natural logarithm, at most 0.693)."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        _check_unit(self)

    def __call__(self, logits: Float[Tensor, "... C"], target: Target) -> Float[Tensor, "..."]:
        log_p = full_precision(logits).log_softmax(dim=-1)
        q, kept = probabilities(target, log_p, self.ignore_index)
        log_m = torch.logaddexp(q.log(), log_p) - log(2)
        nats = (kl(q, log_m) + (log_p.exp() * (log_p - log_m)).sum(dim=-1)) / 2
        return left_out(nats * _scale(self.unit), kept)

    def weight(self, target: Target) -> Float[Tensor, "..."]:
        return index_weight(target, self.ignore_index)


def kl(q: Float[Tensor, "... C"], log_p: Float[Tensor, "... C"]) -> Float[Tensor, "..."]:
    """sum_c q_c (log q_c - log p_c) in nats; a class with q_c = 0 adds 0, whatever p_c."""
    there = q > 0
    return (torch.special.xlogy(q, q) - q * torch.where(there, log_p, 0)).sum(dim=-1)


def _scale(unit: Unit) -> float:
    return 1.0 if unit == "nats" else 1 / log(2)


def _check_unit(loss: KLDiv | JSDiv) -> None:
    if loss.unit not in ("nats", "bits"):
        raise ValueError(f'{type(loss).__name__}.unit must be "nats" or "bits", got {loss.unit!r}')


KLDiv.neutral = KLDiv()
