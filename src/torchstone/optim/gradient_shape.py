"""What changes the gradient's direction before the update: centered, or with noise.

Shapes: P scalars of all parameters, K matrices of m rows and n columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor

from torchstone.optim.flat import FlatParameters


@dataclass(frozen=True, kw_only=True, slots=True)
class Centralize:
    """Gradient centralization: from the gradient of every unit's weights its mean is taken away.

    g_i - mean(g_i) for each row of a matrix and each filter of a convolution (all dimensions but the first): the weights of a unit keep
    their sum. Yong et al., "Gradient Centralization: A New Optimization Technique for Deep Neural Networks", 2020,
    https://arxiv.org/abs/2004.01461, eq. 1. Biases and scales stay as they are.
    """

    convolutions_only: bool = False
    """Leave matrices alone (the paper's choice for some optimizers); only filters are centered."""

    neutral: ClassVar["Centralize | None"] = None
    neutral_reason: ClassVar[str] = "it has no strength: gradients are centered, or they are not"

    def __call__(self, parameters: FlatParameters, norm: float | Tensor) -> Mapping[str, float | Tensor]:
        least = 3 if self.convolutions_only else 2
        done: set[str] = set()
        for stack in parameters.stacks:
            if all(parameters.view(parameters.grad, name).ndim >= least for name in stack.names):
                grads = stack.view(parameters.grad)
                grads.sub_(grads.mean(dim=2, keepdim=True))
                done.update(stack.names)
        for name in parameters.names:
            grad = parameters.view(parameters.grad, name)
            if name not in done and grad.ndim >= least:
                rows = grad.flatten(1)
                rows.sub_(rows.mean(dim=1, keepdim=True))
        return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientNoise:
    """Gaussian noise of a falling strength added to the gradient: its variance at update t, from 0, is eta / (1 + t)^gamma.

    Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015, https://arxiv.org/abs/1511.06807, eq. 1
    and 2. The draws are a function of the run's seed and the update, the same on every rank. Put a clip after it or before it: the paper
    clips first. Returns {"noise": the standard deviation}.
    """

    eta: float = 0.3
    """Variance of the noise on each element at the first update: the paper tries 0.01, 0.3 and 1. 0 adds none."""
    gamma: float = 0.55
    """How fast it falls."""

    draws: ClassVar[bool] = True
    neutral: ClassVar["GradientNoise"]

    def __post_init__(self) -> None:
        if not 0 <= self.eta < float("inf"):
            raise ValueError(f"GradientNoise.eta must be finite and >= 0, got {self.eta}")
        if not 0 <= self.gamma < float("inf"):
            raise ValueError(f"GradientNoise.gamma must be finite and >= 0, got {self.gamma}")

    def deviation(self, updates: int) -> float:
        """The standard deviation after so many updates."""
        return sqrt(self.eta / (1 + updates) ** self.gamma)

    def __call__(self, parameters: FlatParameters, norm: float | Tensor, *, key: int, updates: int) -> Mapping[str, float | Tensor]:
        if self.eta == 0:
            return {"noise": 0.0}
        deviation = self.deviation(updates)
        generator = torch.Generator(parameters.grad.device).manual_seed(key)
        for name in parameters.names:  # not on the whole buffer: its padding stays 0
            grad = parameters.view(parameters.grad, name)
            grad.add_(torch.randn(grad.shape, generator=generator, dtype=grad.dtype, device=grad.device), alpha=deviation)
        return {"noise": deviation}


GradientNoise.neutral = GradientNoise(eta=0.0)
