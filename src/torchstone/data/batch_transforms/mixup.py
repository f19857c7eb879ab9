"""Mixup: train on blends of two samples and of their targets.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2017, https://arxiv.org/abs/1710.09412, eq. 1.
Shapes: N samples, C classes.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch, Facts, TokenShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixup:
    """Rows 2i and 2i + 1 become lam x + (1 - lam) x' of each other, lam ~ Beta(alpha, alpha) from the first one's key.

    Batch inputs [N, ...] float, target Int[N] or probabilities Float[N, C]; the new target is probabilities.
    A row of weight 0, its partner, and an odd last row keep their inputs and their classes.
    """

    neutral: ClassVar["Mixup"]
    train_only: ClassVar[bool] = True

    alpha: float = 0.2
    """How even the blends are: near 0 nearly pure samples, 1 all shares equally likely; 0 is off."""
    classes: int = 0
    """Number of classes; 0: from the data."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"Mixup.alpha must be finite and >= 0, got {self.alpha}")
        if self.classes < 0:
            raise ValueError(f"Mixup.classes must be >= 0, got {self.classes}")

    @property
    def group(self) -> int:
        """Rows that are blended with each other: pairs, or none at alpha 0."""
        return 2 if self.alpha else 1

    def resolve(self, facts: Facts) -> Self:
        """The number of classes from the data."""
        if isinstance(facts.inputs, TokenShape) or not facts.classes:
            raise UserError("Mixup blends numbers and classes, but the data are tokens or have no classes")
        if self.classes not in (0, len(facts.classes)):
            raise UserError(f"Mixup.classes is {self.classes}, but the data have {len(facts.classes)}")
        return replace(self, classes=len(facts.classes))

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch:
        if self.alpha == 0:
            return batch
        share = self._share(batch.weight, keys)
        rows = torch.arange(len(keys), device=keys.device)
        partner = (rows ^ 1).clamp(max=len(keys) - 1)
        probabilities = self._probabilities(batch.target)
        return replace(batch, inputs=_blend(batch.inputs, partner, share), target=_blend(probabilities, partner, share))

    def _share(self, weight: Float[Tensor, " N"], keys: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """What each row keeps of itself: lam, or 1 where nothing is mixed in."""
        pairs = len(keys) // 2
        both = weight[: 2 * pairs].view(pairs, 2).ne(0).all(dim=1)
        lam = torch.where(both, random.beta(keys[: 2 * pairs : 2], self.alpha), 1.0)
        share = lam.new_ones(len(keys))
        share[: 2 * pairs] = lam.repeat_interleave(2)
        return share

    def _probabilities(self, target: Tensor) -> Float[Tensor, "N C"]:
        if target.is_floating_point():
            return target
        if self.classes == 0:
            raise ValueError("Mixup.classes is 0: resolve(facts) fills it from the data")
        return one_hot(target, self.classes).to(torch.float32)


Mixup.neutral = Mixup(alpha=0.0)


def _blend(x: Float[Tensor, "N ..."], partner: Int[Tensor, " N"], share: Float[Tensor, " N"]) -> Float[Tensor, "N ..."]:
    share = share.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    # where: a padding row may hold anything, and 0 times infinity is NaN.
    return torch.where(share == 1, x, share * x + (1 - share) * x[partner])
