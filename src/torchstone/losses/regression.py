"""Errors between outputs and values: squared, absolute, Huber's two. On classes, against their one-hot vectors.

On probabilities: Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950. On the outputs against one-hot
targets: Hui & Belkin, "Evaluation of Neural Architectures Trained with Square Loss vs Cross-Entropy", 2020,
https://arxiv.org/abs/2006.07322. Huber: "Robust Estimation of a Location Parameter", 1964. Smooth L1: Girshick, "Fast R-CNN",
2015, https://arxiv.org/abs/1504.08083, eq. 3.
Shapes: `...` the terms (N examples), F features of a regression target = outputs of the model, or C classes.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from torchstone.losses.targets import classes_named, full_precision, left_out, without_ignored

Values = Float[Tensor, "..."] | Int[Tensor, "..."]
OTHER = "the error of numbers is another objective than cross-entropy; none of its settings is equal to it"


@dataclass(frozen=True, kw_only=True, slots=True)
class MSE:
    """Mean over the features of (output - target)^2, or the sum over the classes of (softmax(output) - target)^2.

    The target is floats of the outputs' shape (values, or probabilities), floats [...] for a model of one output, or class
    indices, which stand for their one-hot vectors. Floats of another shape are a ValueError, never broadcast.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "squared error is another objective than cross-entropy; none of its settings is equal to it"
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("values", "classes")

    on: Literal["outputs", "probabilities"] = "outputs"
    """outputs: as they are, averaged over the features; probabilities: after a softmax, summed over the classes (Brier score)."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        if self.on not in ("outputs", "probabilities"):
            raise ValueError(f'MSE.on must be "outputs" or "probabilities", got {self.on!r}')

    def __call__(self, outputs: Float[Tensor, "... F"], target: Values) -> Float[Tensor, "..."]:
        outputs, wanted, kept = compared(self, outputs, target)
        if self.on == "outputs":
            return left_out((outputs - wanted).square().mean(dim=-1), kept)
        return left_out((outputs.softmax(dim=-1) - wanted).square().sum(dim=-1), kept)

    def weight(self, target: Values) -> Float[Tensor, "..."]:
        return value_weight(target, self.ignore_index)


@dataclass(frozen=True, kw_only=True, slots=True)
class MAE:
    """Mean over the features of |output - target|: torch's L1Loss."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("values", "classes")

    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __call__(self, outputs: Float[Tensor, "... F"], target: Values) -> Float[Tensor, "..."]:
        outputs, wanted, kept = compared(self, outputs, target)
        return left_out((outputs - wanted).abs().mean(dim=-1), kept)

    def weight(self, target: Values) -> Float[Tensor, "..."]:
        return value_weight(target, self.ignore_index)


@dataclass(frozen=True, kw_only=True, slots=True)
class Huber:
    """Mean over the features of d^2 / 2 where |d| <= delta and delta (|d| - delta / 2) beyond, d = output - target."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("values", "classes")

    delta: float = 1.0
    """Where the square turns into a line; the slope beyond."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        if not 0 < self.delta < float("inf"):
            raise ValueError(f"Huber.delta must be finite and > 0, got {self.delta}")

    def __call__(self, outputs: Float[Tensor, "... F"], target: Values) -> Float[Tensor, "..."]:
        outputs, wanted, kept = compared(self, outputs, target)
        return left_out(F.huber_loss(outputs, wanted, delta=self.delta, reduction="none").mean(dim=-1), kept)

    def weight(self, target: Values) -> Float[Tensor, "..."]:
        return value_weight(target, self.ignore_index)


@dataclass(frozen=True, kw_only=True, slots=True)
class SmoothL1:
    """Mean over the features of d^2 / (2 beta) where |d| < beta and |d| - beta / 2 beyond: Huber's at delta = beta, over beta."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("values", "classes")

    beta: float = 1.0
    """Where the square turns into a line of slope 1; 0 is the absolute error."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"SmoothL1.beta must be finite and >= 0, got {self.beta}")

    def __call__(self, outputs: Float[Tensor, "... F"], target: Values) -> Float[Tensor, "..."]:
        outputs, wanted, kept = compared(self, outputs, target)
        return left_out(F.smooth_l1_loss(outputs, wanted, beta=self.beta, reduction="none").mean(dim=-1), kept)

    def weight(self, target: Values) -> Float[Tensor, "..."]:
        return value_weight(target, self.ignore_index)


def compared(loss: MSE | MAE | Huber | SmoothL1, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """(the outputs in full precision, the numbers they should be, which terms are kept or None for all)."""
    outputs = full_precision(outputs)
    if target.is_floating_point():
        return outputs, columns(type(loss).__name__, target, outputs).to(outputs.dtype), None
    safe, kept = without_ignored(target, loss.ignore_index)
    with classes_named(target, outputs.shape[-1], loss.ignore_index):
        return outputs, F.one_hot(safe.long(), outputs.shape[-1]).to(outputs.dtype), kept


def value_weight(target: Tensor, ignore_index: int = -100) -> Tensor:
    """1 for each row of values, and for each class index that is not ignored."""
    if not target.is_floating_point():
        return (target != ignore_index).float()
    return torch.ones(target.shape[:-1] if target.ndim > 1 else target.shape, device=target.device)


def columns(name: str, target: Tensor, outputs: Tensor) -> Tensor:
    """The target in the outputs' shape: [N] stands for [N 1]. Any other shape is a ValueError."""
    if outputs.shape[-1] == 1 and target.shape == outputs.shape[:-1]:
        return target.unsqueeze(-1)  # [N] against [N, 1] would broadcast to N x N
    if target.shape != outputs.shape:
        raise ValueError(f"{name} needs a target of the outputs' shape {tuple(outputs.shape)}, got {tuple(target.shape)}")
    return target
