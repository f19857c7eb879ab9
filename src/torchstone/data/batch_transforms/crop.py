"""Padded crop: shift each image by a few pixels, as a crop of its own size from its padded self.

He et al., "Deep Residual Learning for Image Recognition", 2015, https://arxiv.org/abs/1512.03385, section 4.2 (4 pixels on 32 x 32).
Shapes: N images of C channels and H x W pixels.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int, Shaped
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch, Facts
from torchstone.data.pixels import image_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class PaddedCrop:
    """Shifts each image by -padding ... padding pixels both ways, all equally likely. Batch inputs [N, C, H, W], bytes or floats."""

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
        images = image_shape(facts, "PaddedCrop")
        side = min(images.height, images.width)
        if self.padding >= side:
            raise UserError(f"PaddedCrop.padding is {self.padding}, but images of {side} pixels can be shifted by at most {side - 1}")
        return self

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch:
        if self.padding == 0:
            return batch
        corner = random.integers(keys, 2, 2 * self.padding + 1)
        padded = F.pad(batch.inputs, (self.padding,) * 4, mode="constant" if self.fill == "zero" else "reflect")
        cut = windows if padded.device.type == "cpu" and padded.dtype != torch.bfloat16 else gathered
        return replace(batch, inputs=cut(padded, corner, batch.inputs.shape[-2], batch.inputs.shape[-1]))


PaddedCrop.neutral = PaddedCrop(padding=0)


def windows(x: Shaped[Tensor, "N C X Y"], corner: Int[Tensor, "N 2"], height: int, width: int) -> Shaped[Tensor, "N C H W"]:
    """The window of each image whose upper left pixel is at `corner` (row, column). On the CPU: NumPy copies row by row."""
    every = sliding_window_view(x.numpy(), (height, width), axis=(2, 3))
    return torch.from_numpy(every[np.arange(len(x)), :, corner[:, 0].numpy(), corner[:, 1].numpy()])


def gathered(x: Shaped[Tensor, "N C X Y"], corner: Int[Tensor, "N 2"], height: int, width: int) -> Shaped[Tensor, "N C H W"]:
    """The same on any device: one gather over pixels laid end to end."""
    rows, columns = (corner[:, dim, None] + torch.arange(side, device=corner.device) for dim, side in enumerate((height, width)))
    flat = (rows[:, :, None] * x.shape[3] + columns[:, None, :]).flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, flat).view(*x.shape[:2], height, width)
