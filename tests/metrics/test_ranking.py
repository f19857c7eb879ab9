"""The areas over classes against scikit-learn; classes that never occur; two classes; the state is rows."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from torchstone.core.protocols import Facts, RowMetric, VectorShape
from torchstone.metrics import Accuracy, AveragePrecision, Curves, RocAuc
from torchstone.metrics.ranking import LEFT_OUT

AVERAGES = ("macro", "weighted", "micro")


def value(metric: Any, outputs: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> Any:
    weight = torch.ones(len(outputs)) if weight is None else weight
    (found,) = metric.result(metric.measure(outputs, target, weight, torch.zeros(len(outputs)))).values()
    return found


@settings(max_examples=20)
@given(n=st.integers(12, 60), seed=st.integers(0, 10_000), tied=st.booleans())
def test_against_scikit_learn(n: int, seed: int, tied: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    target = torch.cat([torch.arange(4), torch.randint(0, 4, (n - 4,), generator=g)])  # every class occurs
    outputs = torch.randn(n, 4, generator=g)
    outputs = outputs.round() if tied else outputs
    weight = torch.cat([torch.ones(4), (torch.arange(n - 4) % 3 != 1).float()])
    counted = weight.numpy() > 0
    p, truth = outputs.double().softmax(1).numpy()[counted], target.numpy()[counted]
    for average in AVERAGES:
        expected = roc_auc_score(truth, p, multi_class="ovr", average=average)
        assert value(RocAuc(average=average), outputs, target, weight) == pytest.approx(expected, abs=1e-12)
        expected = average_precision_score(np.eye(4)[truth], p, average=average)
        assert value(AveragePrecision(average=average), outputs, target, weight) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=20)
@given(n=st.integers(1, 40), seed=st.integers(0, 10_000), there=st.integers(1, 5))
def test_classes_that_never_occur_are_left_out(n: int, seed: int, there: int) -> None:
    """The means over the classes for which scikit-learn has an answer, one against the rest."""
    g = torch.Generator().manual_seed(seed)
    target, outputs = torch.randint(0, there, (n,), generator=g), torch.randn(n, 5, generator=g)
    p, truth = outputs.double().softmax(1).numpy(), target.numpy()
    present = [c for c in range(5) if (truth == c).any()]
    ranked = [c for c in present if (truth != c).any()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        areas = [roc_auc_score(truth == c, p[:, c]) for c in ranked]
        precisions = [average_precision_score(truth == c, p[:, c]) for c in present]
    assert value(RocAuc(), outputs, target) == pytest.approx(np.mean(areas) if areas else math.nan, abs=1e-12, nan_ok=True)
    assert value(AveragePrecision(), outputs, target) == pytest.approx(np.mean(precisions), abs=1e-12)
    for c, curve in enumerate(value(Curves(), outputs, target)):
        assert curve["count"] == (truth == c).sum()
        assert math.isnan(curve["average_precision"]) == (c not in present)
        assert math.isnan(curve["roc_auc"]) == (c not in ranked)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), tied=st.booleans())
def test_two_classes_have_one_curve(seed: int, tied: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    target = torch.cat([torch.arange(2), torch.randint(0, 2, (28,), generator=g)])
    outputs = torch.randn(30, 2, generator=g)
    outputs = outputs.round() if tied else outputs
    p = outputs.double().softmax(1).numpy()[:, 1]
    for average in AVERAGES:
        assert value(RocAuc(average=average), outputs, target) == pytest.approx(roc_auc_score(target, p), abs=1e-12)
        assert value(AveragePrecision(average=average), outputs, target) == pytest.approx(average_precision_score(target, p), abs=1e-12)
    (curve,) = value(Curves(classes=("no", "yes")), outputs, target)
    assert curve["class"] == "yes" and curve["roc_auc"] == value(RocAuc(), outputs, target)


def test_the_state_is_rows_and_shares_the_outputs() -> None:
    outputs, target = torch.randn(6, 3), torch.arange(6) % 3
    weight = torch.tensor([1.0, 0, 1, 1, 0, 2])
    first, second = (metric.measure(outputs, target, weight, weight) for metric in (RocAuc(), AveragePrecision()))
    assert first["outputs"].data_ptr() == second["outputs"].data_ptr() == outputs.data_ptr()  # kept once, however many metrics
    assert first["target"].tolist() == [0, LEFT_OUT, 2, 0, LEFT_OUT, 2]
    assert isinstance(RocAuc(), RowMetric) and not isinstance(Accuracy(), RowMetric)
    assert RocAuc().measure(outputs.bfloat16(), target, weight, weight)["outputs"].dtype == torch.float32


def test_what_is_no_number_is_undefined() -> None:
    outputs, target = torch.randn(6, 3), torch.arange(6) % 3
    outputs[2] = math.nan
    assert math.isnan(value(RocAuc(), outputs, target)) and math.isnan(value(AveragePrecision(average="micro"), outputs, target))
    assert "recall" not in value(Curves(), outputs, target)[0]


def test_names_of_the_classes_and_bad_settings() -> None:
    facts = Facts(inputs=VectorShape(4), classes=("a", "b", "c"))
    assert Curves().resolve(facts).classes == facts.classes
    assert Curves(classes=("x",)).resolve(facts).classes == ("x",)
    with pytest.raises(ValueError, match="Curves.points must be >= 2, got 1"):
        Curves(points=1)
