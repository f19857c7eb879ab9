"""The mean loss is what the step computes over one large batch."""

import pytest
import torch
import torch.nn.functional as F

from torchstone.metrics import MeanLoss


def test_weighted_mean_is_torch() -> None:
    g = torch.Generator().manual_seed(0)
    logits, target = torch.randn(30, 4, generator=g, dtype=torch.float64), torch.randint(0, 4, (30,), generator=g)
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    terms, weight = F.cross_entropy(logits, target, reduction="none"), weights[target]
    halves = [MeanLoss().measure(logits[part], target[part], weight[part], terms[part]) for part in (slice(0, 13), slice(13, 30))]
    sums = {name: halves[0][name] + halves[1][name] for name in halves[0]}
    assert MeanLoss().result(sums)["loss"] == pytest.approx(float(F.cross_entropy(logits, target, weight=weights)), rel=1e-14)


def test_a_counted_nan_is_reported() -> None:
    sums = MeanLoss().measure(None, None, torch.ones(2), torch.tensor([1.0, float("nan")]))
    assert MeanLoss().result(sums)["loss"] != MeanLoss().result(sums)["loss"]
