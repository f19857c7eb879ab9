"""What Mixup and Cutmix share: consecutive rows as partners, and targets as probabilities.

Shapes: N samples, C classes.
"""

from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, TokenShape

Part = TypeVar("Part")


def partners(keys: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Row 2i for row 2i + 1 and the other way round; an odd last row is its own partner."""
    return (torch.arange(len(keys), device=keys.device) ^ 1).clamp(max=max(len(keys) - 1, 0))


def mixable(weight: Float[Tensor, " N"]) -> Bool[Tensor, " P"]:
    """Of the N // 2 pairs, those without a row that only pads."""
    return weight[: len(weight) // 2 * 2].view(-1, 2).ne(0).all(dim=1)


def of_rows(pairs: Float[Tensor, " P"], count: int, last: float) -> Float[Tensor, " N"]:
    """The pairs' numbers for each of their rows, and `last` for an odd last row."""
    rows = pairs.new_full((count,), last)
    rows[: 2 * len(pairs)] = pairs.repeat_interleave(2)
    return rows


def blend(x: Float[Tensor, "N *rest"], partner: Int[Tensor, " N"], share: Float[Tensor, " N"]) -> Float[Tensor, "N *rest"]:
    """share x + (1 - share) of the partner's."""
    share = share.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    # where: a padding row may hold anything, and 0 times infinity is NaN.
    return torch.where(share == 1, x, share * x + (1 - share) * x[partner])


def probabilities(target: Tensor, classes: int, part: str) -> Float[Tensor, "N C"]:
    """Class indices as probabilities; probabilities as they are."""
    if target.is_floating_point():
        return target
    if classes == 0:
        raise ValueError(f"{part}.classes is 0: resolve(facts) fills it from the data")
    return one_hot(target, classes).to(torch.float32)


def with_classes(part: Part, facts: Facts) -> Part:
    """The part with its field `classes` filled from the data."""
    name, classes = type(part).__name__, getattr(part, "classes", 0)
    if isinstance(facts.inputs, TokenShape) or not facts.classes:
        raise UserError(f"{name} blends numbers and classes, but the data are tokens or have no classes")
    if classes not in (0, len(facts.classes)):
        raise UserError(f"{name}.classes is {classes}, but the data have {len(facts.classes)}")
    return replace(part, classes=len(facts.classes))  # type: ignore[type-var]
