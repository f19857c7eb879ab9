"""Overlaps of boxes in exact rational arithmetic, by the papers' closed forms, and finite for boxes of no area."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchstone.ops import boxes

COORDINATE = st.integers(0, 6)


def box(numbers: tuple[int, int, int, int]) -> list[int]:
    x1, x2 = sorted(numbers[:2])
    y1, y2 = sorted(numbers[2:])
    return [x1, y1, x2, y2]


def exact(a: list[int], b: list[int]) -> tuple[Fraction, Fraction, Fraction, float]:
    """(IoU, GIoU, DIoU, CIoU) with 0 for every quotient whose denominator is 0."""

    def over(top: Fraction | int, bottom: Fraction | int) -> Fraction:
        return Fraction(top) / bottom if bottom else Fraction(0)

    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    hull_width, hull_height = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    iou = over(common, union)
    giou = iou - over(hull_width * hull_height - union, hull_width * hull_height)
    between = Fraction((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2, 4)
    diou = iou - over(between, hull_width**2 + hull_height**2)
    angles = [math.atan2(each[2] - each[0], each[3] - each[1]) for each in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    alpha = v / (1 - float(iou) + v) if v else 0.0
    return iou, giou, diou, float(diou) - alpha * v


@given(st.tuples(*[COORDINATE] * 4), st.tuples(*[COORDINATE] * 4))
def test_against_rational_arithmetic(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> None:
    """Small whole coordinates: equal, nested, touching, apart, and empty boxes all occur."""
    a, b = box(first), box(second)
    ours = [torch.tensor([each], dtype=torch.float64, requires_grad=True) for each in (a, b)]
    for function, wanted in zip((boxes.iou, boxes.giou, boxes.diou, boxes.ciou), exact(a, b), strict=True):
        value = function(*ours)
        assert value.item() == pytest.approx(float(wanted), rel=1e-14, abs=1e-15)
        torch.testing.assert_close(function(ours[1], ours[0]), value, rtol=1e-14, atol=1e-15)
        grads = torch.autograd.grad(value.sum(), ours)
        assert all(bool(grad.isfinite().all()) for grad in grads), (a, b, function)


@pytest.mark.parametrize("function", [boxes.iou, boxes.giou, boxes.diou])
def test_gradients_are_those_of_finite_differences(function: object) -> None:
    draw = torch.Generator().manual_seed(0)
    low = torch.rand(6, 2, generator=draw, dtype=torch.float64)
    a = torch.cat((low, low + 0.4 + torch.rand(6, 2, generator=draw, dtype=torch.float64)), dim=1).requires_grad_()
    b = (a.detach() + 0.1 * torch.randn(6, 4, generator=draw, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(function, (a, b), atol=1e-7)  # type: ignore[arg-type]


def test_ciou_holds_alpha_constant() -> None:
    """The gradient of the aspect term is alpha dv: by the closed form of dv/dw = 8/pi^2 (angle difference) h / (w^2 + h^2)."""
    a = torch.tensor([[0.0, 0.0, 3.0, 2.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[0.0, 0.0, 2.0, 2.0]], dtype=torch.float64)
    (grad,) = torch.autograd.grad((boxes.diou(a, b) - boxes.ciou(a, b)).sum(), a)
    difference = math.atan(1.5) - math.atan(1.0)
    v = 4 / math.pi**2 * difference**2
    alpha = v / (1 - 4 / 6 + v)
    along_w, along_h = (8 / math.pi**2 * difference * slope for slope in (2 / 13, -3 / 13))
    expected = alpha * torch.tensor([[-along_w, -along_h, along_w, along_h]], dtype=torch.float64)
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-14)


def test_formats_and_all_pairs() -> None:
    given_boxes = torch.tensor([[1.0, 2.0, 5.0, 4.0], [0.0, 0.0, 2.0, 2.0], [3.0, 3.0, 3.0, 3.0]], dtype=torch.float64)
    assert boxes.cxcywh_of(given_boxes)[0].tolist() == [3.0, 3.0, 4.0, 2.0]
    assert torch.equal(boxes.xyxy_of(boxes.cxcywh_of(given_boxes)), given_boxes)
    assert boxes.area(given_boxes).tolist() == [8.0, 4.0, 0.0]
    assert boxes.area(given_boxes[:, [2, 1, 0, 3]]).tolist() == [0.0, 0.0, 0.0]  # turned inside out: no area
    pairs = boxes.giou(given_boxes[:, None], given_boxes[None])
    assert pairs.shape == (3, 3) and pairs.diagonal().tolist() == [1.0, 1.0, 0.0]
    assert float(pairs[0, 1]) == float(boxes.giou(given_boxes[0], given_boxes[1]))


@pytest.mark.parametrize("function", [boxes.iou, boxes.giou, boxes.diou, boxes.ciou])
def test_inside_out_boxes_are_finite(function: object) -> None:
    a = torch.tensor([[3.0, 3.0, 1.0, 1.0], [0.0, 3.0, 2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    value = function(a, b)  # type: ignore[operator]
    (grad,) = torch.autograd.grad(value.sum(), a)
    assert bool(value.isfinite().all()) and bool(grad.isfinite().all()) and bool((value <= 0).all())
