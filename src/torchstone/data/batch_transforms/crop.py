"""Padded crop: shift each image by a few pixels, as a crop of its own size from its padded self.

He et al., "Deep Residual Learning for Image Recognition", 2015, https://arxiv.org/abs/1512.03385, section 4.2 (4 pixels on 32 x 32).
Shapes: N images of C channels and H x W pixels.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Int
from torch import Tensor

from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch, Facts, ImageShape


@dataclass(frozen=True, kw_only=True, slots=True)
class PaddedCrop:
    """Shifts each image by -padding ... padding pixels in both directions, all equally likely. Batch inputs [N, C, H, W]."""

    neutral: ClassVar["PaddedCrop"]
    train_only: ClassVar[bool] = True
    group: ClassVar[int] = 1

    padding: int = 4
    """Pixels on every side."""
    fill: Literal["zero", "reflect"] = "zero"
    """What lies outside the image: zeros, or its mirror image (without repeating the edge)."""

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"PaddedCrop.padding must be >= 0, got {self.padding}")

    def resolve(self, facts: Facts) -> Self:
        if not isinstance(facts.inputs, ImageShape):
            raise UserError(f"PaddedCrop needs images, but the data are {type(facts.inputs).__name__}")
        side = min(facts.inputs.height, facts.inputs.width)
        if self.padding >= side:
            raise UserError(f"PaddedCrop.padding is {self.padding}, but images of {side} pixels can be shifted by at most {side - 1}")
        return self

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch:
        if self.padding == 0:
            return batch
        height, width = batch.inputs.shape[-2:]
        shift = random.integers(keys, 2, 2 * self.padding + 1) - self.padding
        rows, row_inside = self._source(shift[:, 0], height)
        columns, column_inside = self._source(shift[:, 1], width)
        # One gather over pixels laid end to end.
        flat = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)[:, None].expand(-1, batch.inputs.shape[1], -1)
        moved = batch.inputs.flatten(2).gather(2, flat).view_as(batch.inputs)
        if self.fill == "zero":
            inside = row_inside[:, :, None] & column_inside[:, None, :]
            moved = moved.masked_fill_(~inside[:, None], 0)
        return replace(batch, inputs=moved)

    def _source(self, shift: Int[Tensor, " N"], size: int) -> tuple[Tensor, Tensor]:
        """Where each of `size` places comes from [N, size], and whether that lies inside the image."""
        place = torch.arange(size, device=shift.device) + shift[:, None]
        last = size - 1
        if self.fill == "zero":
            return place.clamp(0, last), (place >= 0) & (place <= last)
        return last - (last - place.abs()).abs(), place


PaddedCrop.neutral = PaddedCrop(padding=0)
