"""How a tracker reads a report: which updates it looks at, how fast the samples went by, and numbers that any file may hold.

A loss or a norm on an accelerator is a 0-d tensor; turning it into a float waits for the device, so that is done for the updates
that are written and for no other.
"""

import math
from typing import Any

import numpy as np
from torch import Tensor

from torchstone.core.protocols import StepReport


class Pace:
    """Chooses the first update and every `every`-th one: by its number, so that a resumed run writes the same ones."""

    __slots__ = ("every", "samples", "seconds")

    def __init__(self, every: int) -> None:
        self.every = every
        self.samples = 0
        self.seconds = 0.0

    def due(self, report: StepReport) -> bool:
        """Counts the update; True if it is one to write."""
        self.samples += report.samples
        self.seconds += report.seconds
        return report.step % self.every == 0 or report.step == 1

    def samples_per_s(self) -> float | None:
        """Samples a second since the last answer; None where no time has passed."""
        speed = self.samples / self.seconds if self.seconds > 0 else None
        self.samples, self.seconds = 0, 0.0
        return speed


def number(value: Any) -> float | int | None:
    """A plain number; None where it is not finite (JSON and spreadsheets know no NaN) or no single number at all."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        if math.prod(value.shape) != 1:
            return None
        value = value.item()
    if isinstance(value, bool | int):
        return int(value)
    return value if isinstance(value, float) and math.isfinite(value) else None
