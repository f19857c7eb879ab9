"""Random boxes in images, as Cutout and CutMix cut them.

Shapes: N boxes in images of H x W pixels.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def boxes(
    center: Float[Tensor, "N 2"], sides: Int[Tensor, "N 2"], height: int, width: int
) -> tuple[Bool[Tensor, "N 1 H W"], Int[Tensor, " N"]]:
    """Boxes of `sides` (rows, columns) pixels about the pixel at `center` (shares of the image in [0, 1)), cut off at its edges: the
    pixels inside, and how many they are."""
    inside = []
    for dim, length in enumerate((height, width)):
        first = (center[:, dim] * length).to(torch.int64) - sides[:, dim] // 2
        place = torch.arange(length, device=center.device) - first[:, None]
        inside.append((place >= 0) & (place < sides[:, dim, None]))
    rows, columns = inside
    return rows[:, None, :, None] & columns[:, None, None, :], rows.sum(dim=1) * columns.sum(dim=1)
