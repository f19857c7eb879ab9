"""Log loss and Brier score against scikit-learn, and closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from torchstone.metrics import Brier, LogLoss


def value(metric: Any, outputs: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> float:
    weight = torch.ones(len(outputs)) if weight is None else weight
    (found,) = metric.result(metric.measure(outputs, target, weight, torch.zeros(len(outputs)))).values()
    return found


@settings(max_examples=40)
@given(n=st.integers(2, 60), seed=st.integers(0, 10_000), classes=st.integers(2, 5))
def test_against_scikit_learn(n: int, seed: int, classes: int) -> None:
    g = torch.Generator().manual_seed(seed)
    outputs, target = 3 * torch.randn(n, classes, generator=g), torch.randint(0, classes, (n,), generator=g)
    weight = (torch.arange(n) % 3 != 1).float()
    counted = weight.numpy() > 0
    p, truth = outputs.double().softmax(1).numpy()[counted], target.numpy()[counted]
    labels = np.arange(classes)
    assert value(LogLoss(), outputs, target, weight) == pytest.approx(log_loss(truth, p, labels=labels), abs=1e-12)
    if classes == 2:
        expected = brier_score_loss(truth, p[:, 1], pos_label=1)
    else:
        expected = brier_score_loss(truth, p, labels=labels)
    assert value(Brier(), outputs, target, weight) == pytest.approx(expected, abs=1e-12)


def test_probability_targets() -> None:
    outputs, q = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([[0.2, 0.8, 0.0]]).expand(7, 3)
    log_p = outputs.double().log_softmax(1)
    assert value(LogLoss(), outputs, q) == pytest.approx(float(-(q.double() * log_p).sum(1).mean()), abs=1e-12)
    assert value(Brier(), outputs, q) == pytest.approx(float((log_p.exp() - q.double()).square().sum(1).mean()), abs=1e-12)


def test_closed_forms() -> None:
    for classes in (2, 10):
        flat = torch.zeros(4, classes)
        target = torch.arange(4) % classes
        assert value(LogLoss(), flat, target) == pytest.approx(math.log(classes), abs=1e-15)
        half = 0.5 if classes == 2 else 1.0
        assert value(Brier(), flat, target) == pytest.approx(half * ((1 - 1 / classes) ** 2 + (classes - 1) / classes**2), abs=1e-15)
    sure = torch.tensor([[0.0, -math.inf]])
    assert value(LogLoss(), sure, torch.tensor([0])) == value(Brier(), sure, torch.tensor([0])) == 0
    assert value(LogLoss(), sure, torch.tensor([1])) == math.inf and value(Brier(), sure, torch.tensor([1])) == 1
