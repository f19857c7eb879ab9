"""The learning-rate range test: train a copy for a few hundred steps while the rate rises, and watch the loss.

Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, https://arxiv.org/abs/1506.01186, section 3.3; with the exponential
rise and the stop of fastai's `lr_find`. Nothing of it reaches a training: the weights it leaves are thrown away.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import nn

from torchstone.core import tree
from torchstone.core.errors import UserError
from torchstone.core.protocols import History
from torchstone.train.build import build_state
from torchstone.train.loop import Job, updates
from torchstone.train.method import Method
from torchstone.train.step import train_step

EXPLODED = 4.0
"""Times the best smoothed loss so far, at which the test stops."""
SMOOTHING = 0.9
"""Of the running average that decides when to stop."""
DECADES = 0.15
"""Standard deviation, in powers of ten of the rate, of the bell that smooths the curve."""
FALL = 0.02
"""Share of the first loss by which it must fall somewhere for a suggestion to be made."""
BEGUN = 0.1
"""Share of the whole fall at which the loss has begun to fall for good."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rising:
    """rate = low (high / low)^(s / (steps - 1)): the same ratio every step, on a number whose own value is 1."""

    path: str
    low: float
    high: float

    def __call__(self, step: int, total: int, history: History) -> float:
        return self.low * (self.high / self.low) ** (step / max(total - 1, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class RateTest:
    """What the test saw."""

    path: str
    """The rate that was varied, below `method`."""
    before: float
    """Its value in the experiment."""
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """Training loss of each step, at the rates."""
    smoothed: tuple[float, ...]
    """The same without the noise of single batches: a bell over neighboring steps, which shifts nothing."""
    stopped: str
    """Why it ended."""
    steepest: float | None
    """Where the loss falls fastest over the logarithm of the rate; none where it never falls."""
    minimum: float | None
    """Where the smoothed loss is lowest: already too high to train with."""

    @property
    def tenth(self) -> float | None:
        """A tenth of the rate at the minimum: the other rule of thumb."""
        return None if self.minimum is None else self.minimum / 10


def rate_test(job: Job, model: nn.Module, *, low: float = 1e-7, high: float = 10.0, steps: int = 200) -> RateTest:
    """Trains a copy of `model` for at most `steps` updates of the job's own batches, its rate rising from `low` to `high`.

    Everything else is as the job says (batch size, transforms, groups, other schedules); schedules on the rate, averages and stops are
    left out. Raises UserError for a range that is none.
    """
    if not 0 < low < high < math.inf:
        raise UserError(f"the range of rates must rise from above 0, got {low:g} to {high:g}")
    if steps < 10:
        raise UserError(f"a range test needs at least 10 steps, got {steps}")
    path = rate_path(job.method)
    before = tree.get(job.method, path)
    others = tuple(schedule for schedule in job.method.schedules if schedule.path != path)
    method = replace(tree.put(job.method, path, 1.0), schedules=(*others, Rising(path=path, low=low, high=high)), averaging=None, stop=None)
    job = replace(job, method=method, run=replace(job.run, steps=steps))
    rates, losses, stopped = [], [], f"the highest rate, {high:g}, is reached"
    best = running = math.inf
    with torch.random.fork_rng(devices=[]):
        for number, (rate, loss) in enumerate(_steps(job, copy.deepcopy(model), path)):
            if not math.isfinite(loss):
                stopped = f"the loss is not finite at a rate of {rate:.2g}"
                break
            rates.append(rate)
            losses.append(loss)
            running = loss if number == 0 else SMOOTHING * running + (1 - SMOOTHING) * loss
            best = min(best, running)
            if number >= 10 and running > EXPLODED * best + 1e-12:
                stopped = f"the loss exploded at a rate of {rate:.2g}"
                break
    if len(rates) < 3:
        raise UserError(f"{stopped}: begin with a lower rate than {low:g}")
    smoothed = smooth(losses, math.log10(high / low) / (steps - 1))
    steepest, minimum = suggestions(rates, smoothed)
    return RateTest(
        path=path,
        before=before,
        rates=tuple(rates),
        losses=tuple(losses),
        smoothed=tuple(smoothed.tolist()),
        stopped=stopped,
        steepest=steepest,
        minimum=minimum,
    )


def rate_path(method: Method) -> str:
    """Where the rate is: the optimizer's own, or that of the optimizer inside it.

    Raises UserError where it has none.
    """
    part: Any = method.optimizer
    path = "optimizer"
    while "lr" not in tree.fields_of(type(part)):
        inner = [name for name in tree.fields_of(type(part)) if "lr" in getattr(type(getattr(part, name)), "__dataclass_fields__", {})]
        if not inner:
            raise UserError(f"method.optimizer={tree.kind_of(method.optimizer)} has no rate to vary")
        path, part = f"{path}.{inner[0]}", getattr(part, inner[0])
    return f"{path}.lr"


def _steps(job: Job, model: nn.Module, path: str) -> Iterator[tuple[float, float]]:
    """(rate, training loss before its update) of each step."""
    state = build_state(model, job.method, job.run, job.device)
    for epoch, microbatches in updates(job, 0):
        report = train_step(state, microbatches, job.method, job.setting, epoch)
        yield float(report.numbers[path]), float(report.loss)


def smooth(losses: list[float], decades_a_step: float) -> np.ndarray:
    """The losses under a bell of `DECADES`. What is far above the first loss is cut off before: an explosion must not reach back."""
    values = np.minimum(np.array(losses, dtype=np.float64), 2 * max(losses[:3]))
    return gaussian_filter1d(values, max(1.0, DECADES / decades_a_step), mode="nearest")


def suggestions(rates: list[float], smoothed: np.ndarray) -> tuple[float | None, float | None]:
    """(where the loss falls fastest once it falls for good, the minimum); none where it does not fall."""
    lowest = int(smoothed.argmin())
    first = float(smoothed[: max(3, lowest // 4)].mean())
    if lowest < 2 or first - smoothed[lowest] < FALL * abs(first):
        return None, None
    high = np.flatnonzero(smoothed[: lowest + 1] >= first - BEGUN * (first - smoothed[lowest]))
    begun = int(high[-1]) if len(high) else 0  # small batches make the loss rise and fall before
    slopes = np.gradient(smoothed, np.log10(rates))
    return rates[begun + int(slopes[begun : lowest + 1].argmin())], rates[lowest]
