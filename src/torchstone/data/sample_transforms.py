"""Changes to one sample as it is read, in the process that reads it.

Shapes: C channels, H x W pixels.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from torchstone.core import random
from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, InputShape, PyTree
from torchstone.data.pixels import as_float


@dataclass(frozen=True, kw_only=True, slots=True)
class Resize:
    """Images to one size by bilinear interpolation, antialiased when they shrink (each output pixel sees its whole area).

    Sample: (image [C, H, W], target). An image that already has the size is left alone.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "the size that changes nothing is the data's own"
    train_only: ClassVar[bool] = False

    height: int
    """Pixels."""
    width: int
    """Pixels."""

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"Resize.{name} must be at least 1, got {getattr(self, name)}")

    def reshape(self, inputs: InputShape) -> InputShape:
        """The shape of the inputs after this transform."""
        if not isinstance(inputs, ImageShape):
            raise UserError(f"Resize needs images, but the data are {type(inputs).__name__}")
        return ImageShape(inputs.channels, self.height, self.width)

    def __call__(self, sample: tuple[PyTree, PyTree], key: int) -> tuple[PyTree, PyTree]:
        image, target = sample
        if image.shape[-2:] == (self.height, self.width):
            return sample
        return interpolate(as_float(image)[None], size=(self.height, self.width), mode="bilinear", antialias=True)[0], target


@dataclass(frozen=True, kw_only=True, slots=True)
class AddNoise:
    """Gaussian noise on every number of the inputs, drawn from the sample's key. Sample: (tensor, target); bytes become floats."""

    neutral: ClassVar["AddNoise"]
    train_only: ClassVar[bool] = True

    std: float = 0.1
    """Standard deviation, in the units of the inputs."""

    def __post_init__(self) -> None:
        if not 0 <= self.std < float("inf"):
            raise ValueError(f"AddNoise.std must be finite and >= 0, got {self.std}")

    def __call__(self, sample: tuple[PyTree, PyTree], key: int) -> tuple[PyTree, PyTree]:
        if self.std == 0:
            return sample
        inputs, target = as_float(sample[0]), sample[1]
        return inputs + self.std * _normal(key, inputs), target


AddNoise.neutral = AddNoise(std=0.0)


def _normal(key: int, like: Tensor) -> Tensor:
    return random.normal(torch.tensor([key]), like.numel()).reshape(like.shape).to(like.dtype)
