"""A second set of weights that follows the trained one.

Ruppert 1988; Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
Shapes: P scalars of all parameters, B of all persistent floating buffers.
"""

from dataclasses import dataclass
from math import expm1, floor, lgamma, log
from typing import ClassVar

import torch
from torch import Tensor

from torchstone.core.protocols import Memory, Progress
from torchstone.optim.flat import FlatParameters


@dataclass(frozen=True, kw_only=True, slots=True)
class EMA:
    """Exponential moving average of parameters and persistent floating buffers; integer buffers are copied.

    After update t the average moves by w = (1 - d) / (1 - d^t) towards the new weights, d being the decay: after the first it equals them,
    and at any t it is sum_i d^(t-i) x_i / sum_i d^(t-i), so the weights before training have no part in it (the correction is Adam's:
    Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980, section 3). `per_samples` makes the decay that of so many samples, whatever the
    batch size: d = decay^(batch_size / per_samples) (Busbridge et al., "How to Scale Your EMA", 2023, https://arxiv.org/abs/2307.13813,
    definition 1.2). With `warmup` c the decay of update j is min(d, (1 + j) / (1 + c + j)): the average reaches back over a fixed share of
    the updates at first (TensorFlow's rule, where c is 9). Called once an update, whatever the number of micro-batches. `average` comes
    from `FlatParameters.twin`. `skip` is 0-d; nonzero changes nothing.
    """

    decay: float = 0.999
    """Share of the past; the average spans about 1 / (1 - decay) updates. 0 follows the weights exactly."""
    per_samples: int = 0
    """The batch size that `decay` is meant for; with decay=0.5 it is the half-life in samples. 0: `decay` is an update's, whatever its
    size."""
    warmup: float = 0.0
    """How slowly the span grows: after j updates it is at most about j / warmup of them. 0: at its full length from the start."""
    recompute_batch_norm: bool = False
    """Batch-norm statistics are computed anew on training batches before each evaluation, instead of averaged."""

    neutral: ClassVar["EMA"]

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"EMA.decay must be in [0, 1), got {self.decay}")
        if self.per_samples < 0:
            raise ValueError(f"EMA.per_samples must be >= 0, got {self.per_samples}")
        if not 0 <= self.warmup < float("inf"):
            raise ValueError(f"EMA.warmup must be finite and >= 0, got {self.warmup}")

    def weight(self, updates: int, batch_size: int = 1) -> float:
        """Share of the newest weights in the average after update number `updates`, counted from 1."""
        if self.decay == 0 or updates <= 1:
            return 1.0
        log_decay = log(self.decay) * (batch_size / self.per_samples if self.per_samples else 1.0)
        to_new = -expm1(log_decay) if self.per_samples else 1 - self.decay
        if self.warmup == 0:
            return to_new / -expm1(updates * log_decay)
        # The product of the decays so far, in closed form: of (1 + j) / (1 + c + j) while that is the smaller one, then of d.
        turn = floor(self.warmup / expm1(-log_decay) - 1)  # (1 + j) / (1 + c + j) <= d up to here
        rising, c = min(updates, max(turn, 0)), self.warmup
        log_product = lgamma(rising + 2) + lgamma(2 + c) - lgamma(rising + 2 + c) + (updates - rising) * log_decay
        return (c / (1 + c + updates) if updates <= turn else to_new) / -expm1(log_product)

    def __call__(self, average: FlatParameters, parameters: FlatParameters, progress: Progress, *, skip: Tensor | None = None) -> None:
        weight = self.weight(progress.updates, progress.batch_size)
        for (_, mine), (_, new) in zip(floating(average), floating(parameters), strict=True):
            move(mine, new, weight, skip)
        copy_counters(average, parameters, skip)


