"""Color jitter: random brightness, contrast, saturation and hue, and now and then no color at all, as one matrix an image.

Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012, section 4.1 began it; the factors are
Howard's, "Some Improvements on Deep Convolutional Neural Network Based Image Classification", 2013, https://arxiv.org/abs/1312.5402,
section 2.2; the random gray is Chen et al.'s (SimCLR), 2020, https://arxiv.org/abs/2002.05709, appendix A.
Shapes: N images of C channels and H x W pixels.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch, Facts
from torchstone.data.pixels import image_shape
from torchstone.ops.color import mix, recolor


@dataclass(frozen=True, kw_only=True, slots=True)
class ColorJitter:
    """Brightness, contrast (about the image's own mean luminance), saturation, hue, gray, always in this order, clamped to [0, 1] once
    at the end. Batch inputs [N, C, H, W] in [0, 1] or bytes (so before `normalize`) come out as floats. Gray images (C = 1) have
    brightness and contrast alone. By default what is usual for ImageNet: 0.4 of the first three; a field at 0 is off.
    """

    neutral: ClassVar["ColorJitter"]
    train_only: ClassVar[bool] = True
    group: ClassVar[int] = 1
    before: ClassVar[tuple[str, ...]] = ("normalize",)
    """It works on colors, which normalized numbers no longer are."""

    brightness: float = 0.4
    """The factor is between 1 - brightness (at least 0) and 1 + brightness."""
    contrast: float = 0.4
    """The same for the distance from the image's mean luminance."""
    saturation: float = 0.4
    """The same for the distance from the pixel's own luminance."""
    hue: float = 0.0
    """Largest turn of the hue either way, as a share of the full circle."""
    gray: float = 0.0
    """Probability of an image without color."""

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"ColorJitter.{name} must be finite and >= 0, got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"ColorJitter.hue must be between 0 and 0.5, got {self.hue}")
        if not 0 <= self.gray <= 1:
            raise ValueError(f"ColorJitter.gray must be between 0 and 1, got {self.gray}")

    @property
    def off(self) -> bool:
        """Whether no field changes a color."""
        return not (self.brightness or self.contrast or self.saturation or self.hue or self.gray)

    def resolve(self, facts: Facts) -> Self:
        channels = image_shape(facts, "ColorJitter").channels
        if channels not in (1, 3):
            raise UserError(f"ColorJitter needs images of 1 or 3 channels, but the data have {channels}")
        return self

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch:
        if self.off:
            return batch
        matrix, pull = self.matrices(keys, batch.inputs.shape[1])
        return replace(batch, inputs=recolor(batch.inputs, matrix, pull))

    def matrices(self, keys: Int[Tensor, " N"], channels: int) -> tuple[Float[Tensor, "N C C"], Float[Tensor, " N"]]:
        """What `ops.color.recolor` takes: each image's matrix, and how far its own mean luminance pulls."""
        draws = random.uniform(keys, 5)
        brightness = _factor(draws[:, 0], self.brightness)
        contrast = _factor(draws[:, 1], self.contrast)
        # (1 - contrast) * mean, where the mean is that of the brightened image.
        pull = (1 - contrast) * brightness
        if channels == 1:
            return (brightness * contrast)[:, None, None], pull
        gray = (draws[:, 4] < self.gray).to(torch.float32)
        return mix(brightness * contrast, _factor(draws[:, 2], self.saturation), (2 * draws[:, 3] - 1) * self.hue, gray), pull


ColorJitter.neutral = ColorJitter(brightness=0.0, contrast=0.0, saturation=0.0)


def _factor(draw: Float[Tensor, " N"], width: float) -> Float[Tensor, " N"]:
    """Uniform between 1 - width (at least 0) and 1 + width."""
    low, high = max(0.0, 1 - width), 1 + width
    return low + (high - low) * draw
