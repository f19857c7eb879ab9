"""The range test: its rates, its suggestions on curves of known form, and that nothing of it stays."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from laws import cases
from torchstone.core.errors import UserError
from torchstone.losses import MSE
from torchstone.optim import SGD, Cosine, Exponential
from torchstone.train.rate_finder import rate_path, rate_test, smooth, suggestions

METHOD = replace(cases.NOISY, optimizer=SGD(lr=0.05), schedules=(Cosine(),))


def job(method=METHOD, **run):
    prepared = cases.ready(method, cases.MLP, **run)
    return prepared.job(Path(), {}), prepared.model


def test_the_rate_rises_by_the_same_ratio_and_the_loss_explodes() -> None:
    test = rate_test(*job(), low=1e-4, high=1e4, steps=81)
    assert test.rates == pytest.approx([1e-4 * 10 ** (s / 10) for s in range(len(test.rates))], rel=1e-9)
    assert len(test.rates) < 81 and ("exploded" in test.stopped or "not finite" in test.stopped)
    assert len(test.losses) == len(test.smoothed) == len(test.rates)
    assert test.path == "optimizer.lr" and test.before == 0.05
    assert test.steepest is not None and test.minimum is not None and test.tenth == test.minimum / 10
    assert 1e-3 < test.steepest <= test.minimum < test.rates[-1]


def test_the_model_is_not_touched_and_the_test_repeats() -> None:
    made, model = job()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = rate_test(made, model, low=1e-4, high=1.0, steps=20)
    assert cases.differing(before, model.state_dict()) == []
    assert rate_test(made, model, low=1e-4, high=1.0, steps=20) == first
    assert first.stopped == "the highest rate, 1, is reached" and len(first.rates) == 20


def test_the_first_losses_are_those_of_training(tmp_path: Path) -> None:
    """At a rate of almost nothing, the losses are those of the untrained model on the run's own batches."""
    still = replace(METHOD, optimizer=SGD(lr=0.0), schedules=(), averaging=None)
    made, state = cases.begin(cases.ready(still, cases.MLP, steps=12), tmp_path)
    expected = [float(report.loss) for report in cases.advance(made, state, 12)]
    assert rate_test(*job(), low=1e-30, high=1e-20, steps=12).losses == pytest.approx(expected, rel=1e-6)


def test_other_schedules_stay() -> None:
    method = replace(METHOD, schedules=(Cosine(), Exponential(path="optimizer.momentum", final=0.5)))
    assert rate_test(*job(method), low=1e-4, high=1e-2, steps=12).rates[-1] == pytest.approx(1e-2)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_suggestions_on_a_known_curve(noise: float) -> None:
    """A logistic fall, steepest at 1e-3, to a minimum at 1e-1 where a rise begins."""
    rates = np.logspace(-6, 0, 181)
    x = np.log10(rates)
    losses = 2.0 - 1.5 / (1 + np.exp(-4 * (x + 3))) + 4.0 * np.clip(x + 1, 0, None) ** 2
    losses += noise * np.random.default_rng(0).normal(size=len(x))
    steepest, minimum = suggestions(rates.tolist(), smooth(losses.tolist(), 6 / 180))
    assert steepest is not None and minimum is not None
    assert abs(math.log10(steepest) + 3) < 0.12 and abs(math.log10(minimum) + 1) < 0.35


def test_no_suggestion_where_nothing_falls() -> None:
    rates = np.logspace(-6, 0, 100).tolist()
    assert suggestions(rates, smooth(np.linspace(1, 3, 100).tolist(), 0.06)) == (None, None)
    assert suggestions(rates, smooth((1 + 0.01 * np.sin(np.arange(100))).tolist(), 0.06)) == (None, None)


def test_wrong_ranges_are_refused() -> None:
    made, model = job()
    for low, high, steps in ((0.0, 1.0, 20), (1.0, 0.1, 20), (1e-3, math.inf, 20), (1e-3, 1.0, 5)):
        with pytest.raises(UserError, match=r"range"):
            rate_test(made, model, low=low, high=high, steps=steps)
    with pytest.raises(UserError, match="begin with a lower rate"):
        rate_test(*job(replace(METHOD, loss=MSE())), low=1e30, high=1e38, steps=20)


def test_where_the_rate_is() -> None:
    assert rate_path(METHOD) == "optimizer.lr"
