"""Precision, recall, F1 and their means against scikit-learn, classes that are never there or never named included."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_recall_fscore_support

from torchstone.metrics import ClassReport

C = 6


def report(outputs: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> dict[str, Any]:
    weight = torch.ones(len(outputs)) if weight is None else weight
    return ClassReport().result(ClassReport().measure(outputs, target, weight, torch.zeros(len(outputs))))


@given(n=st.integers(1, 60), seed=st.integers(0, 10_000), there=st.integers(1, C), soft=st.booleans())
def test_against_scikit_learn(n: int, seed: int, there: int, soft: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(0, there, (n,), generator=g)
    outputs = torch.randn(n, C, generator=g) + torch.nn.functional.one_hot(target, C)
    weight = (torch.arange(n) % 4 != 1).float()
    found = report(outputs, torch.nn.functional.one_hot(target, C).float() if soft else target, weight)
    counted = weight.numpy() > 0
    truth, named = target.numpy()[counted], outputs.argmax(1).numpy()[counted]
    present = np.unique(truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are named and never true
        balanced = balanced_accuracy_score(truth, named)
        precision, recall, f1, support = precision_recall_fscore_support(truth, named, labels=np.arange(C), zero_division=np.nan)
        macro = f1_score(truth, named, labels=present, average="macro")
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=1e-12)
    assert found["macro_f1"] == pytest.approx(macro, abs=1e-12)
    rows = found["per_class"]
    assert [row["count"] for row in rows] == support.tolist()
    np.testing.assert_allclose([row["precision"] for row in rows], precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose([row["recall"] for row in rows], recall, rtol=0, atol=1e-12)
    f1[support == 0] = np.nan  # scikit-learn says 0 where an absent class is named
    np.testing.assert_allclose([row["f1"] for row in rows], f1, rtol=0, atol=1e-12)


def test_absent_classes_are_undefined_and_left_out() -> None:
    """Truth a a b; named a c b: c is never true, d is neither."""
    outputs = torch.eye(4)[[0, 2, 1]]
    sums = ClassReport().measure(outputs, torch.tensor([0, 0, 1]), torch.ones(3), torch.zeros(3))
    found = ClassReport(classes=("a", "b", "c", "d")).result(sums)
    a, b, c, d = found["per_class"]
    assert a == {"class": "a", "count": 2, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)}
    assert b == {"class": "b", "count": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert (c["count"], c["precision"], d["count"]) == (0, 0.0, 0)
    assert all(math.isnan(x) for x in (c["recall"], c["f1"], d["precision"], d["recall"], d["f1"]))
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["macro_f1"] == pytest.approx(5 / 6)


def test_counts_stay_integers() -> None:
    sums = ClassReport().measure(torch.eye(2), torch.arange(2), torch.ones(2), torch.zeros(2))
    assert all(value.dtype == torch.int64 for value in sums.values())
    many = {name: value * (2**53 + 1) for name, value in sums.items()}
    assert [row["count"] for row in ClassReport().result(many)["per_class"]] == [2**53 + 1] * 2
