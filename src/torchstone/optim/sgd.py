"""Stochastic gradient descent with momentum.

Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; Nesterov's form as in
Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013. The convention is torch's: v = momentum v + g,
w -= lr v.
Shapes: P scalars of all parameters.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.checks import check_finite, check_share
from torchstone.optim.flat import FlatParameters
from torchstone.optim.kernels import sgd_


@dataclass(frozen=True, kw_only=True, slots=True)
class SGD:
    """Stochastic gradient descent. Memory: "momentum" [P], absent where momentum is 0."""

    lr: float = 0.1
    """Learning rate."""
    momentum: float = 0.9
    """Share of the last update kept in the next; 0 is plain gradient descent."""
    nesterov: bool = False
    """Look ahead: use the gradient plus `momentum` times the new velocity."""
    weight_decay: float = 0.0
    """Added to the gradient as weight_decay * w (coupled, so momentum and rate act on it too)."""

    neutral: ClassVar["SGD | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("SGD.lr", self.lr)
        check_share("SGD.momentum", self.momentum)
        if self.nesterov and self.momentum == 0:
            raise ValueError("SGD.nesterov must be false where momentum is 0, got true")
        check_finite("SGD.weight_decay", self.weight_decay)

    def init(self, parameters: FlatParameters) -> Memory:
        return {"momentum": torch.zeros_like(parameters.data)} if self.momentum else {}

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        cut = parameters.cut
        velocities = cut(memory["momentum"]) if "momentum" in memory else [None] * len(parameters.groups)
        for group, data, grad, velocity in zip(parameters.groups, cut(parameters.data), cut(parameters.grad), velocities, strict=True):
            if group.lr_scale == 0:  # frozen
                continue
            sgd_(
                [data],
                [grad],
                [] if velocity is None else [velocity],
                lr=self.lr * group.lr_scale,
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=self.weight_decay * group.decay_scale,
                found_inf=found_inf,
            )
