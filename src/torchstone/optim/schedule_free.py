"""Schedule-Free learning: an average of the iterates in place of a falling rate, so that the run needs no end in sight.

Defazio et al., "The Road Less Scheduled", 2024, https://arxiv.org/abs/2405.15682, eq. 3 to 5, algorithm 1.
Shapes: P scalars of all parameters, B of all buffers.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.checks import check_betas, check_finite, check_positive
from torchstone.optim.flat import FlatParameters
from torchstone.optim.kernels import adam_
from torchstone.optim.pieces import counter, number, pieces, undone


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleFree:
    """Three sequences: z takes the steps, x is the average of all z, and the gradient is taken at y between them.

    y = (1 - beta) z + beta x; z' = z - lr (d + weight_decay y), d the gradient at y (SGD) or that over its root mean square (AdamW,
    bias-corrected); x' = (1 - c) x + c z', c = lr_max^2 / sum of lr_max^2. The parameters are y; x is in the averaged model, which is
    what is evaluated and shipped (no `averaging` beside it), its batch norms' statistics recomputed first. Give it a rate that only
    warms up. Memory: "z" [P], "exp_avg_sq" [P] (AdamW), "step", "lr_max" and "weight_sum" 0-d.
    """

    form: Literal["adamw", "sgd"] = "adamw"
    """What takes the steps."""
    lr: float = 2.5e-3
    """Learning rate; the authors' for AdamW (they name 1.0 for SGD, a larger one than SGD's own)."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Where y lies between z (0) and x (1); decay of the average of the squared gradient."""
    eps: float = 1e-8
    """AdamW: added to the root of the average."""
    weight_decay: float = 0.0
    """Share of y, times lr, that z loses each step."""

    neutral: ClassVar["ScheduleFree | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"
    recompute_batch_norm: ClassVar[bool] = True
    """The statistics of the running model are y's, not x's."""

    def __post_init__(self) -> None:
        if self.form not in ("adamw", "sgd"):
            raise ValueError(f"ScheduleFree.form must be adamw or sgd, got {self.form!r}")
        check_finite("ScheduleFree.lr", self.lr)
        check_betas("ScheduleFree.betas", self.betas)
        check_positive("ScheduleFree.betas.0", self.betas[0])  # at 0 y says nothing of x
        check_positive("ScheduleFree.eps", self.eps)
        check_finite("ScheduleFree.weight_decay", self.weight_decay)

    def init(self, parameters: FlatParameters) -> Memory:
        exact = torch.float32 if parameters.data.device.type == "mps" else torch.float64
        memory = {"z": parameters.data.clone()}
        if self.form == "adamw":
            memory["exp_avg_sq"] = torch.zeros_like(parameters.data)
        return memory | {
            "step": counter(parameters),
            "lr_max": counter(parameters).to(exact),
            "weight_sum": counter(parameters).to(exact),
        }

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        beta = self.betas[0]
        with undone(found_inf, parameters.data, *memory.values()):
            step = memory["step"].add_(1)
            newest = number(memory["lr_max"].clamp_(min=self.lr)) ** 2
            total = number(memory["weight_sum"].add_(newest))
            # y' = (1 - beta) z' + beta x' with x' put in: that far from x to z'.
            far = 1 - beta * (1 - _ratio(newest, total))
            far = far.to(parameters.data.dtype) if isinstance(far, Tensor) else far
            square = memory.get("exp_avg_sq")
            flats = (memory["z"],) if square is None else (memory["z"], square)
            for span, (y, grad, z, *squares) in pieces(parameters, *flats):
                lr, decay = self.lr * span.lr_scale, self.weight_decay * span.decay_scale
                x = y.lerp_(z, 1 - 1 / beta)
                if decay:  # a share of y, which was (1 - beta) z + beta x
                    z.mul_(1 - lr * decay * (1 - beta)).add_(x, alpha=-lr * decay * beta)
                if squares:  # of no momentum: the kernel's first average is the gradient itself
                    adam_([z], [grad], [grad], squares, step, lr=lr, betas=(0.0, self.betas[1]), eps=self.eps, weight_decay=0.0)
                else:
                    z.add_(grad, alpha=-lr)
                x.lerp_(z, far)

    def evaluation_weights(self, average: FlatParameters, parameters: FlatParameters, memory: Memory) -> None:
        """x = z + (y - z) / beta into `average`, and the buffers as they are."""
        torch.lerp(memory["z"], parameters.data, 1 / self.betas[0], out=average.data)
        if average.buffers is not None and parameters.buffers is not None:
            mine, new = [average.buffers], [parameters.buffers]
        else:
            mine, new = list(average.float_buffers.values()), list(parameters.float_buffers.values())
        mine, new = [*mine, *average.other_buffers.values()], [*new, *parameters.other_buffers.values()]
        if mine:
            torch._foreach_copy_(mine, new)


def _ratio(newest: Any, total: float | Tensor) -> Any:
    """newest / total; 0 while the rate has been 0: the average waits."""
    if isinstance(total, Tensor):
        return torch.where(total > 0, newest / total, 0.0)
    return newest / total if total > 0 else 0.0
