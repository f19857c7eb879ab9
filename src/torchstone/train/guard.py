"""The guard: no update is ever made from a loss or a gradient that is not finite, and training ends there.

On the CPU the numbers are read at once. On an accelerator the verdict stays a flag on the device that every later kernel obeys;
the host reads it one step late, so that the loop never waits. All numbers are sums over all ranks, so all ranks decide alike.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(slots=True)
class Guard:
    """Sticky: once tripped, every later update is a no-op."""

    device: torch.device
    tripped_at: int | None = None
    """The step whose loss or gradient was not finite, once the host knows it."""
    skip: Tensor | None = None
    """On an accelerator, 0-d float32: 1 where the update at hand must change nothing. None on the CPU."""
    flag: Tensor | None = None
    """On an accelerator, 0-d float32: 1 for good once something was not finite. None on the CPU."""
    _sent: tuple[int, Tensor, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.device.type != "cpu":
            self.flag = torch.zeros((), device=self.device)

    def may_update(self, step: int, loss: Any, norm: Any, weight: Any) -> bool:
        """The verdict on `step`; `weight` is the sum of all term weights, 0 when there was nothing to learn from.

        The numbers are floats on the CPU, 0-d tensors elsewhere. On an accelerator True may be late by one step; until then
        `skip` stops the kernels.
        """
        if self.flag is None:
            if not (math.isfinite(loss) and math.isfinite(norm)) and self.tripped_at is None:
                self.tripped_at = step
            return self.tripped_at is None and weight != 0
        self.read()
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        self.flag.copy_(torch.maximum(self.flag, (~finite).float()))
        self.skip = torch.maximum(self.flag, (weight == 0).float())
        self._send(step, self.flag)
        return self.tripped_at is None

    def read(self) -> None:
        """Waits for the flag that the previous step sent to the host."""
        if self._sent is None:
            return
        step, copy, event = self._sent
        event.synchronize()
        if copy.item() and self.tripped_at is None:
            self.tripped_at = step
        self._sent = None

    def _send(self, step: int, flag: Tensor) -> None:
        copy = torch.empty((), pin_memory=True)
        copy.copy_(flag, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._sent = (step, copy, event)
