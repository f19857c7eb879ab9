"""The plan of an epoch: which samples each update, rank and micro-batch holds, known to every rank before the first step.

A window of `batch_size` samples of the global order is one update. It is cut at multiples of `group` rows (rows that a transform mixes
stay together) into as many near-equal shares as ranks x micro-batches. Every rank gets the same number of micro-batches; where there are
fewer groups than shares, a share repeats the window's first group with weight 0. The last window of an epoch may be short: it is an
update like the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Share = tuple[np.ndarray, np.ndarray]
"""(positions in the split int64 [n], weights float32 [n]: 1, or all 0 for padding) of one micro-batch on one rank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The cut of `samples` positions into updates; holds no order, so it is the same for every epoch."""

    samples: int
    batch_size: int
    microbatch_size: int | None = None
    """Rows of one forward at most; None: a rank's whole share."""
    world: int = 1
    group: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.samples:
            raise ValueError(
                f"run.batch_size is {self.batch_size}, but the training split has {self.samples} samples; at most that many fit in a "
                f"batch, as in run.batch_size={self.samples}"
            )
        if self.microbatch_size is not None and (self.microbatch_size < self.group or self.microbatch_size % self.group):
            raise ValueError(f"run.microbatch_size is {self.microbatch_size}, but rows mix in groups of {self.group}: use a multiple of it")

    @property
    def updates(self) -> int:
        """Updates in one epoch."""
        return -(-self.samples // self.batch_size)

    def update(self, order: np.ndarray, number: int) -> list[list[Share]]:
        """Shares of update `number` (from 0) of the epoch with this order: [rank][micro-batch]."""
        window = order[number * self.batch_size : (number + 1) * self.batch_size]
        groups = -(-len(window) // self.group)
        most = groups if self.microbatch_size is None else self.microbatch_size // self.group
        each = -(-(-(-groups // self.world)) // most)
        shares = self.world * each
        cuts = [min(len(window), self.group * (groups * i // shares)) for i in range(shares + 1)]
        cuts[-1] = len(window)
        filled = [_share(window[a:b], window[: self.group]) for a, b in pairwise(cuts)]
        return [filled[rank * each : (rank + 1) * each] for rank in range(self.world)]

    def rows(self, order: np.ndarray, rank: int, start: int = 0) -> Iterator[list[Share]]:
        """One rank's micro-batches, update by update, from update `start` of the epoch on."""
        for number in range(start, self.updates):
            yield self.update(order, number)[rank]


def evaluation_rows(samples: int, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[list[Share]]:
    """The batches of an evaluation that fall to `rank`: the cut is the same for any number of ranks and nothing is padded,
    so every sample is scored once and a batch gives the same bits wherever it is computed."""
    for start in range(rank * batch_size, samples, world * batch_size):
        rows = np.arange(start, min(start + batch_size, samples), dtype=np.int64)
        yield [(rows, np.ones(len(rows), dtype=np.float32))]


def _share(rows: np.ndarray, padding: np.ndarray) -> Share:
    if len(rows):
        return rows, np.ones(len(rows), dtype=np.float32)
    return padding, np.zeros(len(padding), dtype=np.float32)
