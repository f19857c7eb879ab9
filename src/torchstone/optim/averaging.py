"""A second set of weights that follows the trained one.

Ruppert 1988; Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the bias correction is Adam's
(Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980, section 3).
"""

from dataclasses import dataclass
from math import expm1, log
from typing import ClassVar

import torch
from torch import Tensor

from torchstone.optim.flat import FlatParameters


@dataclass(frozen=True, kw_only=True, slots=True)
class EMA:
    """Exponential moving average of parameters and persistent floating buffers; integer buffers are copied.

    After update t the average moves by w = (1 - decay) / (1 - decay^t) towards the new weights: after the first it equals them, and
    at any t it is sum_i decay^(t-i) x_i / sum_i decay^(t-i), so the weights before training have no part in it. Called once an update,
    whatever the number of micro-batches. `average` comes from `FlatParameters.twin`. `skip` is 0-d; nonzero changes nothing.
    """

    decay: float = 0.999
    """Share of the past; the average spans about 1 / (1 - decay) updates. 0 follows the weights exactly."""

    neutral: ClassVar["EMA"]

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"EMA.decay must be in [0, 1), got {self.decay}")

    def weight(self, updates: int) -> float:
        """Share of the newest weights in the average after update number `updates`, counted from 1."""
        return 1.0 if self.decay == 0 or updates <= 1 else (1 - self.decay) / -expm1(updates * log(self.decay))

    def __call__(self, average: FlatParameters, parameters: FlatParameters, updates: int, *, skip: Tensor | None = None) -> None:
        weight = self.weight(updates)
        _move(average.data, parameters.data, weight, skip)
        if average.buffers is not None and parameters.buffers is not None:
            _move(average.buffers, parameters.buffers, weight, skip)
        else:
            for mine, new in zip(average.float_buffers.values(), parameters.float_buffers.values(), strict=True):
                _move(mine, new, weight, skip)
        mine, new = list(average.other_buffers.values()), list(parameters.other_buffers.values())
        if new:
            torch._foreach_copy_(mine, new if skip is None else [torch.where(skip != 0, a, b) for a, b in zip(mine, new, strict=True)])


EMA.neutral = EMA(decay=0.0)


def _move(average: Tensor, new: Tensor, weight: float, skip: Tensor | None) -> None:
    if new.dtype != average.dtype:
        new = new.to(average.dtype)
    if skip is None:
        average.lerp_(new, weight)
    else:  # not a weight of 0: a skipped forward may have left NaN in a batch norm, and 0 * NaN is NaN
        average.copy_(torch.where(skip != 0, average, average.lerp(new, weight)))
