"""Test-time augmentation: a picture is looked at in several ways, and the probabilities are averaged.

The views are those of the multi-crop evaluation in Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024,
https://arxiv.org/abs/2404.00498: the picture and its mirror image, and both moved by a pixel along the diagonal, up-left and
down-right, which together weigh as much as the unmoved ones. Probabilities are averaged where that work averages logits, so
the result is a probability for any model. Shapes: N pictures, K channels, H x W pixels, C classes.
"""

from collections.abc import Iterator
from math import log
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from torchstone.core.protocols import PyTree

Views = Literal["one", "flip", "flip_shift"]


def averaged(model: nn.Module, inputs: PyTree, views: Views) -> Tensor:
    """log of the mean probability of each class over the views, [N, C], float32 or wider; "one" is model(inputs) itself.

    Several views take images [N, K, H, W] and a model in evaluation mode; they are forwarded one after the other, so memory does
    not grow with their number.
    """
    if views == "one":
        return model(inputs)
    weighted = [_log_probabilities(model(view)) + log(weight) for view, weight in views_of(inputs, views)]
    return torch.stack(weighted).logsumexp(dim=0)


def views_of(images: Float[Tensor, "N K H W"], views: Views) -> Iterator[tuple[Float[Tensor, "N K H W"], float]]:
    """Each view with its weight; the weights add up to 1."""
    shifts = {0: 1.0} if views != "flip_shift" else {0: 0.5, -1: 0.25, 1: 0.25}
    for pixels, weight in shifts.items():
        moved = _moved(images, pixels)
        if views == "one":
            yield moved, weight
        else:
            yield moved, weight / 2
            yield moved.flip(-1), weight / 2


def _moved(images: Float[Tensor, "N K H W"], pixels: int) -> Float[Tensor, "N K H W"]:
    """Every picture moved right and down by -1, 0 or 1 pixels; its own border, mirrored, fills the gap."""
    if pixels == 0:
        return images
    height, width = images.shape[-2:]
    start = 1 - pixels
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect" if min(height, width) > 1 else "replicate")
    return padded[..., start : start + height, start : start + width]


def _log_probabilities(logits: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    return (logits.float() if logits.dtype.itemsize < 4 else logits).log_softmax(dim=-1)
