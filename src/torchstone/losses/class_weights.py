"""Weights of the classes, shared by the losses that count some classes more than others.

"balanced" is n / (C n_c), as in scikit-learn: King & Zeng, "Logistic Regression in Rare Events Data", 2001. A training
example then weighs 1 on average. "effective" is (1 - beta) / (1 - beta^n_c), scaled so that the C weights add up to C: Cui et al.,
"Class-Balanced Loss Based on Effective Number of Samples", 2019, https://arxiv.org/abs/1901.05555, eq. 8.

Shapes: `...` the terms, C classes.
"""

from dataclasses import replace
from functools import lru_cache
from math import expm1, isfinite, log
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, TokenShape
from torchstone.losses.targets import Target, classes_named, without_ignored

Weighting = Literal["none", "balanced", "effective"]


class ClassWeighted(Protocol):
    """A loss with these fields."""

    @property
    def class_weights(self) -> tuple[float, ...]: ...
    @property
    def weighting(self) -> Weighting: ...
    @property
    def beta(self) -> float: ...
    @property
    def ignore_index(self) -> int: ...


def check(loss: ClassWeighted) -> None:
    """Raises ValueError where the fields contradict each other or are no weights."""
    name = type(loss).__name__
    if loss.weighting not in ("none", "balanced", "effective"):
        raise ValueError(f'{name}.weighting must be "none", "balanced" or "effective", got {loss.weighting!r}')
    if loss.weighting != "none" and loss.class_weights:
        raise ValueError(f'{name}.class_weights must be empty when weighting is "{loss.weighting}", got {loss.class_weights}')
    if not 0 <= loss.beta < 1:
        raise ValueError(f"{name}.beta must be >= 0 and < 1, got {loss.beta}")
    if not all(isfinite(w) and w >= 0 for w in loss.class_weights) or (loss.class_weights and not any(loss.class_weights)):
        raise ValueError(f"{name}.class_weights must be finite, >= 0 and not all 0, got {loss.class_weights}")


def resolved(loss: Any, facts: Facts) -> Any:
    """The loss with the weights that these data give written out, its own weights checked against the classes."""
    classes = facts.inputs.vocabulary if isinstance(facts.inputs, TokenShape) and not facts.classes else len(facts.classes)
    if loss.weighting == "balanced":
        return replace(loss, class_weights=balanced(facts), weighting="none")
    if loss.weighting == "effective":
        return replace(loss, class_weights=effective(facts, loss.beta), weighting="none")
    if loss.class_weights and len(loss.class_weights) != classes:
        raise UserError(f"method.loss.class_weights must hold one number a class: found {len(loss.class_weights)}, the data have {classes}")
    return loss


def balanced(facts: Facts) -> tuple[float, ...]:
    """n / (C n_c) for n training examples in C classes, n_c of them in class c. UserError if a class has none."""
    counts = counted(facts, "weighting=balanced")
    return tuple(sum(counts) / (len(counts) * count) for count in counts)


def effective(facts: Facts, beta: float) -> tuple[float, ...]:
    """(1 - beta) / (1 - beta^n_c), scaled so that they add up to C. UserError if a class has no training example."""
    counts = counted(facts, "weighting=effective")
    inverse = [(1 - beta) / -expm1(count * log(beta)) if beta else 1.0 for count in counts]
    return tuple(weight * len(counts) / sum(inverse) for weight in inverse)


def counted(facts: Facts, setting: str) -> tuple[int, ...]:
    """Training examples of each class, for a setting of the loss that needs some of every class."""
    if not facts.class_counts:
        raise UserError(f"method.loss.{setting} needs the number of training examples of each class, and these data have no classes")
    if 0 in facts.class_counts:
        empty = [name for name, count in zip(facts.classes, facts.class_counts, strict=True) if count == 0]
        raise UserError(
            f"method.loss.{setting} cannot weigh a class without training examples: {', '.join(empty)}; "
            "add some, drop the class, or give method.loss.class_weights"
        )
    return facts.class_counts


def weight_vector(loss: ClassWeighted, dtype: torch.dtype, device: torch.device) -> Float[Tensor, " C"] | None:
    """The class weights as a tensor, or None when all classes weigh the same."""
    if loss.weighting != "none":
        raise ValueError(
            f"{type(loss).__name__}.weighting is {loss.weighting}: resolve(facts) must write the weights out before it is called"
        )
    return _vector(loss.class_weights, dtype, device) if loss.class_weights else None


@lru_cache(maxsize=64)
def _vector(class_weights: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # made during an evaluation, it must still serve a backward pass later
        return torch.tensor(class_weights, dtype=dtype, device=device)


def term_weight(loss: ClassWeighted, target: Target) -> Float[Tensor, "..."]:
    """Of indices: the weight of the class, 0 where ignored. Of probabilities: 1.

    torch divides the sum over probability targets by their number, not by their weights; those sit inside the terms.
    Class weights come in float64, so that their sum is right for a float64 model too.
    """
    if target.is_floating_point():
        return torch.ones(target.shape[:-1], device=target.device)
    weights = weight_vector(loss, torch.float64, target.device)
    if weights is None:
        return (target != loss.ignore_index).float()
    safe, kept = without_ignored(target, loss.ignore_index)
    with classes_named(target, len(weights), loss.ignore_index):
        return weights[safe] * kept
