"""Squared error, for regression and for classes.

On probabilities: Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950. On the outputs against one-hot
targets: Hui & Belkin, "Evaluation of Neural Architectures Trained with Square Loss vs Cross-Entropy", 2020,
https://arxiv.org/abs/2006.07322.
Shapes: `...` the terms (N examples), F features of a regression target = outputs of the model, or C classes.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from torchstone.losses.targets import full_precision, without_ignored


@dataclass(frozen=True, kw_only=True, slots=True)
class MSE:
    """Mean over the features of (output - target)^2, or the sum over the classes of (softmax(output) - target)^2.

    The target is floats of the outputs' shape (values, or probabilities), floats [...] for a model of one output, or class
    indices, which stand for their one-hot vectors. Floats of another shape are a ValueError, never broadcast.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "squared error is another objective than cross-entropy; none of its settings is equal to it"
    couples: ClassVar[bool] = False

    on: Literal["outputs", "probabilities"] = "outputs"
    """outputs: as they are, averaged over the features; probabilities: after a softmax, summed over the classes (Brier score)."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        if self.on not in ("outputs", "probabilities"):
            raise ValueError(f'MSE.on must be "outputs" or "probabilities", got {self.on!r}')

    def __call__(self, outputs: Float[Tensor, "... F"], target: Float[Tensor, "..."] | Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        outputs = full_precision(outputs)
        if target.is_floating_point():
            wanted, kept = _columns(target, outputs).to(outputs.dtype), None
        else:
            safe, kept = without_ignored(target, self.ignore_index)
            wanted = F.one_hot(safe.long(), outputs.shape[-1]).to(outputs.dtype)
        if self.on == "outputs":
            terms = (outputs - wanted).square().mean(dim=-1)
        else:
            terms = (outputs.softmax(dim=-1) - wanted).square().sum(dim=-1)
        return terms if kept is None else torch.where(kept, terms, 0)

    def weight(self, target: Float[Tensor, "..."] | Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        if not target.is_floating_point():
            return (target != self.ignore_index).float()
        return torch.ones(target.shape[:-1] if target.ndim > 1 else target.shape, device=target.device)


def _columns(target: Tensor, outputs: Tensor) -> Tensor:
    if outputs.shape[-1] == 1 and target.shape == outputs.shape[:-1]:
        return target.unsqueeze(-1)  # [N] against [N, 1] would broadcast to N x N
    if target.shape != outputs.shape:
        raise ValueError(f"MSE needs a target of the outputs' shape {tuple(outputs.shape)}, got {tuple(target.shape)}")
    return target
