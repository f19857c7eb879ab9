"""CutMix: paste a box of one sample into another, and mix their targets by its area.

Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", 2019,
https://arxiv.org/abs/1905.04899, section 3.1. Shapes: N samples of H x W pixels, C classes.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Int
from torch import Tensor

from torchstone.core import random
from torchstone.core.protocols import Batch, Facts
from torchstone.data.batch_transforms import pairs
from torchstone.data.batch_transforms.boxes import boxes
from torchstone.data.pixels import image_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutmix:
    """Rows 2i and 2i + 1 exchange a box about a random pixel, cut off at the edges: 1 - lam of the image, lam ~ Beta(alpha, alpha) from
    the first one's key.

    Batch inputs [N, C, H, W], bytes or floats, target Int[N] or probabilities Float[N, C]; the new target is probabilities, by the share
    of pixels that were really exchanged. A row of weight 0, its partner, and an odd last row keep their inputs and their classes.
    """

    neutral: ClassVar["Cutmix"]
    train_only: ClassVar[bool] = True

    alpha: float = 1.0
    """1: all areas equally likely, near 0: nearly nothing or nearly all; 0 is off."""
    classes: int = 0
    """Number of classes; 0: from the data."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"Cutmix.alpha must be finite and >= 0, got {self.alpha}")
        if self.classes < 0:
            raise ValueError(f"Cutmix.classes must be >= 0, got {self.classes}")

    @property
    def group(self) -> int:
        """Rows that are mixed with each other: pairs, or none at alpha 0."""
        return 2 if self.alpha else 1

    def resolve(self, facts: Facts) -> Self:
        """The number of classes from the data."""
        image_shape(facts, "Cutmix")
        return pairs.with_classes(self, facts)

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch:
        if self.alpha == 0:
            return batch
        height, width = batch.inputs.shape[-2:]
        first = keys[: len(keys) // 2 * 2 : 2]
        side = (1 - random.beta(first, self.alpha)).sqrt() * pairs.mixable(batch.weight)
        sides = torch.stack((side * height, side * width), dim=1).round().to(torch.int64)
        # The first two draws of a key are its beta's.
        inside, area = boxes(random.uniform(first, 4)[:, 2:], sides, height, width)
        share = pairs.of_rows(1 - area / (height * width), len(keys), last=1.0)
        paired = batch.inputs[: 2 * len(first)].unflatten(0, (-1, 2))
        mixed = torch.where(inside[:, None], paired.flip(1), paired).flatten(0, 1)
        target = pairs.probabilities(batch.target, self.classes, "Cutmix")
        return replace(
            batch,
            inputs=torch.cat((mixed, batch.inputs[2 * len(first) :])),
            target=pairs.blend(target, pairs.partners(keys), share),
        )


Cutmix.neutral = Cutmix(alpha=0.0)
