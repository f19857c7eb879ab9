"""What a score finds at every threshold: the ROC and precision-recall curves, the area under them, ties handled exactly.

Hanley and McNeil, "The Meaning and Use of the Area under a ROC Curve", Radiology 143, 1982; Fawcett, "An introduction to ROC
analysis", 2006, https://doi.org/10.1016/j.patrec.2005.10.010; Davis and Goadrich, "The Relationship Between Precision-Recall and ROC
Curves", ICML 2006 (why average precision is a sum and no trapezoid). Shapes: M terms, P positives, N negatives, T distinct scores.

Nothing here walks the ranking: the scores of positives and negatives are sorted apart, and where they fall among each other is looked
up. Equal scores are one threshold. The counts are integers, so the order in which the terms came changes no bit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Found:
    """What is called positive at each threshold, the highest first: the terms whose score is at least it."""

    threshold: Float[np.ndarray, " T"]
    """Every score that occurs, once."""
    true_positive: Int64[np.ndarray, " T"]
    false_positive: Int64[np.ndarray, " T"]
    positives: int
    negatives: int

    @property
    def recall(self) -> Float64[np.ndarray, " T"]:
        """TP / P, also called the true positive rate; NaN without positives."""
        return _share(self.true_positive, self.positives)

    @property
    def false_positive_rate(self) -> Float64[np.ndarray, " T"]:
        """FP / N; NaN without negatives."""
        return _share(self.false_positive, self.negatives)

    @property
    def precision(self) -> Float64[np.ndarray, " T"]:
        """TP / (TP + FP): at every threshold at least one term is called positive."""
        return self.true_positive / (self.true_positive + self.false_positive)


def found(scores: Float[np.ndarray, " M"], positive: Bool[np.ndarray, " M"]) -> Found:
    """The counts at every threshold; all curves are made of them. ValueError if a score is NaN."""
    if np.isnan(scores).any():
        raise ValueError("a score is NaN, so the terms have no order")
    positives, negatives = _sorted_apart(scores, positive)
    merged = np.sort(np.concatenate([positives, negatives]), kind="stable")  # two sorted runs: merged, not sorted anew
    last = np.ones(len(merged), dtype=bool)
    last[1:] = merged[1:] != merged[:-1]
    threshold = merged[last][::-1]
    return Found(
        threshold,
        len(positives) - np.searchsorted(positives, threshold[::-1], "left")[::-1],
        len(negatives) - np.searchsorted(negatives, threshold[::-1], "left")[::-1],
        len(positives),
        len(negatives),
    )


def roc_auc(scores: Float[np.ndarray, " M"], positive: Bool[np.ndarray, " M"]) -> float:
    """The area under the ROC curve: how often a positive scores above a negative, equal scores counting half.

    NaN without positives or negatives, or where a score is NaN.

    >>> roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    positives, negatives = _sorted_apart(scores, positive)
    if not len(positives) or not len(negatives) or np.isnan(positives[-1]) or np.isnan(negatives[-1]):
        return NAN
    # Needles in order are found fast; of the smaller group among the larger.
    few, many = (positives, negatives) if len(positives) <= len(negatives) else (negatives, positives)
    below = int(np.searchsorted(many, few, "left").sum()) + int(np.searchsorted(many, few, "right").sum())
    whole = 2 * len(few) * len(many)  # an integer beyond float64's
    return (below if few is positives else whole - below) / whole


def average_precision(scores: Float[np.ndarray, " M"], positive: Bool[np.ndarray, " M"]) -> float:
    """sum_n (R_n - R_(n-1)) P_n over the thresholds, highest first: the mean, over the positives, of the precision at their score.

    NaN without positives, or where a score is NaN.

    >>> average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.8333333333333333
    """
    positives, negatives = _sorted_apart(scores, positive)
    if not len(positives) or np.isnan(positives[-1]) or (len(negatives) and np.isnan(negatives[-1])):
        return NAN
    first = np.ones(len(positives), dtype=bool)
    first[1:] = positives[1:] != positives[:-1]  # recall moves at the positives' scores alone
    place = np.flatnonzero(first)
    true_positive = len(positives) - place
    false_positive = len(negatives) - np.searchsorted(negatives, positives[place], "left")
    each = np.diff(place, append=len(positives))
    return float((each * (true_positive / (true_positive + false_positive))).sum() / len(positives))


def drawn(curve: Found, points: int) -> dict[str, Any]:
    """Both curves as lists to draw, by at most `points` thresholds evenly spread along the ROC curve, its ends among them."""
    tpr, fpr = np.nan_to_num(curve.recall), np.nan_to_num(curve.false_positive_rate)
    kept = np.arange(len(tpr))
    if len(kept) > points:
        way = tpr + fpr
        kept = np.unique(np.searchsorted(way, np.linspace(way[0], way[-1], points)).clip(0, len(way) - 1))
    columns = {
        "threshold": curve.threshold,
        "false_positive_rate": curve.false_positive_rate,
        "recall": curve.recall,
        "precision": curve.precision,
    }
    return {name: column[kept].astype(np.float64).tolist() for name, column in columns.items()}


def _sorted_apart(scores: Float[np.ndarray, " M"], positive: Bool[np.ndarray, " M"]) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the positives and of the negatives, each rising; NaN last."""
    return np.sort(scores[positive]), np.sort(scores[~positive])


def _share(part: np.ndarray, of: int) -> Float64[np.ndarray, " T"]:
    return part / of if of else np.full(len(part), np.nan)