EMA.neutral = EMA(decay=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class SWA:
    """Stochastic weight averaging: from a share of the run on, the plain mean of the weights at the end of every epoch.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018, https://arxiv.org/abs/1803.05407,
    algorithm 1: w_mean = (w_mean n + w) / (n + 1), and batch-norm statistics computed anew for the mean. Until the first of these points
    the average is the model itself. Wants a rate that stays high: `schedules=[{kind=cyclic}]` or a constant one from `start` on.
    """

    start: float = 0.75
    """Share of the run after which averaging begins."""
    every: int = 0
    """Updates from one averaged point to the next; 0: once an epoch."""

    recompute_batch_norm: ClassVar[bool] = True
    neutral: ClassVar["SWA"]

    def __post_init__(self) -> None:
        if not 0 <= self.start <= 1:
            raise ValueError(f"SWA.start must be in [0, 1], got {self.start}")
        if self.every < 0:
            raise ValueError(f"SWA.every must be >= 0, got {self.every}")

    def points(self, progress: Progress) -> int:
        """Averaged points up to this update, from the first multiple of the interval after the start."""
        every, begin = self.every or progress.epoch, self.start * progress.total
        return max(0, progress.updates // every - floor(begin / every))

    def __call__(self, average: FlatParameters, parameters: FlatParameters, progress: Progress, *, skip: Tensor | None = None) -> None:
        count = self.points(progress)
        if count == 0 or self.start == 1:
            return copy(average, parameters, skip)
        if progress.updates % (self.every or progress.epoch) == 0:
            move(average.data, parameters.data, 1.0 / count, skip)
            copy_buffers(average, parameters, skip)
            copy_counters(average, parameters, skip)


SWA.neutral = SWA(start=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LAWA:
    """Latest weight averaging: the plain mean of the weights at the ends of the latest `count` epochs.

    Kaddour, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging", 2022,
    https://arxiv.org/abs/2209.14981, section 2. Remembers `count` sets of weights. Until the first of these points the average is the model
    itself. Batch-norm statistics are computed anew for the mean.
    """

    count: int = 6
    """Weights in the mean; at the very first points there are fewer."""
    every: int = 0
    """Updates from one to the next; 0: once an epoch."""

    recompute_batch_norm: ClassVar[bool] = True
    neutral: ClassVar["LAWA"]

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"LAWA.count must be >= 1, got {self.count}")
        if self.every < 0:
            raise ValueError(f"LAWA.every must be >= 0, got {self.every}")

    def init(self, parameters: FlatParameters) -> Memory:
        """The latest weights [P] each, at first all zero."""
        return {f"latest.{i}": torch.zeros_like(parameters.data) for i in range(self.count)}

    def __call__(
        self, average: FlatParameters, parameters: FlatParameters, progress: Progress, *, memory: Memory, skip: Tensor | None = None
    ) -> None:
        points, rest = divmod(progress.updates, self.every or progress.epoch)
        if points == 0:
            return copy(average, parameters, skip)
        if rest == 0:
            move(memory[f"latest.{(points - 1) % self.count}"], parameters.data, 1.0, skip)
            there = [memory[f"latest.{i}"] for i in range(min(points, self.count))]
            mean = there[0] / len(there)
            for latest in there[1:]:
                mean.add_(latest, alpha=1.0 / len(there))
            move(average.data, mean, 1.0, skip)
            copy_buffers(average, parameters, skip)
            copy_counters(average, parameters, skip)


LAWA.neutral = LAWA(count=1, every=1)


def floating(flat: FlatParameters) -> list[tuple[str, Tensor]]:
    """All that an average is taken of: the parameters, and the persistent floating buffers as one tensor where they have one dtype."""
    buffers = list(flat.float_buffers.items()) if flat.buffers is None else [("", flat.buffers)]
    return [("data", flat.data), *buffers]


def copy(average: FlatParameters, parameters: FlatParameters, skip: Tensor | None) -> None:
    """The average becomes the model."""
    move(average.data, parameters.data, 1.0, skip)
    copy_buffers(average, parameters, skip)
    copy_counters(average, parameters, skip)


def copy_buffers(average: FlatParameters, parameters: FlatParameters, skip: Tensor | None) -> None:
    for (_, mine), (_, new) in zip(floating(average)[1:], floating(parameters)[1:], strict=True):
        move(mine, new, 1.0, skip)


def copy_counters(average: FlatParameters, parameters: FlatParameters, skip: Tensor | None) -> None:
    """Integer buffers have no mean."""
    mine, new = list(average.other_buffers.values()), list(parameters.other_buffers.values())
    if new:
        torch._foreach_copy_(mine, new if skip is None else [torch.where(skip != 0, a, b) for a, b in zip(mine, new, strict=True)])


def move(average: Tensor, new: Tensor, weight: float, skip: Tensor | None) -> None:
    """average + weight (new - average); at weight 1 the new numbers bit by bit."""
    if new.dtype != average.dtype:
        new = new.to(average.dtype)
    if skip is None:
        average.lerp_(new, weight)
    else:  # not a weight of 0: a skipped forward may have left NaN in a batch norm, and 0 * NaN is NaN
        average.copy_(torch.where(skip != 0, average, average.lerp(new, weight)))
