"""Stops: the exact evaluation at which they fire, and that NaN neither helps nor hurts (case 24)."""

import math

import pytest

from torchstone.core.errors import UserError
from torchstone.core.protocols import Evaluation, History
from torchstone.optim import LossThreshold, Patience

NAN = math.nan


def history(*values: float, metric: str = "accuracy", loss: float = NAN) -> History:
    return History([Evaluation(10 * (i + 1), {metric: value}) for i, value in enumerate(values)], loss)


def first_stop(part: Patience, *values: float) -> int | None:
    """How many evaluations it takes."""
    return next((n for n in range(len(values) + 1) if part(history(*values[:n]))), None)


@pytest.mark.parametrize(
    ("part", "values", "stops_at"),
    [
        (Patience(patience=1), (0.1, 0.1), 2),
        (Patience(patience=2), (0.1, 0.5, 0.4, 0.45), 4),
        (Patience(patience=2), (0.1, 0.5, 0.4, 0.6, 0.5, 0.5), 6),
        (Patience(patience=3), (0.1, 0.2, 0.3, 0.4), None),
        (Patience(patience=2, mode="min"), (3.0, 2.0, 2.5, 1.9, 1.9, 1.9), 6),
        (Patience(patience=2, min_delta=0.1), (0.5, 0.55, 0.59), 3),
        (Patience(patience=2, min_delta=0.1), (0.5, 0.55, 0.65, 0.7), None),  # small steps add up against the same best
        (Patience(patience=2), (NAN, NAN, NAN, NAN), None),
        (Patience(patience=2), (0.5, NAN, 0.4, NAN, 0.4), 5),
        (Patience(patience=2), (NAN, 0.5, 0.4, NAN, 0.6, 0.5), None),
        (Patience(patience=2, mode="min"), (NAN, 2.0, NAN, 2.0, 2.0), 5),
        (Patience(patience=2), (-math.inf, 0.1, 0.2), None),
        (Patience.neutral, (0.5,) * 50, None),
    ],
)
def test_patience_stops_exactly_then(part, values, stops_at):
    assert first_stop(part, *values) == stops_at


def test_patience_is_pure_and_says_why():
    part, seen = Patience(patience=2), history(0.5, 0.4, 0.4)
    assert part(seen) == part(seen) == "accuracy has not improved on 0.5 (step 10) for 2 evaluations"


def test_patience_names_the_metrics_there_are():
    with pytest.raises(UserError, match=r"found 'accuracy', the evaluation has loss"):
        Patience()(history(0.5, metric="loss"))


def test_loss_threshold():
    part = LossThreshold(threshold=0.1)
    assert part(history(loss=0.1)) == "training loss 0.1 reached 0.1"
    assert part(history(loss=0.10001)) is None and part(history(loss=NAN)) is None and part(History()) is None
    assert LossThreshold.neutral(history(loss=-1e30)) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Patience(patience=0),
        lambda: Patience(min_delta=-1.0),
        lambda: Patience(metric=""),
        lambda: LossThreshold(threshold=NAN),
    ],
)
def test_fields_are_checked(make):
    with pytest.raises(ValueError, match="must be"):
        make()
