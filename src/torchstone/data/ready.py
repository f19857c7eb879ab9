"""The last touch before the model: bytes become floats, and images lie in memory as the model reads them best."""

from functools import partial

import torch
from jaxtyping import Shaped
from torch import Tensor

from torchstone.core.protocols import PyTree
from torchstone.data.pixels import as_float
from torchstone.data.pytree import map_leaves


def ready(inputs: PyTree, memory_format: str) -> PyTree:
    """Inputs as the model gets them; `memory_format` ("contiguous" or "channels_last") is that of images [N, C, H, W]."""
    return map_leaves(partial(_ready, channels_last=memory_format == "channels_last"), inputs)


def _ready(x: Shaped[Tensor, "*shape"], *, channels_last: bool) -> Shaped[Tensor, "*shape"]:
    x = as_float(x)
    return x.contiguous(memory_format=torch.channels_last) if channels_last and x.ndim == 4 else x
