"""How a step gets its gradient: one backward pass, or SAM's two.

A closure zeroes the gradients, runs forward and backward over the step's micro-batches, and returns the loss; it seeds the model's noise
itself, so that a second call sees the same draws, and the gradients it leaves are those of all ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Backprop:
    """The gradient at the weights."""

    neutral: ClassVar["Backprop"]

    def __call__(self, model: nn.Module, closure: Callable[[], Tensor]) -> Tensor:
        return closure()


Backprop.neutral = Backprop()


@dataclass(frozen=True, kw_only=True, slots=True)
class SAM:
    """Sharpness-aware minimization: the gradient at w + rho g / |g|, used at w.

    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2021, https://arxiv.org/abs/2010.01412,
    eq. 2 and 3.
    Costs two forward and backward passes a step. The weights come back bit by bit; every buffer keeps what the first pass made of it.
    Returns the first pass's loss. A gradient that is not finite is left as it is, for the guard.
    """

    rho: float = 0.05
    """How far up the slope the second pass looks; 0 is plain backprop."""

    neutral: ClassVar["SAM"]

    def __post_init__(self) -> None:
        if not 0 <= self.rho < float("inf"):
            raise ValueError(f"SAM.rho must be finite and >= 0, got {self.rho}")

    def __call__(self, model: nn.Module, closure: Callable[[], Tensor]) -> Tensor:
        loss = closure()
        if self.rho == 0:
            return loss
        with torch.no_grad():
            weights: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
            grads = [p.grad for p in weights if p.grad is not None]
            norm = nn.utils.get_total_norm(grads)
            if norm.device.type == "cpu" and not isfinite(norm.item()):  # elsewhere the second pass finds it too, and nobody waits
                return loss
            buffers = list(model.buffers())
            saved_weights, saved_buffers = [p.clone() for p in weights], [b.clone() for b in buffers]
            torch._foreach_mul_(grads, self.rho / norm.clamp(min=1e-12))  # the closure zeroes them next
            torch._foreach_add_(weights, grads)
        closure()
        with torch.no_grad():
            torch._foreach_copy_(weights, saved_weights)
            if buffers:
                torch._foreach_copy_(buffers, saved_buffers)
        return loss


SAM.neutral = SAM(rho=0.0)
