"""Negative log-likelihoods where the model gives the distribution's parameters: of classes, counts, and numbers with a spread.

Gaussian: Nix & Weigend, "Estimating the Mean and Variance of the Target Probability Distribution", 1994.
Shapes: `...` the terms, C classes, F features.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import Facts
from torchstone.losses import class_weights
from torchstone.losses.class_weights import Weighting
from torchstone.losses.layouts import Gaussian
from torchstone.losses.regression import columns, value_weight
from torchstone.losses.targets import Target, expectation, full_precision, left_out, without_ignored


@dataclass(frozen=True, kw_only=True, slots=True)
class NLL:
    """-log p_y, of outputs that are log-probabilities already; over probabilities -sum_c q_c log p_c."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "it reads log-probabilities, which cross-entropy makes from logits"
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("log_probabilities",)

    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""
    class_weights: tuple[float, ...] = ()
    """How much each class counts; empty: all the same."""
    weighting: Weighting = "none"
    """class_weights are written from the training data. balanced: n / (C n_c); effective: as for `beta`."""
    beta: float = 0.999
    """With weighting=effective, in proportion to (1 - beta) / (1 - beta^n_c): how much samples of a class overlap (near 1: little)."""

    def __post_init__(self) -> None:
        class_weights.check(self)

    def resolve(self, facts: Facts) -> Self:
        return class_weights.resolved(self, facts)

    def __call__(self, log_p: Float[Tensor, "... C"], target: Target) -> Float[Tensor, "..."]:
        log_p = full_precision(log_p)
        if target.is_floating_point():
            weights = class_weights.weight_vector(self, log_p.dtype, log_p.device)
            return -expectation(target, log_p if weights is None else log_p * weights)
        safe, kept = without_ignored(target, self.ignore_index)
        return left_out(-expectation(safe, log_p), kept)

    def weight(self, target: Target) -> Float[Tensor, "..."]:
        return class_weights.term_weight(self, target)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoissonNll:
    """Mean over the features of exp(x) - k x for a count k and an output x, the logarithm of the rate; the constant log k! left out."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "the likelihood of counts is another objective than cross-entropy"
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("values",)

    log_rate: bool = True
    """The outputs are logarithms of rates; false: the rates themselves."""
    full: bool = False
    """Adds Stirling's approximation of log k! for counts above 1, so that losses of different counts compare."""

    def __call__(self, outputs: Float[Tensor, "... F"], target: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        outputs = full_precision(outputs)
        wanted = columns("PoissonNll", target, outputs).to(outputs.dtype)
        return F.poisson_nll_loss(outputs, wanted, log_input=self.log_rate, full=self.full, reduction="none").mean(dim=-1)

    def weight(self, target: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return value_weight(target)


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianNll:
    """Mean over the features of (log v + (t - m)^2 / v) / 2 for a mean m and a variance v (`losses.Gaussian`)."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "the likelihood of numbers with a spread is another objective than cross-entropy"
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("gaussian",)

    full: bool = False
    """Adds the constant log(2 pi) / 2."""
    floor: float = 1e-6
    """A smaller variance counts as this one (the gradient passes it all the same)."""

    def __post_init__(self) -> None:
        if not 0 < self.floor < float("inf"):
            raise ValueError(f"GaussianNll.floor must be finite and > 0, got {self.floor}")

    def __call__(self, outputs: Gaussian, target: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        mean, variance = full_precision(outputs.mean), full_precision(outputs.variance)
        wanted = columns("GaussianNll", target, mean).to(mean.dtype)
        return F.gaussian_nll_loss(mean, wanted, variance, full=self.full, eps=self.floor, reduction="none").mean(dim=-1)

    def weight(self, target: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return value_weight(target)
