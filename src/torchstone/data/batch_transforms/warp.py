"""Warp: turn, shear, shift, scale, crop and mirror each image, all of it in one sampling pass.

The random resized crop is Szegedy et al., "Going Deeper with Convolutions", 2014, https://arxiv.org/abs/1409.4842, section 6
(its values are the defaults); the affine part is LeCun et al., "Gradient-Based Learning Applied to
Document Recognition", 1998, section III.C. Shapes: N images of C channels and H x W pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from torchstone.core import random
from torchstone.core.protocols import Batch, Facts
from torchstone.data.pixels import image_shape
from torchstone.ops.warp import compose, linear, rotation, shift, warp, warped

_TRIES = 10
"""Crops drawn until one fits; the whole image where none does (as in the papers' code)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Warp:
    """Crops, mirrors, scales, shears, turns and shifts each image, in this order, as one affine map. Batch inputs [N, C, H, W], bytes or
    floats, come out in the same type and size. By default the random resized
    crop of the paper, mirrored half of the time; what else there is, is off."""

    neutral: ClassVar["Warp"]
    train_only: ClassVar[bool] = True
    group: ClassVar[int] = 1

    rotation: float = 0.0
    """Largest turn either way, in degrees."""
    shear: float = 0.0
    """Largest horizontal shear either way, in degrees."""
    translation: float = 0.0
    """Largest shift in each direction, as a share of the side."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest factor on the picture's size."""
    crop_area: float = 0.08
    """Smallest share of the image that a random crop keeps (the largest is all of it); 1: no crop."""
    crop_ratio: float = 4 / 3
    """How far a crop's width : height may be from the image's own, either way."""
    flip: float = 0.5
    """Probability of a mirrored image (left and right)."""
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """Between pixels: weighted by distance, or the nearest one."""
    fill: Literal["reflect", "zero", "edge"] = "reflect"
    """What lies outside the image: its mirror image, zeros, or its nearest pixel."""

    def __post_init__(self) -> None:
        low, high = self.scale
        checks = {
            "rotation": (0 <= self.rotation <= 180, "between 0 and 180 degrees"),
            "shear": (0 <= self.shear < 90, ">= 0 and below 90 degrees"),
            "translation": (0 <= self.translation <= 1, "between 0 and 1"),
            "scale": (0 < low <= high < math.inf, "two finite numbers > 0, the smaller one first"),
            "crop_area": (0 < self.crop_area <= 1, "> 0 and at most 1"),
            "crop_ratio": (1 <= self.crop_ratio < math.inf, "finite and >= 1"),
            "flip": (0 <= self.flip <= 1, "between 0 and 1"),
        }
        for name, (good, what) in checks.items():
            if not good:
                raise ValueError(f"Warp.{name} must be {what}, got {getattr(self, name)}")

    @property
    def off(self) -> bool:
        """Whether no field moves a pixel."""
        moves = self.rotation or self.shear or self.translation or self.flip
        return not moves and self.scale == (1.0, 1.0) and self.crop_area == 1

    def resolve(self, facts: Facts) -> Self:
        image_shape(facts, "Warp")
        return self

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch:
        if self.off:
            return batch
        height, width = batch.inputs.shape[-2:]
        maps = self.maps(keys, height, width)
        return replace(batch, inputs=warp(batch.inputs, maps, interpolation=self.interpolation, fill=self.fill))

    def pieces(self, images: Tensor, keys: Int[Tensor, " N"]) -> Iterator[tuple[slice, Float[Tensor, "K C H W"]]]:
        """What it makes of the images, a few at a time (`ops.warp.warped`)."""
        return warped(images, self.maps(keys, *images.shape[-2:]), interpolation=self.interpolation, fill=self.fill)

    def maps(self, keys: Int[Tensor, " N"], height: int, width: int) -> Float[Tensor, "N 2 3"]:
        """Each image's map from output pixels to the places they are read from (see `ops.warp`)."""
        draws = random.uniform(keys, 8 + 2 * _TRIES).double()
        turn, shear, right, down, zoom, mirrored = draws[:, :6].unbind(dim=1)
        one, zero = torch.ones_like(turn), torch.zeros_like(turn)
        low, high = self.scale
        size = low + (high - low) * zoom
        lean = torch.tan(_either_way(shear, self.shear) * (math.pi / 180))
        crop_width, crop_height, crop_x, crop_y = self._crop(draws[:, 6:], height, width)
        center_x, center_y = (width - 1) / 2 * one, (height - 1) / 2 * one
        return compose(
            shift(crop_x, crop_y),
            linear(torch.where(mirrored < self.flip, -crop_width, crop_width), zero, zero, crop_height),
            linear(1 / size, lean / size, zero, 1 / size),
            rotation(_either_way(turn, self.rotation)),
            shift(
                -center_x - _either_way(right, self.translation * width),
                -center_y - _either_way(down, self.translation * height),
            ),
        )

    def _crop(self, draws: Float64[Tensor, "N M"], height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Width and height of each crop as shares of the image, and where its center is, in pixels."""
        place, tries = draws[:, :2], draws[:, 2:].unflatten(1, (2, _TRIES))
        area = self.crop_area + (1 - self.crop_area) * tries[:, 0]
        ratio = torch.exp(_either_way(tries[:, 1], math.log(self.crop_ratio))) if self.crop_area < 1 else torch.ones_like(area)
        wide, high = (area * ratio).sqrt(), (area / ratio).sqrt()
        fits = (wide <= 1) & (high <= 1)
        first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
        some = fits.any(dim=1)
        wide, high = (torch.where(some, share.gather(1, first)[:, 0], 1.0) for share in (wide, high))
        x, y = (
            (share / 2 + (1 - share) * u) * side - 0.5
            for share, u, side in zip((wide, high), place.unbind(1), (width, height), strict=True)
        )
        return wide, high, x, y


Warp.neutral = Warp(crop_area=1.0, flip=0.0)


def _either_way(draw: Float64[Tensor, "*shape"], most: float) -> Float64[Tensor, "*shape"]:
    """Uniform in [-most, most) from uniform in [0, 1)."""
    return (2 * draw - 1) * most
