"""Losses that compare the samples of a whole batch (`couples`), under several ranks: every rank sees all rows, with gradient.

Each rank computes the terms of its own rows against all rows. What the other ranks' terms say of its rows comes back through the
gathering: its backward pass sums over the ranks, so the gradient is that of one process. Rows that only pad a share are left out.
Shapes: N rows of this rank, M of all ranks.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchstone.core import ranks
from torchstone.core.protocols import Batch, Loss, PyTree
from torchstone.data.pytree import map_leaves


@dataclass(frozen=True, slots=True)
class Whole:
    """Where this rank's rows lie among those of all ranks."""

    kept: Int[Tensor, " K"]
    """Its rows that are no padding."""
    rows: int
    """N: all of its rows."""
    start: int
    total: int

    def gather(self, tree: PyTree) -> PyTree:
        """The rows of all ranks, in the order of the batch."""
        return map_leaves(self._gather, tree)

    def _gather(self, rows: Tensor) -> Tensor:
        before = rows.new_zeros(self.start, *rows.shape[1:])
        after = rows.new_zeros(self.total - self.start - len(self.kept), *rows.shape[1:])
        return ranks.sum_with_gradient(torch.cat((before, rows.index_select(0, self.kept), after)))

    def own(self, values: Float[Tensor, " M"]) -> Float[Tensor, " N"]:
        """Of one number a row of all ranks, those of this rank's rows; 0 for padding."""
        mine = values.narrow(0, self.start, len(self.kept))
        return values.new_zeros(self.rows).index_copy(0, self.kept, mine)


def whole_batch(microbatches: list[Batch], loss: Loss) -> Whole | None:
    """None where each rank's rows are enough: the loss does not couple, or there is one rank."""
    if ranks.world() == 1 or not getattr(loss, "couples", False):
        return None
    (batch,) = microbatches  # checked before the run
    kept = (batch.weight > 0).nonzero().squeeze(1)
    counts = torch.zeros(ranks.world(), dtype=torch.int64)
    counts[ranks.rank()] = len(kept)
    ends = ranks.sum_(counts).cumsum(0).tolist()
    return Whole(kept, len(batch.weight), ends[ranks.rank()] - len(kept), ends[-1])


def weight(loss: Loss, target: PyTree, whole: Whole | None) -> Tensor:
    """The loss's weight of each of this rank's terms."""
    return loss.weight(target) if whole is None else whole.own(loss.weight(whole.gather(target)))


def terms(loss: Any, outputs: PyTree, target: PyTree, whole: Whole | None) -> Tensor:
    """This rank's terms."""
    return loss(outputs, target) if whole is None else whole.own(loss(whole.gather(outputs), whole.gather(target)))
