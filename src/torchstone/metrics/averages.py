"""Precision, recall, F, specificity as one number over the classes, and Matthews' correlation.

van Rijsbergen, "Information Retrieval", 1979, chapter 7 (F); Sokolova and Lapalme, "A systematic analysis of performance measures
for classification tasks", 2009, table 3 (macro and micro); Gorodkin, "Comparing two K-category assignments by a K-category
correlation coefficient", 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006, eq. 8 (Matthews). Shapes: `...` the terms, C classes.

    macro     the mean over the classes: each counts the same
    weighted  the same, each class counting as often as it occurs
    micro     of the outcomes of all classes together; with one label a term, precision, recall and F are all the accuracy

The means are over the classes that have terms and for which the number is defined: precision of a class that is never named is
not, nor anything of a class that never occurs. No class left: NaN. (scikit-learn: `labels=present, zero_division=nan`.)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from torchstone.metrics.counts import Outcomes, Target, class_counts, outcomes, shares

Average = Literal["macro", "weighted", "micro"]
REASON = "a metric reads and changes nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """`<average>_precision`: TP / (TP + FP), how much of what is named so is so."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = REASON

    average: Average = "macro"
    """macro: each class counts the same; weighted: as often as it occurs; micro: all outcomes together."""

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        return class_counts(outputs, target, weight)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        found = outcomes(sums)
        return {f"{self.average}_precision": over_classes(found, found.true_positive, found.false_positive, self.average)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recall:
    """`<average>_recall`: TP / (TP + FN), how much of what is so is found. macro is the balanced accuracy."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = REASON

    average: Average = "macro"
    """macro: each class counts the same; weighted: as often as it occurs; micro: all outcomes together."""

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        return class_counts(outputs, target, weight)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        found = outcomes(sums)
        return {f"{self.average}_recall": over_classes(found, found.true_positive, found.false_negative, self.average)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Specificity:
    """`<average>_specificity`: TN / (TN + FP), how much of what is not so is not called so."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = REASON

    average: Average = "macro"
    """macro: each class counts the same; weighted: as often as it occurs; micro: all outcomes together."""

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        return class_counts(outputs, target, weight)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        found = outcomes(sums)
        return {f"{self.average}_specificity": over_classes(found, found.true_negative, found.false_positive, self.average)}


@dataclass(frozen=True, kw_only=True, slots=True)
class FBeta:
    """`<average>_f<beta>`: (1 + beta^2) TP / ((1 + beta^2) TP + beta^2 FN + FP), the harmonic mean of precision and recall at beta = 1.

    0, not undefined, for a class that occurs and is never named.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = REASON

    beta: float = 1.0
    """How many times as much recall counts as precision."""
    average: Average = "macro"
    """macro: each class counts the same; weighted: as often as it occurs; micro: all outcomes together."""

    def __post_init__(self) -> None:
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"FBeta.beta must be > 0 and finite, got {self.beta}")

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        return class_counts(outputs, target, weight)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        found, square = outcomes(sums), self.beta**2
        hits, misses = (1 + square) * found.true_positive, square * found.false_negative + found.false_positive
        return {f"{self.average}_f{self.beta:g}": over_classes(found, hits, misses, self.average)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Matthews:
    """`mcc`: the correlation between what is said and what is so: 1 always right, 0 as by chance, -1 (two classes) always wrong.

    (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2)), of s terms c right, p_k named k and t_k truly k.
    Undefined (NaN) where only one class is named or only one occurs.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = REASON

    def measure(
        self, outputs: Float[Tensor, "... C"], target: Target, weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        return class_counts(outputs, target, weight)

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        correct, named, count = (sums[name].tolist() for name in ("correct", "named", "count"))
        total = sum(count)  # of Python's integers, so nothing is rounded before the division
        covariance = sum(correct) * total - sum(p * t for p, t in zip(named, count, strict=True))
        spread = (total**2 - sum(p**2 for p in named)) * (total**2 - sum(t**2 for t in count))
        return {"mcc": covariance / sqrt(spread) if spread else float("nan")}


def over_classes(found: Outcomes, good: np.ndarray, bad: np.ndarray, average: Average) -> float:
    """good / (good + bad), both given for each class, as one number."""
    if average == "micro":
        whole = float(good.sum()) + float(bad.sum())
        return float(good.sum()) / whole if whole else float("nan")
    return mean_over(shares(good, good + bad), found.count, average)


def mean_over(values: Float64[np.ndarray, " C"], count: Int64[np.ndarray, " C"], average: Literal["macro", "weighted"]) -> float:
    """The mean over the classes that have terms and a value."""
    defined = (count > 0) & ~np.isnan(values)
    if not defined.any():
        return float("nan")
    return float(np.average(values[defined], weights=count[defined] if average == "weighted" else None))
