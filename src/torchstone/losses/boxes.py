"""Losses between a predicted box and its true one. A term is a box.

IoU: Yu et al., "UnitBox", 2016, https://arxiv.org/abs/1608.01471 (here 1 - IoU). GIoU: Rezatofighi et al., 2019,
https://arxiv.org/abs/1902.09630. DIoU and CIoU: Zheng et al., 2019, https://arxiv.org/abs/1911.08287. See `ops.boxes`.
Shapes: `...` boxes, 4 the corners x1 y1 x2 y2.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from torchstone.losses.layouts import ones
from torchstone.losses.targets import full_precision
from torchstone.ops import boxes

OTHER = "how boxes overlap is another objective than cross-entropy"
Boxes = Float[Tensor, "... 4"]


@dataclass(frozen=True, kw_only=True, slots=True)
class L1Boxes:
    """Sum over the four coordinates of |predicted - true|. Not blind to size: relative coordinates make images comparable."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("boxes",)

    def __call__(self, boxes_xyxy: Boxes, target: Boxes) -> Float[Tensor, "..."]:
        return (full_precision(boxes_xyxy) - _true(boxes_xyxy, target)).abs().sum(dim=-1)

    def weight(self, target: Boxes) -> Float[Tensor, "..."]:
        return ones(target, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class IOU:
    """1 - IoU: the share of the union that is not common. No gradient between boxes that do not touch."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("boxes",)

    def __call__(self, boxes_xyxy: Boxes, target: Boxes) -> Float[Tensor, "..."]:
        return 1 - boxes.iou(full_precision(boxes_xyxy), _true(boxes_xyxy, target))

    def weight(self, target: Boxes) -> Float[Tensor, "..."]:
        return ones(target, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class GIOU:
    """1 - IoU + the share of the smallest box around both that neither fills: also pulls boxes together that do not touch."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("boxes",)

    def __call__(self, boxes_xyxy: Boxes, target: Boxes) -> Float[Tensor, "..."]:
        return 1 - boxes.giou(full_precision(boxes_xyxy), _true(boxes_xyxy, target))

    def weight(self, target: Boxes) -> Float[Tensor, "..."]:
        return ones(target, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class DIOU:
    """1 - IoU + the squared distance of the centers over the squared diagonal of the box around both."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("boxes",)

    def __call__(self, boxes_xyxy: Boxes, target: Boxes) -> Float[Tensor, "..."]:
        return 1 - boxes.diou(full_precision(boxes_xyxy), _true(boxes_xyxy, target))

    def weight(self, target: Boxes) -> Float[Tensor, "..."]:
        return ones(target, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class CIOU:
    """DIoU's loss + alpha v, v the squared difference of atan(w / h) in units of (pi / 2)^2, alpha = v / (1 - IoU + v) held constant."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("boxes",)

    def __call__(self, boxes_xyxy: Boxes, target: Boxes) -> Float[Tensor, "..."]:
        return 1 - boxes.ciou(full_precision(boxes_xyxy), _true(boxes_xyxy, target))

    def weight(self, target: Boxes) -> Float[Tensor, "..."]:
        return ones(target, 1)


def _true(predicted: Tensor, target: Tensor) -> Tensor:
    if predicted.shape != target.shape:
        raise ValueError(f"a true box for each predicted one: {tuple(predicted.shape)} predicted, {tuple(target.shape)} true")
    return target.to(full_precision(predicted).dtype)
