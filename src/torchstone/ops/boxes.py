"""Boxes: formats, overlaps and the measures built on them. Finite, with finite gradients, for boxes of no area too.

IoU: Jaccard, 1901. GIoU: Rezatofighi et al., 2019, https://arxiv.org/abs/1902.09630. DIoU, CIoU: Zheng et al., 2019,
https://arxiv.org/abs/1911.08287. Functions broadcast: boxes[:, None] against boxes[None] gives all pairs.
Shapes: `...` any, 4 the coordinates: x1 y1 x2 y2 (xyxy) or center, width, height (cxcywh). A box with x2 < x1 or y2 < y1 has no area.
"""

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

Boxes = Float[Tensor, "*any 4"]
Number = Float[Tensor, "*any"]


def xyxy_of(boxes_cxcywh: Boxes) -> Boxes:
    """Corners of boxes given by center and size."""
    center, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat((center - size / 2, center + size / 2), dim=-1)


def cxcywh_of(boxes_xyxy: Boxes) -> Boxes:
    """Center and size of boxes given by corners."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def area(boxes_xyxy: Boxes) -> Number:
    """Width times height; 0 where either is negative."""
    return _size(boxes_xyxy[..., :2], boxes_xyxy[..., 2:]).prod(dim=-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, in [0, 1]; 0 where the union is empty."""
    return _overlap(a, b)[0]


def giou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the share of the smallest box around both that neither fills, in (-1, 1]."""
    overlap, union = _overlap(a, b)
    hull = _size(*_hull(a, b)).prod(dim=-1)
    return overlap - _ratio(hull - union, hull)


def diou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the squared distance of the centers in units of the squared diagonal of the box around both."""
    return _overlap(a, b)[0] - _center_distance(a, b)


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """DIoU less alpha v, where v = 4 / pi^2 (difference of the angles atan(w / h))^2 and alpha = v / (1 - IoU + v), held constant."""
    overlap, _ = _overlap(a, b)
    v = 4 / pi**2 * (_angle(a) - _angle(b)).square()
    with torch.no_grad():
        alpha = _ratio(v, 1 - overlap + v)
    return overlap - _center_distance(a, b) - alpha * v


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(IoU, area of the union)."""
    common = _size(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])).prod(dim=-1)
    union = area(a) + area(b) - common
    return _ratio(common, union), union


def _hull(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])


def _size(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0)


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """top / bottom, 0 with a gradient of 0 where the bottom is 0."""
    there = bottom > 0
    return torch.where(there, top / torch.where(there, bottom, 1), 0)


def _center_distance(a: Tensor, b: Tensor) -> Tensor:
    between = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]).square().sum(dim=-1) / 4
    return _ratio(between, _size(*_hull(a, b)).square().sum(dim=-1))


def _angle(boxes: Tensor) -> Tensor:
    """atan(w / h), 0 for a point; atan2 is finite where h is 0, but its gradient at (0, 0) is not."""
    w, h = _size(boxes[..., :2], boxes[..., 2:]).unbind(dim=-1)
    point = (w == 0) & (h == 0)
    return torch.where(point, 0, torch.atan2(w, torch.where(point, 1, h)))
