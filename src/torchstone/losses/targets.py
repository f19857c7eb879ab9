"""A classification target is class indices or probabilities: what every loss over classes needs to read both.

Shapes: `...` the terms (N examples, or N x T tokens), C classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torchstone.core.errors import UserError

Target = Int[Tensor, "..."] | Float[Tensor, "... C"]


class OutsideClasses(UserError, IndexError):
    """A class index that is none of the classes."""

    def __init__(self, row: int, found: int, classes: int) -> None:
        super().__init__(f"the target of row {row} of the batch is class {found}; the outputs have classes 0 to {classes - 1}")
        self.row, self.found, self.classes = row, found, classes


@contextmanager
def classes_named(target: Tensor, classes: int, ignore_index: int = -100) -> Iterator[None]:
    """Turns torch's error about an index into one that names the row. (An accelerator reports such an index later, in its own words.)"""
    try:
        yield
    except (IndexError, RuntimeError) as error:
        if target.is_floating_point() or target.device.type != "cpu":
            raise
        outside = ((target < 0) | (target >= classes)) & (target != ignore_index)
        if not outside.any():
            raise
        place = outside.nonzero()[0]
        raise OutsideClasses(int(place[0]) if len(place) else 0, int(target[tuple(place)]), classes) from error


def expectation(target: Target, values: Float[Tensor, "... C"]) -> Float[Tensor, "..."]:
    """Mean of `values` under the target: gathered for indices, summed for probabilities.

    Indices lie in [0, C); replace ignored ones first (`without_ignored`). Raises OutsideClasses for others.
    """
    if target.is_floating_point():
        return (target.to(values.dtype) * values).sum(dim=-1)
    with classes_named(target, values.shape[-1]):
        return values.gather(-1, target.long().unsqueeze(-1)).squeeze(-1)


def without_ignored(target: Int[Tensor, "..."], ignore_index: int) -> tuple[Int[Tensor, "..."], Bool[Tensor, "..."]]:
    """(the target with class 0 in place of ignored entries, which entries are kept)."""
    kept = target != ignore_index
    return torch.where(kept, target, 0), kept


def full_precision(logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """bfloat16 and float16 as float32: a log-softmax in half precision loses the loss's leading digits."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


def probabilities(
    target: Target, outputs: Float[Tensor, "... C"], ignore_index: int
) -> tuple[Float[Tensor, "... C"], Bool[Tensor, "..."] | None]:
    """(the target as probabilities of the outputs' type, one-hot for indices; which terms are kept, None for all).

    Raises OutsideClasses for an index that is no class, ValueError for probabilities of another shape than the outputs'.
    """
    if target.is_floating_point():
        if target.shape != outputs.shape:
            raise ValueError(f"the target's shape {tuple(target.shape)} is not that of the outputs {tuple(outputs.shape)}")
        return target.to(outputs.dtype), None
    safe, kept = without_ignored(target, ignore_index)
    with classes_named(target, outputs.shape[-1], ignore_index):
        return F.one_hot(safe.long(), outputs.shape[-1]).to(outputs.dtype), kept


def left_out(terms: Float[Tensor, "..."], kept: Bool[Tensor, "..."] | None) -> Float[Tensor, "..."]:
    """The terms, 0 with a gradient of 0 where they are not kept."""
    return terms if kept is None else torch.where(kept, terms, 0)


def index_weight(target: Target, ignore_index: int) -> Float[Tensor, "..."]:
    """The weight of each term where classes weigh the same: of indices 0 where ignored and else 1, of probabilities 1."""
    if target.is_floating_point():
        return torch.ones(target.shape[:-1], device=target.device)
    return (target != ignore_index).float()
