"""Adam with decoupled weight decay.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, https://arxiv.org/abs/1412.6980, algorithm 1; Loshchilov and
Hutter, "Decoupled Weight Decay Regularization", 2019, https://arxiv.org/abs/1711.05101, algorithm 2; as in torch a step takes away
lr * weight_decay.
Shapes: P scalars of all parameters.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.checks import check_betas, check_finite, check_positive
from torchstone.optim.flat import FlatParameters
from torchstone.optim.kernels import adam_


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW:
    """Adam with decoupled weight decay. Memory: "exp_avg" and "exp_avg_sq" [P], "step" 0-d."""

    lr: float = 1e-3
    """Learning rate: roughly how far a weight moves in a step."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the root of the second average."""
    weight_decay: float = 0.01
    """Share of a weight, times lr, taken away each step."""

    neutral: ClassVar["AdamW | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("AdamW.lr", self.lr)
        check_betas("AdamW.betas", self.betas)
        check_positive("AdamW.eps", self.eps)
        check_finite("AdamW.weight_decay", self.weight_decay)

    def init(self, parameters: FlatParameters) -> Memory:
        return adam_memory(parameters)

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        adam_step(self, parameters, memory, decoupled=True, found_inf=found_inf)


class AdamNumbers(Protocol):
    """What `adam_step` reads of a part."""

    @property
    def lr(self) -> float: ...
    @property
    def betas(self) -> tuple[float, ...]: ...
    @property
    def eps(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def adam_step(part: AdamNumbers, parameters: FlatParameters, memory: Memory, *, decoupled: bool, found_inf: Tensor | None) -> None:
    """One update of every group that is not frozen; the decay beside the gradient (AdamW) or in it (Adam)."""
    cut, step = parameters.cut, memory["step"].add_(1)
    averages, squares = cut(memory["exp_avg"]), cut(memory["exp_avg_sq"])
    pieces = zip(parameters.groups, cut(parameters.data), cut(parameters.grad), averages, squares, strict=True)
    for group, data, grad, exp_avg, exp_avg_sq in pieces:
        if group.lr_scale == 0:  # frozen
            continue
        adam_(
            [data],
            [grad],
            [exp_avg],
            [exp_avg_sq],
            step,
            lr=part.lr * group.lr_scale,
            betas=(part.betas[0], part.betas[1]),
            eps=part.eps,
            weight_decay=part.weight_decay * group.decay_scale,
            decoupled=decoupled,
            found_inf=found_inf,
        )
    if found_inf is not None:
        step.sub_(found_inf)


def adam_outside_stacks(
    part: AdamNumbers, parameters: FlatParameters, memory: Memory, *, lr: float, found_inf: Tensor | None = None
) -> None:
    """AdamW's update, at the rate `lr`, of what is in no stack of matrices; memory["step"] counts this update already."""
    for span, start, stop in parameters.outside_stacks:
        if span.lr_scale == 0:  # frozen
            continue
        adam_(
            [parameters.data[start:stop]],
            [parameters.grad[start:stop]],
            [memory["exp_avg"][start:stop]],
            [memory["exp_avg_sq"][start:stop]],
            memory["step"],
            lr=lr * span.lr_scale,
            betas=(part.betas[0], part.betas[1]),
            eps=part.eps,
            weight_decay=part.weight_decay * span.decay_scale,
            found_inf=found_inf,
        )


def adam_memory(parameters: FlatParameters) -> Memory:
    """Zeros for both averages, and the number of updates taken, as float32 where the kernels want it: beside the parameters."""
    return {
        "exp_avg": torch.zeros_like(parameters.data),
        "exp_avg_sq": torch.zeros_like(parameters.data),
        "step": torch.zeros((), dtype=torch.float32, device=parameters.data.device),
    }
