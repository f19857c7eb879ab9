"""Mixup: train on blends of two samples and of their targets.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2017, https://arxiv.org/abs/1710.09412, eq. 1.
Shapes: N samples, C classes.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Int
from torch import Tensor

from torchstone.core import random
from torchstone.core.protocols import Batch, Facts
from torchstone.data.batch_transforms import pairs
from torchstone.data.pixels import as_float


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixup:
    """Rows 2i and 2i + 1 become lam x + (1 - lam) x' of each other, lam ~ Beta(alpha, alpha) from the first one's key.

    Batch inputs [N, ...] float (bytes become floats), target Int[N] or probabilities Float[N, C]; the new target is probabilities.
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
        return pairs.with_classes(self, facts)

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch:
        if self.alpha == 0:
            return batch
        lam = random.beta(keys[: len(keys) // 2 * 2 : 2], self.alpha)
        share = pairs.of_rows(torch.where(pairs.mixable(batch.weight), lam, 1.0), len(keys), last=1.0)
        partner = pairs.partners(keys)
        target = pairs.probabilities(batch.target, self.classes, "Mixup")
        return replace(batch, inputs=pairs.blend(as_float(batch.inputs), partner, share), target=pairs.blend(target, partner, share))


Mixup.neutral = Mixup(alpha=0.0)
