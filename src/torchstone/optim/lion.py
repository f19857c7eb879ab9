"""Lion: every weight moves by the rate or not at all, in the direction of the sign of a momentum.

Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, https://arxiv.org/abs/2302.06675, program 1.
Shapes: P scalars of all parameters.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.checks import check_betas, check_finite
from torchstone.optim.flat import FlatParameters
from torchstone.optim.kernels import sgd_
from torchstone.optim.pieces import pieces, undone


@dataclass(frozen=True, kw_only=True, slots=True)
class Lion:
    """Evolved sign momentum: w -= lr (sign(beta1 m + (1 - beta1) g) + weight_decay w), then m = beta2 m + (1 - beta2) g.

    Memory: "exp_avg" [P]. The paper asks for a rate 3 to 10 times smaller than AdamW's, and a decay as much larger.
    """

    lr: float = 1e-3
    """Learning rate: how far every weight moves in a step. The paper's code has 1e-4, for runs of many thousand steps."""
    betas: tuple[float, ...] = (0.9, 0.99)
    """Share of the momentum in the direction, and what it keeps of itself."""
    weight_decay: float = 0.0
    """Share of a weight, times lr, taken away each step."""

    neutral: ClassVar["Lion | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("Lion.lr", self.lr)
        check_betas("Lion.betas", self.betas)
        check_finite("Lion.weight_decay", self.weight_decay)

    def init(self, parameters: FlatParameters) -> Memory:
        return {"exp_avg": torch.zeros_like(parameters.data)}

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        beta1, beta2 = self.betas
        with undone(found_inf, memory["exp_avg"]):
            for span, (data, grad, average) in pieces(parameters, memory["exp_avg"]):
                sign = torch.lerp(average, grad, 1 - beta1).sign_()
                # SGD's coupled decay of a sign is the decoupled one: both act before any scaling.
                sgd_(
                    [data],
                    [sign],
                    [],
                    lr=self.lr * span.lr_scale,
                    momentum=0.0,
                    nesterov=False,
                    weight_decay=self.weight_decay * span.decay_scale,
                    found_inf=found_inf,
                )
                average.lerp_(grad, 1 - beta2)
