"""SOAP: Adam in the coordinates that Shampoo's matrices say a weight matrix has.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024, https://arxiv.org/abs/2409.11321, algorithms 3 and 4.
Shapes: P scalars of all parameters; K matrices of m rows and n columns.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.adamw import adam_memory, adam_outside_stacks
from torchstone.optim.checks import check_betas, check_count, check_finite, check_positive
from torchstone.optim.flat import FlatParameters, Stack
from torchstone.optim.pieces import counter
from torchstone.optim.shampoo import side_matrices


@dataclass(frozen=True, kw_only=True, slots=True)
class SOAP:
    """AdamW whose second average is kept, and whose step is taken, in the eigenbasis of L and R; plain AdamW for everything else.

    G' = QL^T G QR, v = beta2 v + (1 - beta2) G'^2, m' = QL^T m QR, w -= lr QL (m' / (sqrt(v) + eps)) QR^T, with m and v bias-corrected;
    then L = beta2 L + (1 - beta2) G G^T, R likewise, and every `every` updates QL and QR are brought up to date by one round of
    orthogonal iteration. As in the authors' code a matrix's first gradient only makes its bases. A hidden matrix has two dimensions or
    more (filters count as [out, the rest]) and belongs neither to an nn.Embedding nor to a module called `head`; a side longer than
    `max_size` keeps its own coordinates. On accelerators a step waits for `found_inf`.

    Memory as AdamW's ("exp_avg_sq" of a hidden matrix is in its basis); for each stack of equal matrices, by its first name, "left" and
    "right" [K, m, m] and [K, n, n], "left_basis" and "right_basis", "updates" 0-d.
    """

    lr: float = 3e-3
    """Learning rate."""
    betas: tuple[float, ...] = (0.95, 0.95)
    """Decay of the average of the gradient; of its square, and of L and R."""
    eps: float = 1e-8
    """Added to the root of the second average."""
    every: int = 10
    """Updates from one renewal of the bases to the next."""
    max_size: int = 10_000
    """The longest side that gets a basis."""
    weight_decay: float = 0.01
    """Share of a weight, times lr, taken away each step."""

    neutral: ClassVar["SOAP | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("SOAP.lr", self.lr)
        check_betas("SOAP.betas", self.betas)
        check_positive("SOAP.eps", self.eps)
        check_count("SOAP.every", self.every)
        check_count("SOAP.max_size", self.max_size)
        check_finite("SOAP.weight_decay", self.weight_decay)

    def init(self, parameters: FlatParameters) -> Memory:
        memory = adam_memory(parameters)
        for stack in parameters.stacks:
            memory |= side_matrices(stack, parameters, self.max_size, ("left", "left_basis"), ("right", "right_basis"))
            memory[f"updates.{stack.names[0]}"] = counter(parameters)
        return memory

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        if found_inf is not None and found_inf.item():
            return
        memory["step"].add_(1)
        for stack in parameters.stacks:
            if stack.span.lr_scale != 0:  # else frozen
                self._matrix_step(stack, parameters, memory)
        adam_outside_stacks(self, parameters, memory, lr=self.lr)

    def _matrix_step(self, stack: Stack, parameters: FlatParameters, memory: Memory) -> None:
        name, (beta1, beta2) = stack.names[0], self.betas
        data, average, square = (stack.view(flat) for flat in (parameters.data, memory["exp_avg"], memory["exp_avg_sq"]))
        grad = stack.view(parameters.grad)
        grad = grad.to(torch.promote_types(grad.dtype, torch.float32))
        seen = memory[f"updates.{name}"].add_(1).item()
        left, right = memory.get(f"left.{name}"), memory.get(f"right.{name}")
        left_basis, right_basis = memory.get(f"left_basis.{name}"), memory.get(f"right_basis.{name}")
        if seen > 1:
            t = seen - 1  # updates with this one; the first gradient made none
            average.lerp_(grad.to(average.dtype), 1 - beta1)
            square.mul_(beta2).add_(turned(grad, left_basis, right_basis).square_(), alpha=1 - beta2)
            step = turned(average.to(grad.dtype), left_basis, right_basis)
            step.div_(square.div(1 - beta2**t).sqrt_().add_(self.eps)).div_(1 - beta1**t)
            lr = self.lr * stack.span.lr_scale
            data.mul_(1 - lr * self.weight_decay * stack.span.decay_scale)
            data.sub_(turned(step, _transposed(left_basis), _transposed(right_basis)), alpha=lr)
        for side, wide in ((left, grad), (right, grad.mT)):
            if side is not None:
                side.baddbmm_(wide, wide.mT, beta=beta2, alpha=1 - beta2)
        for dim, (side, basis) in enumerate(((left, left_basis), (right, right_basis)), 1):
            if side is None or basis is None:
                continue
            if seen == 1:
                basis.copy_(torch.linalg.eigh(side.double()).eigenvectors.flip(2))
            elif (seen - 1) % self.every == 0:
                renewed, order = iterated(side, basis)
                basis.copy_(renewed)
                square.copy_(square.take_along_dim(order.unsqueeze(3 - dim), dim))


def turned(stack: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """left^T G right: a matrix in the bases; a missing one is the identity. Never `stack` itself."""
    result = stack if left is None else left.mT @ stack
    if right is not None:
        result = result @ right
    return result.clone() if result is stack else result


def iterated(matrix: Float[Tensor, "K m m"], basis: Float[Tensor, "K m m"]) -> tuple[Float[Tensor, "K m m"], Tensor]:
    """One round of orthogonal iteration from `basis`, its columns first put in the order of their eigenvalues, largest first.

    Returns the new basis and that order [K, m]: what lies in the old coordinates is put in the same.
    """
    product = matrix @ basis
    order = (basis * product).sum(1).argsort(dim=1, descending=True, stable=True)
    return torch.linalg.qr(product.take_along_dim(order.unsqueeze(1), 2)).Q, order


def _transposed(basis: Tensor | None) -> Tensor | None:
    return None if basis is None else basis.mT
