"""Clipping the gradient: by its global norm, value by value, or unit by unit in proportion to the weights.

Pascanu et al., "On the difficulty of training recurrent neural networks", 2013, https://arxiv.org/abs/1211.5063, algorithm 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipByValue:
    """Cuts every element of the gradient to [-max_value, max_value], which turns its direction.

    Mikolov, "Statistical Language Models Based on Neural Networks", PhD thesis, Brno 2012, section 3.2.2, with his 15. Returns {"clip": the
    share of elements cut}. A norm that is not finite is left to the guard.
    """

    max_value: float = 15.0
    """The largest element let through; inf lets all through."""

    neutral: ClassVar["ClipByValue"]

    def __post_init__(self) -> None:
        if not self.max_value > 0:
            raise ValueError(f"ClipByValue.max_value must be > 0, got {self.max_value}")

    def __call__(self, parameters: FlatParameters, norm: float | Tensor) -> Mapping[str, float | Tensor]:
        if self.max_value == inf or (isinstance(norm, float) and norm <= self.max_value):  # then no element is larger either
            return {"clip": 0.0}
        cut = (parameters.grad.abs() > self.max_value).sum() / sum(p.numel() for p in parameters)
        parameters.grad.clamp_(-self.max_value, self.max_value)
        return {"clip": on_host(cut)}


ClipByValue.neutral = ClipByValue(max_value=inf)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveClip:
    """Adaptive gradient clipping: no unit's gradient is longer than `clipping` times that unit's weights.

    A unit is a row of a weight matrix, a filter of a convolution, or a whole vector of biases or scales; where
    |g| > clipping max(|w|, eps), g is shortened to that length. The output layer (a module called `head`) is left alone, as in the paper.
    Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", 2021, https://arxiv.org/abs/2102.06171, eq. 3.
    Returns {"clip": the share of units shortened}.
    """

    clipping: float = 0.01
    """Largest gradient of a unit, as a share of its weights (lambda); inf lets all through."""
    eps: float = 1e-3
    """Least length that weights count with, so that those that start at 0 can leave it."""

    neutral: ClassVar["AdaptiveClip"]

    def __post_init__(self) -> None:
        if not self.clipping > 0:
            raise ValueError(f"AdaptiveClip.clipping must be > 0, got {self.clipping}")
        if not 0 < self.eps < inf:
            raise ValueError(f"AdaptiveClip.eps must be finite and > 0, got {self.eps}")

    def __call__(self, parameters: FlatParameters, norm: float | Tensor) -> Mapping[str, float | Tensor]:
        if self.clipping == inf:
            return {"clip": 0.0}
        cut, units = torch.zeros((), device=parameters.grad.device), 0
        for weight, grad in unit_rows(parameters):
            longest = torch.linalg.vector_norm(weight, dim=-1, keepdim=True).clamp_(min=self.eps).mul_(self.clipping)
            factor = longest / torch.linalg.vector_norm(grad, dim=-1, keepdim=True)  # 0 / 0 does not occur: `longest` is > 0
            grad.mul_(factor.clamp(max=1.0))
            cut, units = cut + (factor < 1).sum(), units + factor.numel()
        return {"clip": on_host(cut / max(1, units))}


AdaptiveClip.neutral = AdaptiveClip(clipping=inf)


def unit_rows(parameters: FlatParameters) -> Iterator[tuple[Tensor, Tensor]]:
    """(weights, gradients) as [..., units, elements of a unit], the output layer left out; equal hidden matrices come in one."""
    for stack in parameters.stacks:
        yield stack.view(parameters.data), stack.view(parameters.grad)
    stacked = {name for stack in parameters.stacks for name in stack.names}
    for name in parameters.names:
        if name in stacked or any("head" in path.split(".") for path, _ in parameters.owners(name)):
            continue
        weight, grad = parameters.view(parameters.data, name), parameters.view(parameters.grad, name)
        yield (weight.flatten(1), grad.flatten(1)) if weight.ndim >= 2 else (weight.reshape(1, -1), grad.reshape(1, -1))


def on_host(number: Tensor) -> float | Tensor:
    """A float where reading it waits for nobody."""
    return number.item() if number.device.type == "cpu" else number
