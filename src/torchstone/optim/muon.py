"""Muon: momentum, orthogonalized, for the hidden matrices; AdamW for everything else.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, https://kellerjordan.github.io/posts/muon/ (Newton-Schulz
coefficients, Nesterov momentum as an average, scale sqrt(max(1, rows / columns))); decoupled decay as `torch.optim.Muon`.
Shapes: P scalars of all parameters; K matrices of m rows and n columns.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.adamw import adam_memory, adam_outside_stacks
from torchstone.optim.checks import check_betas, check_finite, check_positive, check_share
from torchstone.optim.flat import PIECE, FlatParameters, Stack
from torchstone.optim.pieces import undone

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a x + b x^3 + c x^5 takes any singular value in (0, 1] near 1 within five rounds; near, not to: about 0.7 to 1.2."""
LONG, ROUNDS = 1.5, 3
"""From this ratio of the sides on, rounds on the Gram matrix are fewer operations; and after so many of them x x^T is taken anew, before
what bfloat16 rounds off has grown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Muon:
    """Orthogonalized momentum. Memory as AdamW's; "exp_avg" is the momentum of the hidden matrices, whose "exp_avg_sq" stays 0.

    A hidden matrix has two dimensions or more (filters count as [out, the rest]) and belongs neither to an nn.Embedding nor to a
    module called `head`.
    """

    lr: float = 0.02
    """Learning rate of the hidden matrices: the spectral norm of a step."""
    momentum: float = 0.95
    """Decay of the average of the gradient."""
    nesterov: bool = True
    """Look ahead: orthogonalize the gradient moved by `momentum` towards the new average."""
    ns_steps: int = 5
    """Newton-Schulz rounds."""
    weight_decay: float = 0.0
    """Share of a weight, times its rate, taken away each step."""
    other_lr_scale: float = 0.1
    """The AdamW side's rate is lr times this."""
    betas: tuple[float, ...] = (0.9, 0.95)
    """AdamW side: decay of the averages of the gradient and of its square."""
    eps: float = 1e-8
    """AdamW side: added to the root of the second average."""

    neutral: ClassVar["Muon | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("Muon.lr", self.lr)
        check_share("Muon.momentum", self.momentum)
        if not 1 <= self.ns_steps < 100:
            raise ValueError(f"Muon.ns_steps must be in 1..99, got {self.ns_steps}")
        check_finite("Muon.weight_decay", self.weight_decay)
        check_finite("Muon.other_lr_scale", self.other_lr_scale)
        check_betas("Muon.betas", self.betas)
        check_positive("Muon.eps", self.eps)

    def init(self, parameters: FlatParameters) -> Memory:
        return adam_memory(parameters)

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        step = memory["step"].add_(1)
        for stack in parameters.stacks:
            if stack.span.lr_scale == 0:  # frozen
                continue
            self._orthogonal_step(stack, parameters, memory["exp_avg"], found_inf)
        adam_outside_stacks(self, parameters, memory, lr=self.lr * self.other_lr_scale, found_inf=found_inf)
        if found_inf is not None:
            step.sub_(found_inf)

    def _orthogonal_step(self, stack: Stack, parameters: FlatParameters, momentum: Tensor, found_inf: Tensor | None) -> None:
        rows, columns = stack.shape[1:]
        lr, decay = self.lr * stack.span.lr_scale, self.weight_decay * stack.span.decay_scale
        scale = max(1.0, rows / columns) ** 0.5
        at_once = stack.shape[0] if momentum.device.type != "cpu" else max(1, PIECE // (rows * columns))
        for weight, grad, average in zip(
            *(stack.view(flat).split(at_once) for flat in (parameters.data, parameters.grad, momentum)), strict=True
        ):
            with undone(found_inf, weight, average):
                average.lerp_(grad, 1 - self.momentum)
                direction = orthogonalized(grad.lerp(average, self.momentum) if self.nesterov else average, self.ns_steps)
                if decay:
                    weight.mul_(1 - lr * decay)
                weight.add_(direction, alpha=-lr * scale)


def orthogonalized(stack: Float[Tensor, "K m n"], steps: int = 5) -> Float[Tensor, "K m n"]:
    """U V^T of each matrix U S V^T, about: singular values come out between 0.7 and 1.2, zeros stay zeros.

    A round is x' = (a + b g + c g^2) x, g = x x^T (of tall ones the other way around); the result may be in bfloat16.
    """
    norm = torch.linalg.vector_norm(stack, dim=(1, 2), keepdim=True)
    x = (stack / norm.clamp(min=1e-7)).to(_working_dtype(stack))
    shorter, longer = sorted(x.shape[1:])
    if longer >= LONG * shorter:
        for done in range(0, steps, ROUNDS):
            x = _rounds_on_the_gram(x, min(ROUNDS, steps - done))
        return x
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = _gram(x)
        p = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, p, beta=a) if x.shape[1] > x.shape[2] else torch.baddbmm(x, p, x, beta=a)
    return x


def _rounds_on_the_gram(x: Float[Tensor, "K m n"], rounds: int) -> Float[Tensor, "K m n"]:
    """The same rounds on matrices of the shorter side alone: with p = a + b g + c g^2, which g commutes with, x' = p x has the Gram
    matrix p g p."""
    a, b, c = COEFFICIENTS
    gram, product = _gram(x), None
    for left in reversed(range(rounds)):
        p = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        p.diagonal(dim1=1, dim2=2).add_(a)
        product = p if product is None else torch.bmm(product, p)
        if left:
            gram = torch.bmm(torch.bmm(p, gram), p)
    assert product is not None
    return torch.bmm(x, product) if x.shape[1] > x.shape[2] else torch.bmm(product, x)


def _gram(x: Float[Tensor, "K m n"]) -> Float[Tensor, "K s s"]:
    """x x^T, or x^T x of tall matrices: of the shorter side."""
    return torch.bmm(x.mT, x) if x.shape[1] > x.shape[2] else torch.bmm(x, x.mT)


def _working_dtype(stack: Tensor) -> torch.dtype:
    """bfloat16, which five rounds bear, where its product is the faster one: on accelerators, and on CPUs with AVX512-bf16 from 64 up."""
    if stack.dtype == torch.float64:
        return torch.float64
    if stack.device.type != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if min(stack.shape[1:]) >= 64 and torch.cpu._is_avx512_bf16_supported() else torch.float32
