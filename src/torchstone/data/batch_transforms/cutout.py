"""Cutout: hide a square of each image.

DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017, https://arxiv.org/abs/1708.04552,
section 3.2. Shapes: N images of C channels and H x W pixels.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Int
from torch import Tensor

from torchstone.core import random
from torchstone.core.protocols import Batch, Facts
from torchstone.data.batch_transforms.boxes import boxes
from torchstone.data.pixels import image_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutout:
    """Fills a square about a random pixel, cut off at the image's edges. Batch inputs [N, C, H, W], bytes or floats."""

    neutral: ClassVar["Cutout"]
    train_only: ClassVar[bool] = True
    group: ClassVar[int] = 1

    size: float = 0.5
    """The square's side as a share of the image's shorter one (the paper: 16 of 32 pixels on CIFAR-10); 0 is off."""
    p: float = 1.0
    """Probability of a square."""
    fill: Literal["mean", "zero"] = "mean"
    """What it is filled with: the training split's mean of each channel, or zeros (right after `normalize`, where they are the mean)."""
    mean: tuple[float, ...] = ()
    """One number a channel; empty: the training split's."""

    def __post_init__(self) -> None:
        for name in ("size", "p"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Cutout.{name} must be between 0 and 1, got {getattr(self, name)}")

    def resolve(self, facts: Facts) -> Self:
        """The training split's mean, where it is the fill and none is given."""
        image_shape(facts, "Cutout")
        return replace(self, mean=facts.mean) if self.fill == "mean" and not self.mean else self

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch:
        if self.size == 0 or self.p == 0:
            return batch
        height, width = batch.inputs.shape[-2:]
        draws = random.uniform(keys, 3)
        side = (draws[:, 0] < self.p).to(torch.int64) * round(self.size * min(height, width))
        hidden, _ = boxes(draws[:, 1:], torch.stack((side, side), dim=1), height, width)
        return replace(batch, inputs=torch.where(hidden, self._fill(batch.inputs), batch.inputs))

    def _fill(self, images: Tensor) -> Tensor:
        """One value a channel, in the images' own type and units."""
        if self.fill == "zero":
            return images.new_zeros(())
        if not self.mean:
            raise ValueError("Cutout.mean is empty: resolve(facts) fills it from the training split")
        mean = torch.tensor(self.mean, dtype=torch.float64, device=images.device).view(-1, 1, 1)
        return (mean * 255).round().to(torch.uint8) if images.dtype == torch.uint8 else mean.to(images.dtype)


Cutout.neutral = Cutout(size=0.0)
