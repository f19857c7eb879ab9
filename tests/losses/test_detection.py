"""Detectors' losses against their formulas in NumPy; the matching against every possible assignment."""

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit, log_softmax, softmax

from losses.test_every_loss import draw, whole
from torchstone.core.errors import WorkError
from torchstone.losses import GIOU, IOU, Detections, DistributionFocal, L1Boxes, Objects, SetPrediction, Varifocal
from torchstone.ops import boxes


def test_boxes() -> None:
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 1.0, 3.0, 3.0]], dtype=torch.float64)
    assert IOU()(a, b).item() == pytest.approx(1 - 1 / 7, rel=1e-15)
    assert GIOU()(a, b).item() == pytest.approx(1 - 1 / 7 + 2 / 9, rel=1e-15)
    assert L1Boxes()(a, b).item() == 4
    with pytest.raises(ValueError, match="a true box for each predicted one"):
        IOU()(a, b[0])


def test_varifocal() -> None:
    logits, q = draw(6, 4), draw(6, 4, seed=1).sigmoid() * whole(6, 4, high=2)
    p, x = expit(logits.numpy()), q.numpy()
    expected = np.where(x > 0, -x * (x * np.log(p) + (1 - x) * np.log(1 - p)), -0.6 * p**1.5 * np.log(1 - p)).sum(1)
    np.testing.assert_allclose(Varifocal(alpha=0.6, gamma=1.5)(logits, q).numpy(), expected, rtol=1e-12)


def test_distribution_focal() -> None:
    logits = draw(5, 8)
    y = torch.tensor([0.0, 2.25, 6.999, 7.0, 3.0], dtype=torch.float64)
    log_p = log_softmax(logits.numpy(), axis=1)
    left = [0, 2, 6, 6, 3]
    expected = [-((i + 1 - v) * row[i] + (v - i) * row[i + 1]) for v, row, i in zip(y.tolist(), log_p, left, strict=True)]
    np.testing.assert_allclose(DistributionFocal()(logits, y).numpy(), expected, rtol=1e-12, atol=1e-15)
    assert torch.equal(DistributionFocal()(logits, y + 10), -logits.log_softmax(1)[:, 7])


def detections() -> tuple[Detections, Objects]:
    classes = torch.tensor([[0, 2, -1], [-1, -1, -1], [1, -1, 1]])  # padding may lie anywhere
    guesses = Detections(draw(3, 5, 4), draw(3, 5, 4, seed=2).sigmoid())
    return guesses, Objects(classes, draw(3, 3, 4, seed=3).sigmoid())


def test_matching_is_the_least_of_all_assignments() -> None:
    guesses, objects = detections()
    loss = SetPrediction()
    image, query, item = loss.match(guesses, objects)
    p, boxed, true = softmax(guesses.logits.numpy(), axis=2), guesses.boxes_cxcywh, objects.boxes_cxcywh
    for row in range(3):
        items = [int(i) for i in (objects.classes[row] >= 0).nonzero()]

        def cost(assigned: tuple[int, ...], row: int = row, items: list[int] = items) -> float:
            total = 0.0
            for q, i in zip(assigned, items, strict=True):
                overlap = boxes.giou(boxes.xyxy_of(boxed[row, q]), boxes.xyxy_of(true[row, i]))
                total += (
                    -p[row, q, int(objects.classes[row, i])] + 5 * float((boxed[row, q] - true[row, i]).abs().sum()) - 2 * float(overlap)
                )
            return total

        best = min(permutations(range(5), len(items)), key=cost)
        found = {int(i): int(q) for n, q, i in zip(image, query, item, strict=True) if int(n) == row}
        assert found == dict(zip(items, best, strict=True))


def test_the_loss_is_the_papers_sum_over_the_number_of_objects() -> None:
    guesses, objects = detections()
    loss = SetPrediction(no_object=0.2)
    matches = {(int(n), int(q)): int(i) for n, q, i in zip(*loss.match(guesses, objects), strict=True)}
    log_p = log_softmax(guesses.logits.numpy(), axis=2)
    sums = np.zeros(3)
    for n in range(3):
        for q in range(5):
            if (n, q) not in matches:
                sums[n] -= 0.2 * log_p[n, q, 3]
                continue
            i = matches[n, q]
            a, b = guesses.boxes_cxcywh[n, q], objects.boxes_cxcywh[n, i]
            sums[n] -= log_p[n, q, int(objects.classes[n, i])]
            sums[n] += 5 * float((a - b).abs().sum()) + 2 * (1 - float(boxes.giou(boxes.xyxy_of(a), boxes.xyxy_of(b))))
    weight = loss.weight(objects)
    assert weight.tolist() == [2, 1, 2]
    np.testing.assert_allclose((loss(guesses, objects) * weight).numpy(), sums, rtol=1e-12)


def test_a_perfect_guess_in_any_order_costs_almost_nothing() -> None:
    _, objects = detections()
    order = torch.tensor([3, 0, 4])
    logits, boxed = torch.zeros(3, 5, 4, dtype=torch.float64), torch.full((3, 5, 4), 0.5, dtype=torch.float64)
    logits[..., 3] = 40.0
    for n in range(3):
        for i in range(3):
            if objects.classes[n, i] >= 0:
                logits[n, order[i]] = 40.0 * F.one_hot(objects.classes[n, i], 4)
                boxed[n, order[i]] = objects.boxes_cxcywh[n, i]
    assert float(SetPrediction()(Detections(logits, boxed), objects).abs().max()) < 1e-14


def test_more_objects_than_guesses() -> None:
    guesses = Detections(draw(1, 2, 4), draw(1, 2, 4).sigmoid())
    with pytest.raises(WorkError, match=r"more objects than the model has guesses \(2\)"):
        SetPrediction()(guesses, Objects(torch.tensor([[0, 1, 2]]), draw(1, 3, 4).sigmoid()))


def test_a_model_that_diverged_meets_the_guard_and_not_scipy() -> None:
    guesses = Detections(torch.full((1, 3, 4), float("nan")), torch.full((1, 3, 4), float("nan")))
    assert bool(SetPrediction()(guesses, Objects(torch.tensor([[0, 1]]), torch.rand(1, 2, 4))).isnan().all())
