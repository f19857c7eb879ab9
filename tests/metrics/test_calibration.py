"""Calibration error, diagram and temperature: closed forms, the paper's equation as a plain loop, scikit-learn's curve, SciPy's search."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from torchstone.metrics import CalibrationError, Reliability, fit_temperature


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


# --- the diagram ---------------------------------------------------------------------------------------------------------


def test_the_diagram_is_scikit_learn_s_and_adds_up_to_the_error() -> None:
    g = torch.Generator().manual_seed(1)
    outputs, target = 2 * torch.randn(500, 3, generator=g), torch.randint(0, 3, (500,), generator=g)
    metric = Reliability(bins=10)
    points = metric.result(metric.measure(outputs, target, torch.ones(500), torch.zeros(500)))["reliability"]
    p = outputs.double().softmax(1).numpy()
    accuracy, mean = calibration_curve(p.argmax(1) == target.numpy(), p.max(1), n_bins=10, strategy="uniform")
    filled = [point for point in points if point["count"]]
    np.testing.assert_allclose([point["accuracy"] for point in filled], accuracy, rtol=0, atol=1e-12)
    np.testing.assert_allclose([point["confidence"] for point in filled], mean, rtol=0, atol=1e-12)
    assert sum(point["count"] for point in points) == 500 and [point["above"] for point in points] == [b / 10 for b in range(10)]
    gaps = [point["count"] * abs(point["accuracy"] - point["confidence"]) for point in filled]
    assert sum(gaps) / 500 == pytest.approx(error(outputs, target, bins=10), abs=1e-12)
    assert math.isnan(points[0]["accuracy"]) and math.isnan(points[0]["confidence"])  # three classes: never below a third


# --- the temperature -----------------------------------------------------------------------------------------------------


def nll(outputs: torch.Tensor, target: torch.Tensor, temperature: float) -> float:
    return float(torch.nn.functional.cross_entropy(outputs.double() / temperature, target))


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.2, 1.0, 7.0]), classes=st.integers(2, 6))
def test_the_temperature_against_scipy(seed: int, scale: float, classes: int) -> None:
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, (200,), generator=g)
    outputs = scale * (torch.randn(200, classes, generator=g) + torch.nn.functional.one_hot(target, classes))
    found = fit_temperature(outputs, target)
    expected = minimize_scalar(lambda t: nll(outputs, target, math.exp(t)), bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    assert found == pytest.approx(math.exp(expected.x), rel=1e-6)
    assert nll(outputs, target, found) <= expected.fun + 1e-14
    p = (outputs.double() / found).softmax(1).numpy()
    assert log_loss(target, p, labels=np.arange(classes)) == pytest.approx(expected.fun, abs=1e-12)


def test_the_temperature_undoes_a_scale() -> None:
    """Outputs that are the truth's own log-probabilities have T = 1; k times as large, T = k."""
    g = torch.Generator().manual_seed(0)
    log_p = torch.randn(4000, 3, generator=g, dtype=torch.float64).log_softmax(1)
    target = torch.multinomial(log_p.exp(), 1, generator=g).flatten()
    plain = fit_temperature(log_p, target)
    assert plain == pytest.approx(1, abs=0.05)
    for k in (0.3, 5.0):
        assert fit_temperature(k * log_p, target) == pytest.approx(k * plain, rel=1e-10)
    assert error(5 * log_p / fit_temperature(5 * log_p, target), target) < 0.03 < 0.2 < error(5 * log_p, target)


def test_temperatures_at_the_ends_and_nothing_to_fit() -> None:
    right, wrong = torch.eye(3), torch.eye(3)[[1, 2, 0]]
    assert fit_temperature(right, torch.arange(3)) == pytest.approx(0.01)  # surer is always better
    assert fit_temperature(wrong, torch.arange(3)) == pytest.approx(100)  # no answer is better than these
    assert fit_temperature(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)) == 1.0
    assert fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == 1.0
    assert fit_temperature(torch.tensor([[math.inf, 0.0]]), torch.tensor([0])) == 1.0
    huge = torch.tensor([[1e4, 0.0], [0.0, 1e4], [1e4, 0.0]])
    assert fit_temperature(huge, torch.tensor([0, 1, 1])) == pytest.approx(100.0)  # the root lies beyond
