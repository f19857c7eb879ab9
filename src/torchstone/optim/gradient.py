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
        return closure() if self.rho == 0 else ahead(model, closure, self.climb)

    def climb(self, weights: list[Tensor], grads: list[Tensor], norm: Tensor) -> None:
        """Turns the gradients, of this norm, into the way to the second pass."""
        torch._foreach_mul_(grads, self.rho / norm.clamp(min=1e-12))


SAM.neutral = SAM(rho=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ASAM:
    """Adaptive sharpness-aware minimization: SAM whose neighborhood scales with each weight.

    The second pass is at w + rho T^2 g / |T g| with T = |w| + eta, element by element, so a network whose weights are rescaled without
    changing its function meets the same sharpness. Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning
    of Deep Neural Networks", 2021, https://arxiv.org/abs/2102.11600, eq. 7 and algorithm 1. Otherwise as SAM.
    """

    rho: float = 0.5
    """How far the second pass looks, in multiples of the weights; 0 is plain backprop."""
    eta: float = 0.01
    """Added to the size of each weight, so that one near 0 moves too."""

    neutral: ClassVar["ASAM"]

    def __post_init__(self) -> None:
        if not 0 <= self.rho < float("inf"):
            raise ValueError(f"ASAM.rho must be finite and >= 0, got {self.rho}")
        if not 0 <= self.eta < float("inf"):
            raise ValueError(f"ASAM.eta must be finite and >= 0, got {self.eta}")

    def __call__(self, model: nn.Module, closure: Callable[[], Tensor]) -> Tensor:
        return closure() if self.rho == 0 else ahead(model, closure, self.climb)

    def climb(self, weights: list[Tensor], grads: list[Tensor], norm: Tensor) -> None:
        """Turns the gradients into the way to the second pass."""
        sizes = torch._foreach_abs(weights)
        torch._foreach_add_(sizes, self.eta)
        torch._foreach_mul_(grads, sizes)
        scaled = nn.utils.get_total_norm(grads)
        torch._foreach_mul_(grads, sizes)
        torch._foreach_mul_(grads, self.rho / scaled.clamp(min=1e-12))


ASAM.neutral = ASAM(rho=0.0)


def ahead(model: nn.Module, closure: Callable[[], Tensor], climb: Callable[[list[Tensor], list[Tensor], Tensor], None]) -> Tensor:
    """The gradient of a second pass, at the weights plus what `climb` makes of the first one's gradients; returns the first one's loss.

    `climb(weights, gradients, norm)` changes the gradients in place. The weights come back bit by bit, the buffers are the first pass's.
    """
    loss = closure()
    with torch.no_grad():
        weights: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
        grads = [p.grad for p in weights if p.grad is not None]
        norm = nn.utils.get_total_norm(grads)
        if norm.device.type == "cpu" and not isfinite(norm.item()):  # elsewhere the second pass finds it too, and nobody waits
            return loss
        buffers = list(model.buffers())
        saved_weights, saved_buffers = [p.clone() for p in weights], [b.clone() for b in buffers]
        climb(weights, grads, norm)  # the closure zeroes them next
        torch._foreach_add_(weights, grads)
    closure()
    with torch.no_grad():
        torch._foreach_copy_(weights, saved_weights)
        if buffers:
            torch._foreach_copy_(buffers, saved_buffers)
    return loss
