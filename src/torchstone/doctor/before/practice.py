"""Small trainings of copies of the model, by the step and the settings of the experiment itself. What they leave is thrown away."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from torchstone.core import tree
from torchstone.core.protocols import BatchTransform
from torchstone.data import Uniform
from torchstone.data.splits import TensorSplit
from torchstone.data.steady import steady
from torchstone.experiment import Prepared
from torchstone.train.build import build_state
from torchstone.train.loop import Job, updates, write_own_average
from torchstone.train.method import Method
from torchstone.train.rate_finder import rate_path
from torchstone.train.state import TrainState
from torchstone.train.step import train_step

WATCHED = 3
"""First steps that are timed and looked at; the first of them only warms up."""


@dataclass(frozen=True, slots=True)
class Practised:
    """A copy after its training."""

    model: nn.Module
    losses: tuple[float, ...]
    """Of each step, before its update; training ends early where one is not finite."""

    @property
    def steps(self) -> int:
        return len(self.losses)


def practised(
    prepared: Prepared,
    split: TensorSplit,
    steps: int,
    transforms: Sequence[BatchTransform],
    *,
    rate: float | None = None,
    constant: bool = False,
    watch: Callable[[TrainState, int], bool | None] | None = None,
    seconds: float = math.inf,
) -> Practised:
    """A copy of the model trained for `steps` on a split, by the experiment's method without averages and stops; `transforms` take the
    place of its batch transforms.

    `rate`: the learning rate, where another is wanted; `constant`: without schedules. `watch` is called after every step, and ends the
    training by returning True.
    """
    job = practice_job(prepared, split, steps, transforms, rate=rate, constant=constant)
    losses: list[float] = []
    started = perf_counter()
    with torch.random.fork_rng(devices=[]):
        state = build_state(copy.deepcopy(prepared.model), job.method, job.run, job.device)
        for epoch, microbatches in updates(job, 0):
            losses.append(float(train_step(state, microbatches, job.method, job.setting, epoch).loss))
            enough = watch is not None and watch(state, len(losses))
            if enough or not math.isfinite(losses[-1]) or perf_counter() - started > seconds:
                break
    write_own_average(job.method, state)
    return Practised(state.evaluated, tuple(losses))


def practice_job(
    prepared: Prepared, split: TensorSplit, steps: int, transforms: Sequence[BatchTransform], *, rate: float | None, constant: bool
) -> Job:
    method: Method = prepared.experiment.method
    if rate is not None:
        method = tree.put(method, rate_path(method), rate)
    method = replace(
        method,
        sampler=Uniform(),
        sample_transforms=(),
        batch_transforms=tuple(transforms),
        schedules=() if constant else tuple(schedule for schedule in method.schedules if fits(schedule, steps)),
        averaging=None,
        stop=None,
    )
    run = prepared.experiment.run
    size = min(run.batch_size, len(split))
    small = min(run.microbatch_size or size, size)
    run = replace(run, batch_size=size, microbatch_size=small, steps=steps, workers=0, snapshots=0, compile=False)
    return replace(prepared.job(Path(), {}), method=method, run=run, splits=replace(prepared.splits, train=split))


def fits(schedule: Any, steps: int) -> bool:
    """Whether a schedule goes with so short a run."""
    try:
        getattr(schedule, "fits", lambda total: None)(steps)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """What the first steps of a training show."""

    model: nn.Module
    seconds: float
    """Of a step; the shortest of those after the first."""
    reached: set[str]
    """Parameters that had a gradient other than zero."""
    still: set[str]
    """Parameters whose rate is zero."""


def first_steps(prepared: Prepared, split: TensorSplit) -> FirstSteps:
    """Three steps on these samples, watched."""
    times: list[float] = []
    reached: set[str] = set()
    still: set[str] = set()

    def watch(state: TrainState, step: int) -> None:
        times.append(perf_counter())
        reached.update(name for name, p in state.model.named_parameters() if p.grad is not None and bool(p.grad.count_nonzero()))
        still.clear()
        still.update(name for span in state.parameters.groups if span.lr_scale == 0 for name in span.names)
        times.append(perf_counter())

    transforms = steady(prepared.experiment.method.batch_transforms)
    model = practised(prepared, split, WATCHED, transforms, watch=watch).model
    steps = [b - a for a, b in zip(times[1::2], times[2::2], strict=False)]
    return FirstSteps(model, max(1e-5, min(steps, default=1.0)), reached, still)
