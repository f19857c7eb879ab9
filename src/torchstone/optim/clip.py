"""Clipping the gradient by its global norm.

Pascanu et al., "On the difficulty of training recurrent neural networks", 2013, https://arxiv.org/abs/1211.5063, algorithm 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from torch import Tensor

from torchstone.optim.flat import FlatParameters


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipByNorm:
    """Shortens the gradient to `max_norm` where its norm over all parameters is larger.

    Returns {"clip": the factor}. A norm that is not finite is left to the guard.
    """

    max_norm: float = 1.0
    """The longest gradient let through; inf lets all through."""

    neutral: ClassVar["ClipByNorm"]

    def __post_init__(self) -> None:
        if not self.max_norm > 0:
            raise ValueError(f"ClipByNorm.max_norm must be > 0, got {self.max_norm}")

    def __call__(self, parameters: FlatParameters, norm: float | Tensor) -> Mapping[str, float | Tensor]:
        if isinstance(norm, Tensor):  # an accelerator's: no branch, or the host would wait
            scale = (self.max_norm / norm).clamp(max=1.0)
            parameters.grad.mul_(scale)
            return {"clip": scale}
        if not self.max_norm < norm < inf:
            return {"clip": 1.0}
        parameters.grad.mul_(self.max_norm / norm)
        return {"clip": self.max_norm / norm}


ClipByNorm.neutral = ClipByNorm(max_norm=inf)
