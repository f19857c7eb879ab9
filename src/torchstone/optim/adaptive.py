"""Rates that follow the size of each weight's own gradients: Adagrad, Adadelta, RMSprop.

Weight decay is coupled in all three: weight_decay * w is added to the gradient.
Shapes: P scalars of all parameters.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.checks import check_finite, check_positive, check_share
from torchstone.optim.flat import FlatParameters
from torchstone.optim.pieces import coupled, pieces, undone


@dataclass(frozen=True, kw_only=True, slots=True)
class Adagrad:
    """Each weight's rate falls with the sum of its squared gradients: s += g^2, w -= lr g / (sqrt(s) + eps). Memory: "sum" [P].

    Duchi, Hazan and Singer, "Adaptive Subgradient Methods", 2011, https://jmlr.org/papers/v12/duchi11a.html, section 1.1, diagonal
    form; conventions as torch.optim.Adagrad (whose lr_decay is a schedule here).
    """

    lr: float = 0.02
    """Learning rate: how far a weight moves in its first step. The paper names none; torch's 0.01 is slow on short runs."""
    initial: float = 0.0
    """What the sums start at."""
    eps: float = 1e-10
    """Added to the root of the sum."""
    weight_decay: float = 0.0
    """Added to the gradient as weight_decay * w."""

    neutral: ClassVar["Adagrad | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("Adagrad.lr", self.lr)
        check_finite("Adagrad.initial", self.initial)
        check_positive("Adagrad.eps", self.eps)
        check_finite("Adagrad.weight_decay", self.weight_decay)

    def init(self, parameters: FlatParameters) -> Memory:
        return {"sum": torch.full_like(parameters.data, self.initial)}

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        with undone(found_inf, parameters.data, memory["sum"]):
            for span, (data, grad, squares) in pieces(parameters, memory["sum"]):
                grad = coupled(grad, data, self.weight_decay * span.decay_scale)
                squares.addcmul_(grad, grad)
                data.addcdiv_(grad, squares.sqrt().add_(self.eps), value=-self.lr * span.lr_scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class Adadelta:
    """Steps in the units of the weights: dw = g RMS(dw) / RMS(g), w -= lr dw. Memory: "square" and "delta" [P], both averages of squares.

    Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, https://arxiv.org/abs/1212.5701, algorithm 1; RMS(x) = sqrt(E[x^2] + eps).
    """

    lr: float = 1.0
    """Factor on the step; the paper has none: 1."""
    rho: float = 0.95
    """Decay of both averages."""
    eps: float = 1e-6
    """Under both roots: the first steps are about sqrt(eps) long, and grow from there."""
    weight_decay: float = 0.0
    """Added to the gradient as weight_decay * w."""

    neutral: ClassVar["Adadelta | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("Adadelta.lr", self.lr)
        check_share("Adadelta.rho", self.rho)
        check_positive("Adadelta.eps", self.eps)
        check_finite("Adadelta.weight_decay", self.weight_decay)

    def init(self, parameters: FlatParameters) -> Memory:
        return {"square": torch.zeros_like(parameters.data), "delta": torch.zeros_like(parameters.data)}

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        with undone(found_inf, parameters.data, *memory.values()):
            for span, (data, grad, square, moved) in pieces(parameters, memory["square"], memory["delta"]):
                grad = coupled(grad, data, self.weight_decay * span.decay_scale)
                square.mul_(self.rho).addcmul_(grad, grad, value=1 - self.rho)
                delta = moved.add(self.eps).sqrt_().div_(square.add(self.eps).sqrt_()).mul_(grad)
                moved.mul_(self.rho).addcmul_(delta, delta, value=1 - self.rho)
                data.add_(delta, alpha=-self.lr * span.lr_scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rmsprop:
    """The gradient over the root of its mean square: v = alpha v + (1 - alpha) g^2, w -= lr g / (sqrt(v) + eps).

    Memory: "square" [P]; "mean" [P] where centered; "momentum" [P] where there is momentum.
    Tieleman and Hinton, "Lecture 6.5: RMSProp", 2012, https://www.cs.toronto.edu/~hinton/coursera/lecture6/lec6.pdf; centered (the
    variance in place of the mean square): Graves, "Generating Sequences", 2013, https://arxiv.org/abs/1308.0850, eq. 38 to 45;
    conventions as torch.optim.RMSprop.
    """

    lr: float = 1e-3
    """Learning rate; the lecture's."""
    alpha: float = 0.9
    """Decay of the mean square; the lecture's (torch: 0.99)."""
    momentum: float = 0.0
    """Share of the last update kept in the next."""
    centered: bool = False
    """Divide by the standard deviation, not by the root of the mean square."""
    eps: float = 1e-8
    """Added to the root."""
    weight_decay: float = 0.0
    """Added to the gradient as weight_decay * w."""

    neutral: ClassVar["Rmsprop | None"] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"

    def __post_init__(self) -> None:
        check_finite("Rmsprop.lr", self.lr)
        check_share("Rmsprop.alpha", self.alpha)
        check_share("Rmsprop.momentum", self.momentum)
        check_positive("Rmsprop.eps", self.eps)
        check_finite("Rmsprop.weight_decay", self.weight_decay)

    def init(self, parameters: FlatParameters) -> Memory:
        names = ["square", *(["mean"] if self.centered else []), *(["momentum"] if self.momentum else [])]
        return {name: torch.zeros_like(parameters.data) for name in names}

    def step(self, parameters: FlatParameters, memory: Memory, *, found_inf: Tensor | None = None) -> None:
        with undone(found_inf, parameters.data, *memory.values()):
            for span, (data, grad, *rest) in pieces(parameters, *memory.values()):
                own = dict(zip(memory, rest, strict=True))
                grad = coupled(grad, data, self.weight_decay * span.decay_scale)
                spread = own["square"].mul_(self.alpha).addcmul_(grad, grad, value=1 - self.alpha)
                if "mean" in own:
                    mean = own["mean"].lerp_(grad, 1 - self.alpha)
                    spread = spread.addcmul(mean, mean, value=-1).clamp_(min=0)  # rounding may take it below
                root = spread.sqrt().add_(self.eps)
                if "momentum" in own:
                    data.add_(own["momentum"].mul_(self.momentum).addcdiv_(grad, root), alpha=-self.lr * span.lr_scale)
                else:
                    data.addcdiv_(grad, root, value=-self.lr * span.lr_scale)
