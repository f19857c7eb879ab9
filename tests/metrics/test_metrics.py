"""The laws of every metric: any cut of the split, in any order, gives the same sums; nothing counted is undefined."""

import itertools
import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchstone.metrics import (
    Accuracy,
    AtThreshold,
    AveragePrecision,
    BitsPerByte,
    Brier,
    CalibrationError,
    ClassReport,
    Confusion,
    Curves,
    FBeta,
    LogLoss,
    Matthews,
    MeanLoss,
    Metric,
    Precision,
    Recall,
    Reliability,
    RocAuc,
    Specificity,
    TopK,
)
from torchstone.train.evaluate import Sums

METRICS = [
    *(Accuracy(), TopK(k=2), MeanLoss(), Confusion(), ClassReport(), CalibrationError(), BitsPerByte(), Reliability(), LogLoss(), Brier()),
    *(Precision(), Recall(average="weighted"), FBeta(beta=2.0), Specificity(average="micro"), Matthews(), AtThreshold(threshold=0.3)),
]
ROWS = [RocAuc(), AveragePrecision(average="micro"), Curves()]
C = 5


def split_of(n: int, seed: int, tokens: int | None = None) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    shape = (n,) if tokens is None else (n, tokens)
    outputs = torch.randn(*shape, C, generator=g)
    target = torch.randint(0, C, shape, generator=g)
    weight = torch.randint(0, 3, shape, generator=g).float()
    target[weight == 0] = -100
    return outputs, target, weight, torch.rand(*shape, generator=g)


def summed(metric: Metric, parts: list[tuple[torch.Tensor, ...]]) -> dict[str, torch.Tensor]:
    total = Sums(metric)
    for part in parts:
        total.add(metric.measure(*part))
    return total.merged()


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 20), max_size=6), tokens=st.sampled_from([None, 3]), data=st.data())
def test_any_cut_in_any_order(metric: Metric, seed: int, cuts: list[int], tokens: int | None, data: Any) -> None:
    whole = split_of(20, seed, tokens)
    edges = [0, *sorted(cuts), 20]  # equal edges: empty shards
    shards = [tuple(t[a:b] for t in whole) for a, b in itertools.pairwise(edges)]
    one = metric.measure(*whole)
    many = summed(metric, data.draw(st.permutations(shards)))
    assert one.keys() == many.keys()
    for name, value in one.items():
        assert value.dtype in (torch.int64, torch.float64)
        if value.dtype == torch.int64:
            assert torch.equal(value, many[name])
        else:
            torch.testing.assert_close(many[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
def test_batches_of_one(metric: Metric) -> None:
    whole = split_of(40, 0)
    one, many = metric.measure(*whole), summed(metric, [tuple(t[i : i + 1] for t in whole) for i in range(40)])
    for name in one:
        torch.testing.assert_close(many[name], one[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
def test_padding_rows_change_nothing(metric: Metric) -> None:
    """pytorch#25162: rows of weight 0 may hold anything."""
    whole = split_of(8, 0)
    padding = (torch.full((3, C), float("nan")), torch.full((3,), 4), torch.zeros(3), torch.full((3,), float("nan")))
    padded = tuple(torch.cat(pair) for pair in zip(whole, padding, strict=True))
    one, other = metric.measure(*whole), metric.measure(*padded)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-15, atol=0)


@pytest.mark.parametrize("metric", ROWS, ids=lambda metric: type(metric).__name__)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 20), max_size=6), tokens=st.sampled_from([None, 3]), data=st.data())
def test_rows_of_any_cut_in_any_order_give_the_same_bits(metric: Metric, seed: int, cuts: list[int], tokens: int | None, data: Any) -> None:
    whole = split_of(20, seed, tokens)
    edges = [0, *sorted(cuts), 20]
    shards = [tuple(t[a:b] for t in whole) for a, b in itertools.pairwise(edges)]
    padding = (torch.full((3, *whole[0].shape[1:]), float("nan")), torch.full((3, *whole[1].shape[1:]), 4))
    shards.append((*padding, torch.zeros(3, *whole[2].shape[1:]), torch.zeros(3, *whole[3].shape[1:])))
    one = metric.result(metric.measure(*whole))
    many = metric.result(summed(metric, data.draw(st.permutations(shards))))
    assert repr(one) == repr(many)  # NaN is itself here


@pytest.mark.parametrize("metric", METRICS + ROWS, ids=lambda metric: type(metric).__name__)
def test_nothing_counted_is_undefined(metric: Metric) -> None:
    for n in (0, 4):
        outputs, _, _, terms = split_of(n, 0)
        result = metric.result(metric.measure(outputs, torch.full((n,), -100), torch.zeros(n), terms))
        for name, value in result.items():
            if name == "confusion":
                assert value == [[0] * C] * C
            elif name == "per_class":
                assert [row["class"] for row in value] == ["0", "1", "2", "3", "4"] and not any(row["count"] for row in value)
                assert all(math.isnan(row[column]) for row in value for column in ("precision", "recall", "f1"))
            elif name == "reliability":
                assert not any(point["count"] for point in value) and all(math.isnan(point["accuracy"]) for point in value)
            elif name == "curves":
                assert all(curve["count"] == 0 and math.isnan(curve["roc_auc"]) and not curve["recall"] for curve in value)
            else:
                assert math.isnan(value)


def test_every_metric_is_tried() -> None:
    assert {type(metric) for metric in METRICS + ROWS} == set(get_args(Metric))
