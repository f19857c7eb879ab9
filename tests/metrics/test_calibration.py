"""Calibration error against its closed form, a plain loop of the paper's equation, and scikit-learn's calibration curve."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from torchstone.metrics import CalibrationError


def error(outputs: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None, bins: int = 15) -> float:
    metric = CalibrationError(bins=bins)
    weight = torch.ones(len(outputs)) if weight is None else weight
    return metric.result(metric.measure(outputs, target, weight, torch.zeros(len(outputs))))["calibration_error"]


@pytest.mark.parametrize("p, right", [(0.8, 80), (0.8, 50), (0.99, 0), (0.51, 100)])
def test_one_confidence_is_the_distance_to_the_accuracy(p: float, right: int) -> None:
    outputs = torch.tensor([p, 1 - p], dtype=torch.float64).log().expand(100, 2)
    target = (torch.arange(100) >= right).long()
    assert error(outputs, target) == pytest.approx(abs(right / 100 - p), abs=1e-12)


def test_two_bins_do_not_cancel() -> None:
    """Confidence 0.9 and right half of the time, 0.6 and always right: (0.4 + 0.4) / 2, where the means agree to 0."""
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]], dtype=torch.float64)
    target = torch.tensor([0, 1, 0, 0])
    assert error(p.log(), target) == pytest.approx(0.4, abs=1e-12)
    assert error(p.log(), target, bins=1) == pytest.approx(0.0, abs=1e-12)


@given(n=st.integers(1, 60), seed=st.integers(0, 10_000), bins=st.integers(1, 20))
def test_against_a_plain_loop(n: int, seed: int, bins: int) -> None:
    g = torch.Generator().manual_seed(seed)
    outputs, target = 2 * torch.randn(n, 4, generator=g), torch.randint(0, 4, (n,), generator=g)
    weight = (torch.arange(n) % 3 != 1).float()
    counted = weight.numpy() > 0
    p = outputs.double().softmax(1).numpy()[counted]
    confidence, right = p.max(1), p.argmax(1) == target.numpy()[counted]
    expected = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert error(outputs, target, weight, bins) == pytest.approx(expected, abs=1e-12)


def test_against_scikit_learn_s_curve() -> None:
    g = torch.Generator().manual_seed(0)
    outputs, target = 2 * torch.randn(500, 3, generator=g), torch.randint(0, 3, (500,), generator=g)
    p = outputs.double().softmax(1).numpy()
    confidence, right = p.max(1), p.argmax(1) == target.numpy()
    accuracy, mean = calibration_curve(right, confidence, n_bins=15, strategy="uniform")
    share = np.histogram(confidence, bins=15, range=(0, 1))[0] / 500
    expected = (share[share > 0] * np.abs(accuracy - mean)).sum()
    assert error(outputs, target) == pytest.approx(expected, abs=1e-12)


def test_certainty_and_what_is_no_number() -> None:
    sure = torch.tensor([[1e4, 0.0], [1e4, 0.0]])
    assert error(sure, torch.tensor([0, 1])) == 0.5
    assert math.isnan(error(torch.full((2, 2), math.nan), torch.tensor([0, 1])))
    with pytest.raises(ValueError, match="CalibrationError.bins must be >= 1, got 0"):
        CalibrationError(bins=0)
