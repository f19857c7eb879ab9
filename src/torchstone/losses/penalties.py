"""Penalties: one number a model, added to the loss once a step.

Hoerl & Kennard, "Ridge Regression", 1970. For SGD the L2 penalty is weight decay; for Adam it is not, because the gradient
of the penalty is rescaled as well (Loshchilov & Hutter, 2017, https://arxiv.org/abs/1711.05101).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class L2:
    """strength / 2 x the sum of squares of the trained weights (parameters of two or more dimensions: no norms, no biases)."""

    neutral: ClassVar["L2"]

    strength: float = 1e-4
    """The derivative with respect to a weight w is strength x w."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise ValueError(f"L2.strength must be finite and >= 0, got {self.strength}")

    def __call__(self, model: nn.Module) -> Float[Tensor, ""]:
        squares = [p.square().sum() for p in model.parameters() if p.requires_grad and p.ndim >= 2]
        if not squares:
            return torch.zeros((), requires_grad=True)  # the step may ask for its gradient all the same
        return 0.5 * self.strength * torch.stack(squares).sum()


L2.neutral = L2(strength=0.0)
