"""Shampoo: the gradient of a matrix between the roots of two small matrices that hold its curvature by rows and by columns.

Gupta, Koren and Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization", 2018, https://arxiv.org/abs/1802.09568, algorithm 1.
Shapes: P scalars of all parameters; K matrices of m rows and n columns.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.checks import check_count, check_finite, check_positive, check_share
from torchstone.optim.flat import FlatParameters, Stack
from torchstone.optim.pieces import counter, coupled


@dataclass(frozen=True, kw_only=True, slots=True)
class Shampoo:
    """L += G G^T, R += G^T G, w -= lr L^-1/4 G R^-1/4 for hidden matrices; the same in its diagonal form for everything else.

    A hidden matrix has two dimensions or more (filters count as [out, the rest]) and belongs neither to an nn.Embedding nor to a
    module called `head`. A side longer than `max_size` has no matrix; the exponent of the one that is left is -1/2. For the rest, and for
    grafting: s += g^2, g / sqrt(s + eps). Momentum acts on what is preconditioned: v = momentum v + d, w -= lr v. The roots are made at
    the first update and at every `every`-th from there. On accelerators a step waits for `found_inf`.

    Memory: "momentum" and "squares" [P]; for each stack of equal matrices, by its first name, "left" and "right" [K, m, m] and
    [K, n, n], "left_root" and "right_root", "updates" 0-d. Anil et al., "Scalable Second Order Optimization for Deep Learning", 2020,
    https://arxiv.org/abs/2002.09018, for grafting and rare roots; Shi et al., "A Distributed Data-Parallel PyTorch Implementation of the
    Distributed Shampoo Optimizer", 2023, https://arxiv.org/abs/2309.06497, for averages in place of sums.
    """

    lr: float = 0.01
    """Learning rate. Ours: the paper tuned it for each network."""
    momentum: float = 0.9
    """Share of the last update kept in the next; the paper's."""
    beta2: float = 1.0
    """Decay of L, R and s; 1 sums, as in the paper. Below 1 they are bias-corrected averages."""
    every: int = 10
    """Updates from one computation of the roots to the next."""
    max_size: int = 2048
    """The longest side that gets a matrix."""
    graft: Literal["none", "sgd", "diagonal"] = "none"
    """Whose size each matrix's step takes: its own, the gradient's, or the diagonal form's."""
    eps: float = 1e-4
    """What L and R start with on the diagonal, and s."""
    weight_decay: float = 0.0
    """Added to the gradient as weight_decay * w."""

    neutral: ClassVar["Shampoo | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("Shampoo.lr", self.lr)
        check_share("Shampoo.momentum", self.momentum)
        if not 0 <= self.beta2 <= 1:
            raise ValueError(f"Shampoo.beta2 must be in [0, 1], got {self.beta2}")
        check_count("Shampoo.every", self.every)
        check_count("Shampoo.max_size", self.max_size)
        if self.graft not in ("none", "sgd", "diagonal"):
            raise ValueError(f"Shampoo.graft must be none, sgd or diagonal, got {self.graft!r}")
        check_positive("Shampoo.eps", self.eps)
        check_finite("Shampoo.weight_decay", self.weight_decay)

    def init(self, parameters: FlatParameters) -> Memory:
        memory = {name: torch.zeros_like(parameters.data) for name in ("momentum", "squares")} | {"step": counter(parameters)}
        for stack in parameters.stacks:
            memory |= side_matrices(stack, parameters, self.max_size, ("left", "left_root"), ("right", "right_root"))
            memory[f"updates.{stack.names[0]}"] = counter(parameters)
        return memory

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        if found_inf is not None and found_inf.item():
            return
        taken = memory["step"].add_(1).item()
        for stack in parameters.stacks:
            if stack.span.lr_scale != 0:  # else frozen
                self._matrix_step(stack, parameters, memory, taken)
        for span, start, stop in parameters.outside_stacks:
            if span.lr_scale == 0:
                continue
            data, grad, velocity, squares = (
                flat[start:stop] for flat in (parameters.data, parameters.grad, memory["momentum"], memory["squares"])
            )
            grad = coupled(grad, data, self.weight_decay * span.decay_scale)
            velocity.mul_(self.momentum).add_(self._diagonal(grad, squares, taken))
            data.add_(velocity, alpha=-self.lr * span.lr_scale)

    def _matrix_step(self, stack: Stack, parameters: FlatParameters, memory: Memory, taken: float) -> None:
        name = stack.names[0]
        data, velocity = stack.view(parameters.data), stack.view(memory["momentum"])
        grad = coupled(stack.view(parameters.grad), data, self.weight_decay * stack.span.decay_scale)
        updates = memory[f"updates.{name}"]
        due = updates.item() % self.every == 0
        updates.add_(1)
        sides = [side for side in ("left", "right") if f"{side}.{name}" in memory]
        direction = grad.to(torch.promote_types(grad.dtype, torch.float32))
        for side, wide in {"left": direction, "right": direction.mT}.items():
            if side in sides:
                statistic, root = memory[f"{side}.{name}"], memory[f"{side}_root.{name}"]
                statistic.baddbmm_(wide, wide.mT, beta=self.beta2, alpha=self._newest)
                if due:
                    root.copy_(inverse_root(statistic / self._correction(updates.item()), 2 * len(sides), self.eps))
        if self.graft == "diagonal":
            size = norm(self._diagonal(grad, stack.view(memory["squares"]), taken))
        else:
            size = norm(direction)
        if "left" in sides:
            direction = memory[f"left_root.{name}"] @ direction
        if "right" in sides:
            direction = direction @ memory[f"right_root.{name}"]
        if self.graft != "none":
            direction = direction * (size / norm(direction).clamp(min=1e-30))
        velocity.mul_(self.momentum).add_(direction)
        data.add_(velocity, alpha=-self.lr * stack.span.lr_scale)

    @property
    def _newest(self) -> float:
        """What the newest square counts."""
        return 1.0 if self.beta2 == 1 else 1 - self.beta2

    def _correction(self, taken: float) -> float:
        return 1.0 if self.beta2 == 1 else 1 - self.beta2**taken

    def _diagonal(self, grad: Tensor, squares: Tensor, taken: float) -> Tensor:
        squares.mul_(self.beta2).addcmul_(grad, grad, value=self._newest)
        return grad / squares.div(self._correction(taken)).add_(self.eps).sqrt_()


def side_matrices(stack: Stack, parameters: FlatParameters, max_size: int, left: tuple[str, ...], right: tuple[str, ...]) -> Memory:
    """Zeros [K, m, m] and [K, n, n] under the given names, for each side that is not too long; float32 or better."""
    count, rows, columns = stack.shape
    dtype = torch.promote_types(parameters.data.dtype, torch.float32)
    return {
        f"{name}.{stack.names[0]}": torch.zeros(count, size, size, dtype=dtype, device=parameters.data.device)
        for names, size in ((left, rows), (right, columns))
        for name in names
        if size <= max_size
    }


def inverse_root(statistic: Float[Tensor, "K m m"], order: int, eps: float) -> Float[Tensor, "K m m"]:
    """(S + eps I)^(-1 / order) of symmetric matrices, by eigenvalues in float64."""
    values, vectors = torch.linalg.eigh(statistic.double())
    return ((vectors * (values.clamp(min=0) + eps).pow(-1 / order).unsqueeze(1)) @ vectors.mT).to(statistic.dtype)


def norm(stack: Float[Tensor, "K m n"]) -> Float[Tensor, "K 1 1"]:
    return torch.linalg.vector_norm(stack, dim=(1, 2), keepdim=True)
