"""What a picture's bytes mean: a uint8 value v stands for v / 255, so that pictures stay small until a number is really needed."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, ImageShape


def as_float(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Bytes as float32 in [0, 1]; anything else (floats, token indices) as it is."""
    return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x


def image_shape(facts: Facts, part: str) -> ImageShape:
    """The shape of the data's images; a UserError that names `part` where they are no images."""
    if not isinstance(facts.inputs, ImageShape):
        raise UserError(f"{part} needs images, but the data are {type(facts.inputs).__name__}")
    return facts.inputs
