"""A rate for each tensor from the norms of its weights and of its step: LARS over momentum, LAMB over Adam. For very large batches.

Where one of the two norms is 0 (a bias that starts at 0), their ratio counts as 1.
Shapes: P scalars of all parameters, T tensors of a run.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.adamw import adam_memory
from torchstone.optim.checks import check_betas, check_finite, check_positive, check_share
from torchstone.optim.flat import FlatParameters, Run
from torchstone.optim.kernels import adam_
from torchstone.optim.pieces import coupled, undone


@dataclass(frozen=True, kw_only=True, slots=True)
class LARS:
    """Momentum whose gradient is scaled, tensor by tensor, to a share of the weights' size.

    v = momentum v + lr r (g + weight_decay w), w -= v, with r = trust |w| / (|g| + weight_decay |w|). The rate is inside the velocity, as
    in the paper. Memory: "momentum" [P]. You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017,
    https://arxiv.org/abs/1708.03888, algorithm 1.
    """

    lr: float = 12.0
    """Learning rate: a tensor moves by lr * trust of its size in a step. Ours: the paper's depends on the batch (1.4 to 32)."""
    momentum: float = 0.9
    """Share of the last update kept in the next."""
    weight_decay: float = 5e-4
    """Added to the gradient as weight_decay * w; the paper's."""
    trust: float = 1e-3
    """How far we trust a tensor to move; the paper's."""

    neutral: ClassVar["LARS | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("LARS.lr", self.lr)
        check_share("LARS.momentum", self.momentum)
        check_finite("LARS.weight_decay", self.weight_decay)
        check_finite("LARS.trust", self.trust)

    def init(self, parameters: FlatParameters) -> Memory:
        return {"momentum": torch.zeros_like(parameters.data)}

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        with undone(found_inf, parameters.data, memory["momentum"]):
            for run in parameters.runs:
                if run.span.lr_scale == 0:  # frozen
                    continue
                data, grad, velocity = (flat[run.start : run.stop] for flat in (parameters.data, parameters.grad, memory["momentum"]))
                decay = self.weight_decay * run.span.decay_scale
                of_weights, of_grads = norms(data, run), norms(grad, run)
                ratio = ratios(of_weights, of_grads + decay * of_weights if decay else of_grads)
                add_scaled(
                    velocity.mul_(self.momentum), coupled(grad, data, decay), run, ratio * (self.lr * run.span.lr_scale * self.trust)
                )
                data.sub_(velocity)


@dataclass(frozen=True, kw_only=True, slots=True)
class LAMB:
    """AdamW's step, each tensor's scaled to the size of its weights: w -= lr |w| / |u| u, u = m / (sqrt(v) + eps) + weight_decay w.

    Memory as AdamW's. You et al., "Large Batch Optimization for Deep Learning", 2020, https://arxiv.org/abs/1904.00962, algorithm 2 with
    phi the identity.
    """

    lr: float = 2e-2
    """Learning rate: the share of its size by which a tensor moves in a step. Ours: the paper's depends on the batch (5e-5 to 1e-2)."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    eps: float = 1e-6
    """Added to the root of the second average."""
    weight_decay: float = 0.01
    """Added to the step as weight_decay * w, before its size is taken."""

    neutral: ClassVar["LAMB | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("LAMB.lr", self.lr)
        check_betas("LAMB.betas", self.betas)
        check_positive("LAMB.eps", self.eps)
        check_finite("LAMB.weight_decay", self.weight_decay)

    def init(self, parameters: FlatParameters) -> Memory:
        return adam_memory(parameters)

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        flats = (parameters.data, parameters.grad, memory["exp_avg"], memory["exp_avg_sq"])
        with undone(found_inf, parameters.data, *memory.values()):
            step = memory["step"].add_(1)
            for run in parameters.runs:
                if run.span.lr_scale == 0:  # frozen
                    continue
                data, grad, average, square = (flat[run.start : run.stop] for flat in flats)
                # AdamW of rate 1 on -decay * w leaves -u there: one pass for both averages and the step.
                down = data.mul(-self.weight_decay * run.span.decay_scale)
                adam_(
                    [down],
                    [grad],
                    [average],
                    [square],
                    step,
                    lr=1.0,
                    betas=(self.betas[0], self.betas[1]),
                    eps=self.eps,
                    weight_decay=0.0,
                )
                add_scaled(data, down, run, ratios(norms(data, run), norms(down, run)) * (self.lr * run.span.lr_scale))


def norms(flat: Float[Tensor, " R"], run: Run) -> Float[Tensor, " T"]:
    """The Euclidean norm of each tensor of the run; padding is 0."""
    found = [torch.linalg.vector_norm(stack, dim=1) for stack in run.views(flat)]
    return found[0] if len(found) == 1 else torch.cat(found)


def ratios(above: Float[Tensor, " T"], below: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """above / below; 1 where either is 0."""
    return torch.where((above > 0) & (below > 0), above / below, 1.0)


def add_scaled(flat: Float[Tensor, " R"], step: Float[Tensor, " R"], run: Run, factors: Float[Tensor, " T"]) -> None:
    """Adds to each tensor of the run, in place, its part of `step` times its factor."""
    rows = factors.unsqueeze(1)
    for stack, steps, factor in zip(run.views(flat), run.views(step), rows.split([k for k, _ in run.stacks]), strict=True):
        stack.addcmul_(steps, factor)
