"""Each rule's threshold against all thresholds tried one by one; the metric at it against scikit-learn."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from torchstone.metrics import AtPrecision, AtThreshold, FScore, Youden, choose


def made(seed: int, tied: bool, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    positive = np.concatenate([[True, False], draw.random(n) < 0.3])
    scores = 1 / (1 + np.exp(-draw.normal(size=n + 2) - positive))
    return (scores.round(1) if tied else scores), positive


def quality(rule: object, positive: np.ndarray, called: np.ndarray) -> float:
    tp, fp, fn, tn = ((p & c).sum() for p, c in ((positive, called), (~positive, called), (positive, ~called), (~positive, ~called)))
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    if isinstance(rule, FScore):
        return (1 + rule.beta**2) * precision * recall / (rule.beta**2 * precision + recall) if tp else 0.0
    if isinstance(rule, Youden):
        return recall + tn / (tn + fp) - 1
    assert isinstance(rule, AtPrecision)
    return recall if precision >= rule.precision else precision - 2  # any that is precise enough beats the rest


@pytest.mark.parametrize("rule", [FScore(), FScore(beta=2.0), Youden(), AtPrecision(precision=0.6), AtPrecision(precision=1.0)], ids=str)
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), tied=st.booleans())
def test_no_other_threshold_is_better(rule: FScore | Youden | AtPrecision, seed: int, tied: bool) -> None:
    scores, positive = made(seed, tied)
    threshold = choose(rule, scores, positive)
    assert threshold in scores
    every = {float(t): quality(rule, positive, scores >= t) for t in np.unique(scores)}
    assert threshold is not None and every[threshold] == pytest.approx(max(every.values()), abs=1e-12)
    if isinstance(rule, Youden):
        assert threshold == max(t for t, q in every.items() if q >= max(every.values()) - 1e-12)


def test_precision_that_no_threshold_reaches() -> None:
    """The most precise one then: here 2 of 3, not 1 of 2."""
    scores, positive = np.array([0.9, 0.8, 0.8, 0.1]), np.array([False, True, True, False])
    assert choose(AtPrecision(precision=0.95), scores, positive) == 0.8


def test_nothing_to_choose_by() -> None:
    scores = np.array([0.1, 0.2, 0.3])
    for positive in (np.zeros(3, dtype=bool), np.ones(3, dtype=bool)):
        assert choose(Youden(), scores, positive) is None
    assert choose(Youden(), np.array([0.1, math.nan, 0.3]), np.array([True, False, True])) is None


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]))
def test_at_threshold_against_scikit_learn(seed: int, threshold: float) -> None:
    g = torch.Generator().manual_seed(seed)
    outputs, target = 2 * torch.randn(30, 2, generator=g), torch.randint(0, 2, (30,), generator=g)
    weight = (torch.arange(30) % 4 != 1).float()
    metric = AtThreshold(threshold=threshold)
    found = metric.result(metric.measure(outputs, target, weight, weight))
    counted = weight.numpy() > 0
    truth = target.numpy()[counted] == 1
    called = outputs.double().softmax(1).numpy()[counted, 1] >= threshold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "threshold_precision": precision_score(truth, called, zero_division=np.nan),
            "threshold_recall": recall_score(truth, called, zero_division=np.nan),
            "threshold_specificity": recall_score(~truth, ~called, zero_division=np.nan),
            "threshold_f1": f1_score(truth, called) if truth.any() else math.nan,
            "threshold_accuracy": accuracy_score(truth, called),
        }
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_bad_settings() -> None:
    for make, message in (
        (lambda: FScore(beta=-1), "FScore.beta must be > 0 and finite, got -1"),
        (lambda: AtPrecision(precision=0), r"AtPrecision.precision must be in \(0, 1\], got 0"),
        (lambda: AtThreshold(threshold=1.1), r"AtThreshold.threshold must be in \[0, 1\], got 1.1"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
