"""Curves and areas against scikit-learn to 1e-12, the definition pair by pair, and closed forms; ties, one class, no number."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from torchstone.ops.curves import average_precision, drawn, found, roc_auc

TIES = st.sampled_from([None, 1, 2, 5])
"""How many values the scores take; None: all differ."""


def made(n: int, seed: int, ties: int | None, dtype: str, share: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    positive = draw.random(n) < share
    scores = draw.normal(size=n) + positive if ties is None else draw.integers(0, ties, n) - 1.0
    return scores.astype(dtype), positive


@settings(max_examples=40)
@given(n=st.integers(1, 80), seed=st.integers(0, 10_000), ties=TIES, dtype=st.sampled_from(["float32", "float64"]))
def test_areas_against_scikit_learn(n: int, seed: int, ties: int | None, dtype: str) -> None:
    scores, positive = made(n, seed, ties, dtype)
    if positive.any() and not positive.all():
        assert roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    else:
        assert math.isnan(roc_auc(scores, positive))
    if positive.any():
        assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores), abs=1e-12)
    else:
        assert math.isnan(average_precision(scores, positive))


@settings(max_examples=40)
@given(n=st.integers(1, 80), seed=st.integers(0, 10_000), ties=TIES)
def test_points_against_scikit_learn(n: int, seed: int, ties: int | None) -> None:
    scores, positive = made(n, seed, ties, "float64")
    curve = found(scores, positive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fpr, tpr, threshold = roc_curve(positive, scores, drop_intermediate=False)
        precision, recall, rising = precision_recall_curve(positive, scores)
    np.testing.assert_array_equal(curve.threshold, threshold[1:])
    np.testing.assert_array_equal(curve.threshold, rising[::-1])
    np.testing.assert_allclose(curve.precision, precision[-2::-1], rtol=0, atol=1e-12)
    if positive.any():
        np.testing.assert_allclose(curve.recall, tpr[1:], rtol=0, atol=1e-12)
        np.testing.assert_allclose(curve.recall, recall[-2::-1], rtol=0, atol=1e-12)
    else:
        assert np.isnan(curve.recall).all()  # scikit-learn: 1 in one place, nan in the other
    if not positive.all():
        np.testing.assert_allclose(curve.false_positive_rate, fpr[1:], rtol=0, atol=1e-12)
    else:
        assert np.isnan(curve.false_positive_rate).all()


@settings(max_examples=40)
@given(n=st.integers(2, 25), seed=st.integers(0, 10_000), ties=TIES)
def test_the_area_is_the_share_of_pairs_in_order(n: int, seed: int, ties: int | None) -> None:
    scores, positive = made(n, seed, ties, "float64")
    pairs = [(p > q) + 0.5 * (p == q) for p in scores[positive] for q in scores[~positive]]
    expected = np.mean(pairs) if pairs else math.nan
    assert roc_auc(scores, positive) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), ties=TIES)
def test_order_changes_no_bit_and_a_monotone_map_nothing(seed: int, ties: int | None) -> None:
    scores, positive = made(50, seed, ties, "float64")
    order = np.random.default_rng(seed + 1).permutation(50)
    for area in (roc_auc, average_precision):
        assert area(scores[order], positive[order]) == area(scores, positive) == area(3 * scores + 1, positive)
    assert roc_auc(-scores, positive) == pytest.approx(1 - roc_auc(scores, positive), abs=1e-15)


def test_closed_forms() -> None:
    yes, no = np.array([True] * 3 + [False] * 5), np.arange(8.0)
    assert roc_auc(-no, yes) == average_precision(-no, yes) == 1.0
    assert roc_auc(no, yes) == 0.0
    assert average_precision(no, yes) == pytest.approx((1 / 6 + 2 / 7 + 3 / 8) / 3, abs=1e-15)
    equal = np.zeros(8)
    assert roc_auc(equal, yes) == 0.5
    assert average_precision(equal, yes) == 3 / 8  # one threshold: everything is called positive
    assert average_precision(equal, np.ones(8, dtype=bool)) == 1.0


def test_zeros_of_both_signs_are_equal_and_infinity_is_a_score() -> None:
    scores, positive = np.array([-0.0, 0.0, np.inf, -np.inf]), np.array([True, False, True, False])
    assert roc_auc(scores, positive) == (0.5 + 1 + 1 + 1) / 4
    assert len(found(scores, positive).threshold) == 3


def test_what_is_no_number_and_what_is_nothing() -> None:
    for positive in (np.array([True, False, False]), np.array([False, True, True])):
        scores = np.array([math.nan, 1.0, 2.0])
        assert math.isnan(roc_auc(scores, positive)) and math.isnan(average_precision(scores, positive))
        with pytest.raises(ValueError, match="a score is NaN"):
            found(scores, positive)
    none = np.array([]), np.array([], dtype=bool)
    assert math.isnan(roc_auc(*none)) and math.isnan(average_precision(*none))
    assert len(found(*none).threshold) == 0


def test_more_pairs_than_an_int32_and_than_float64_can_count() -> None:
    positive = np.arange(200_000) % 2 == 0
    scores = (np.arange(200_000) // 2).astype(np.float32)  # each positive ties with one negative
    assert roc_auc(scores, positive) == 0.5


def test_drawn_is_thinned_and_keeps_the_ends() -> None:
    scores, positive = made(5000, 0, None, "float64")
    curve = found(scores, positive)
    points = drawn(curve, 100)
    assert 50 < len(points["threshold"]) <= 100 and {len(column) for column in points.values()} == {len(points["threshold"])}
    assert points["recall"][-1] == points["false_positive_rate"][-1] == 1.0 and points["threshold"][0] == scores.max()
    area = np.trapezoid([0, *points["recall"]], [0, *points["false_positive_rate"]])
    assert area == pytest.approx(roc_auc(scores, positive), abs=2e-3)
    few = drawn(found(scores[:5], positive[:5]), 100)
    assert few["threshold"] == sorted(scores[:5].tolist(), reverse=True)
