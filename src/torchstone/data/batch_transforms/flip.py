"""Flip: mirror images left and right, the oldest augmentation.

Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012, section 4.1.
Shapes: N images of C channels and H x W pixels.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Int
from torch import Tensor

from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch, Facts, ImageShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """Mirrors each image with probability `p`. Batch inputs [N, C, H, W]."""

    neutral: ClassVar["Flip"]
    train_only: ClassVar[bool] = True
    group: ClassVar[int] = 1

    p: float = 0.5
    """Probability of a mirrored image."""

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"Flip.p must be between 0 and 1, got {self.p}")

    def resolve(self, facts: Facts) -> Self:
        if not isinstance(facts.inputs, ImageShape):
            raise UserError(f"Flip needs images, but the data are {type(facts.inputs).__name__}")
        return self

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch:
        if self.p == 0:
            return batch
        mirrored = random.uniform(keys, 1).lt(self.p)[:, :, None, None]
        return replace(batch, inputs=torch.where(mirrored, batch.inputs.flip(-1), batch.inputs))


Flip.neutral = Flip(p=0.0)
