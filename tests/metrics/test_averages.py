"""Precision, recall, F, specificity and Matthews' correlation against scikit-learn and the outcomes counted one by one."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    balanced_accuracy_score,
    fbeta_score,
    matthews_corrcoef,
    multilabel_confusion_matrix,
    precision_score,
    recall_score,
)

from torchstone.metrics import ClassReport, FBeta, Matthews, Precision, Recall, Specificity
from torchstone.metrics.counts import class_counts, outcomes

C = 6
AVERAGES = ("macro", "weighted", "micro")


def value(metric: Any, outputs: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> float:
    weight = torch.ones(len(outputs)) if weight is None else weight
    (found,) = metric.result(metric.measure(outputs, target, weight, torch.zeros(len(outputs)))).values()
    return found


def said(named: list[int], classes: int) -> torch.Tensor:
    """Outputs whose largest is at those classes."""
    return torch.eye(classes)[named]


def test_trap_g1() -> None:
    """A false negative is a miss: truly the class, and not said to be. Swapped with a false positive, recall would be precision.

    Truth: 3 of class 1 among 10. Said: 4 times class 1, 2 of them rightly.
    """
    truth = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    outputs = said([1, 1, 0, 1, 1, 0, 0, 0, 0, 0], 2)
    found = outcomes(class_counts(outputs, truth, torch.ones(10)))
    positive, called = truth.numpy() == 1, outputs.argmax(1).numpy() == 1
    assert found.true_positive[1] == (positive & called).sum() == 2
    assert found.false_positive[1] == (~positive & called).sum() == 2  # called and not so: a false alarm
    assert found.false_negative[1] == (positive & ~called).sum() == 1  # so and not called: a miss
    assert found.true_negative[1] == (~positive & ~called).sum() == 5
    # What one class's false positive is, is the other's false negative.
    assert found.false_positive.tolist() == found.false_negative[::-1].tolist()
    row = ClassReport().result(class_counts(outputs, truth, torch.ones(10)))["per_class"][1]
    assert row["recall"] == 2 / 3 == recall_score(truth, called)
    assert row["precision"] == 2 / 4 == precision_score(truth, called)
    assert row["recall"] != row["precision"]


@settings(max_examples=40)
@given(
    n=st.integers(1, 60), seed=st.integers(0, 10_000), there=st.integers(1, C), soft=st.booleans(), beta=st.sampled_from([0.5, 1.0, 2.0])
)
def test_against_scikit_learn(n: int, seed: int, there: int, soft: bool, beta: float) -> None:
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(0, there, (n,), generator=g)
    outputs = torch.randn(n, C, generator=g) + torch.nn.functional.one_hot(target, C)
    weight = (torch.arange(n) % 4 != 1).float()
    given_target = torch.nn.functional.one_hot(target, C).float() if soft else target
    counted = weight.numpy() > 0
    truth, named = target.numpy()[counted], outputs.argmax(1).numpy()[counted]
    present, every = np.unique(truth), np.arange(C)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for average in AVERAGES:
            labels = every if average == "micro" else present
            options = {"labels": labels, "average": average}
            undefined = {**options, "zero_division": np.nan}
            assert value(Precision(average=average), outputs, given_target, weight) == pytest.approx(
                precision_score(truth, named, **undefined), abs=1e-12, nan_ok=True
            )
            assert value(Recall(average=average), outputs, given_target, weight) == pytest.approx(
                recall_score(truth, named, **undefined), abs=1e-12
            )
            assert value(FBeta(beta=beta, average=average), outputs, given_target, weight) == pytest.approx(
                fbeta_score(truth, named, beta=beta, **options), abs=1e-12
            )
        if len(present) > 1:
            expected = matthews_corrcoef(truth, named)
            found = value(Matthews(), outputs, given_target, weight)
            assert (math.isnan(found) and len(np.unique(named)) == 1) or found == pytest.approx(expected, abs=1e-12)
        assert value(Recall(), outputs, given_target, weight) == pytest.approx(balanced_accuracy_score(truth, named), abs=1e-12)


@given(n=st.integers(1, 40), seed=st.integers(0, 10_000))
def test_specificity_is_the_recall_of_the_rest(n: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    target, outputs = torch.randint(0, 4, (n,), generator=g), torch.randn(n, 4, generator=g)
    named = outputs.argmax(1)
    table = multilabel_confusion_matrix(target, named, labels=np.arange(4)).astype(float)
    tn, fp, count = table[:, 0, 0], table[:, 0, 1], np.bincount(target, minlength=4)
    with np.errstate(invalid="ignore"):
        each = tn / (tn + fp)
    there = (count > 0) & ~np.isnan(each)
    assert value(Specificity(average="micro"), outputs, target) == pytest.approx(tn.sum() / (tn + fp).sum(), abs=1e-12)
    if there.any():
        assert value(Specificity(), outputs, target) == pytest.approx(each[there].mean(), abs=1e-12)
        weighted = np.average(each[there], weights=count[there])
        assert value(Specificity(average="weighted"), outputs, target) == pytest.approx(weighted, abs=1e-12)
    else:
        assert math.isnan(value(Specificity(), outputs, target))


def test_micro_of_one_label_a_term_is_the_accuracy() -> None:
    outputs, target = said([0, 2, 1, 1, 0], 3), torch.tensor([0, 1, 1, 2, 0])
    for metric in (Precision(average="micro"), Recall(average="micro"), FBeta(beta=3.0, average="micro")):
        assert value(metric, outputs, target) == pytest.approx(0.6, abs=1e-15)


def test_a_class_that_never_occurs_is_undefined_and_not_0() -> None:
    """Classes 2 and 3 never occur, class 1 is never named: macro means are over 0 and 1 alone."""
    outputs, target = said([0, 0, 2], 4), torch.tensor([0, 1, 0])
    assert value(Precision(), outputs, target) == 0.5  # of class 0; class 1 has none
    assert value(Recall(), outputs, target) == 0.25
    assert value(FBeta(), outputs, target) == pytest.approx((0.5 + 0) / 2)
    only = torch.zeros(3, dtype=torch.int64)
    assert math.isnan(value(Specificity(), said([0, 0, 0], 4), only))
    assert math.isnan(value(Matthews(), said([0, 1, 0], 4), only))  # scikit-learn: 0
    assert math.isnan(value(Matthews(), said([0, 0, 0], 4), torch.tensor([0, 1, 0])))
    assert math.isnan(value(Precision(), said([1, 1, 1], 4), only))


def test_matthews_ends_and_large_counts() -> None:
    target = torch.tensor([0, 1, 0, 1])
    assert value(Matthews(), said([0, 1, 0, 1], 2), target) == 1
    assert value(Matthews(), said([1, 0, 1, 0], 2), target) == -1
    assert value(Matthews(), said([0, 0, 1, 1], 2), target) == 0
    sums = {
        "correct": torch.tensor([2**40, 2**40 - 1]),
        "named": torch.tensor([2**40, 2**40]),
        "count": torch.tensor([2**40 + 1, 2**40 - 1]),
    }
    assert Matthews().result(sums)["mcc"] == pytest.approx(1 - 2.0**-40, rel=1e-12)  # int64 would overflow


def test_names_and_bad_settings() -> None:
    sums = class_counts(said([0, 1], 2), torch.tensor([0, 1]), torch.ones(2))
    assert [*FBeta(beta=0.5, average="weighted").result(sums)] == ["weighted_f0.5"]
    assert [*FBeta().result(sums), *Precision(average="micro").result(sums)] == ["macro_f1", "micro_precision"]
    with pytest.raises(ValueError, match="FBeta.beta must be > 0 and finite, got 0"):
        FBeta(beta=0)
