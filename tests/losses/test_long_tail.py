"""Class-balanced weights, logit adjustment, LDAM and ArcFace against their papers' formulas in NumPy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from losses.test_every_loss import C, N, draw, whole
from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, TokenShape, VectorShape
from torchstone.losses import LDAM, Arcface, CrossEntropy, Focal, LogitAdjustment

COUNTS = (100, 10, 1, 50, 5)
FACTS = Facts(inputs=VectorShape(3), classes=tuple("abcde"), class_counts=COUNTS)


def nll(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 1 - 1e-12])
def test_effective_number(beta: float) -> None:
    """Cui et al., eq. 8; at 0 all weigh 1, towards 1 it becomes the inverse frequency (normalized to add up to C)."""
    weights = np.array(CrossEntropy(weighting="effective", beta=beta).resolve(FACTS).class_weights)
    raw = (1 - beta) / (1 - beta ** np.array(COUNTS, dtype=np.float64)) if beta < 0.9999 else 1 / np.array(COUNTS)
    np.testing.assert_allclose(weights, raw / raw.sum() * C, rtol=1e-9 if beta < 0.9999 else 1e-6)
    resolved = Focal(weighting="effective", beta=beta).resolve(FACTS)
    assert resolved.class_weights == tuple(weights) and resolved.resolve(FACTS) == resolved


def test_logit_adjustment() -> None:
    logits, target = draw(N, C), whole(N)
    loss = LogitAdjustment(tau=1.3).resolve(FACTS)
    priors = np.array(COUNTS) / sum(COUNTS)
    np.testing.assert_allclose(loss.priors, priors, rtol=1e-15)
    expected = nll(logits.numpy() + 1.3 * np.log(priors), target.numpy())
    np.testing.assert_allclose(loss(logits, target).numpy(), expected, rtol=1e-12)
    assert torch.equal(LogitAdjustment(tau=0.0).resolve(FACTS)(logits, target), CrossEntropy()(logits, target))
    smooth = LogitAdjustment(priors=(0.2,) * 5, smoothing=0.1)
    torch.testing.assert_close(smooth(logits, target), CrossEntropy(smoothing=0.1)(logits, target))  # equal priors change nothing


def test_ldam() -> None:
    logits, target = draw(N, C), whole(N)
    loss = LDAM(max_margin=0.4, scale=7.0).resolve(FACTS)
    raw = np.array(COUNTS, dtype=np.float64) ** -0.25
    np.testing.assert_allclose(loss.margins, raw * 0.4 / raw.max(), rtol=1e-12)
    moved = logits.numpy().copy()
    moved[np.arange(N), target.numpy()] -= np.array(loss.margins)[target.numpy()]
    np.testing.assert_allclose(loss(logits, target).numpy(), nll(7 * moved, target.numpy()), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("angle, cosine", [(0.5, 0.0), (0.0, 0.35), (0.3, 0.2)])
def test_arcface(angle: float, cosine: float) -> None:
    target = whole(N)
    cosines = draw(N, C).tanh()
    y, rows = target.numpy(), np.arange(N)
    theta = np.arccos(cosines.numpy()[rows, y])
    turned = np.where(theta < math.pi - angle, np.cos(theta + angle), np.cos(theta) - angle * math.sin(angle))
    moved = cosines.numpy().copy()
    moved[rows, y] = turned - cosine
    loss = Arcface(scale=16.0, angle=angle, cosine=cosine)
    np.testing.assert_allclose(loss(cosines, target).numpy(), nll(16 * moved, y), rtol=1e-11, atol=1e-13)
    ends = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    loss(ends, torch.tensor([0, 0])).sum().backward()
    assert ends.grad is not None and bool(ends.grad.isfinite().all())


@pytest.mark.parametrize(
    "loss", [LDAM(margins=(0.5, 0.1, 0.2, 0.3, 0.4)), Arcface(), LogitAdjustment(priors=(0.1, 0.2, 0.3, 0.2, 0.2))], ids=str
)
def test_one_hot_probabilities_are_classes_and_ignored_ones_left_out(loss: LDAM | Arcface | LogitAdjustment) -> None:
    x, target = draw(N, C).tanh(), whole(N)
    torch.testing.assert_close(loss(x, F.one_hot(target, C).double()), loss(x, target), rtol=1e-12, atol=1e-12)
    target[1] = -100
    assert float(loss(x, target)[1]) == float(loss.weight(target)[1]) == 0


def test_what_resolve_refuses() -> None:
    empty = Facts(inputs=VectorShape(3), classes=("cat", "dog"), class_counts=(4, 0))
    text = Facts(inputs=TokenShape(256, 8))
    for loss in (LogitAdjustment(), LDAM(), CrossEntropy(weighting="effective")):
        with pytest.raises(UserError, match="without training examples: dog"):
            loss.resolve(empty)
        with pytest.raises(UserError, match="no classes"):
            loss.resolve(text)
        with pytest.raises(ValueError, match="resolve"):
            loss(draw(N, C), whole(N))
    with pytest.raises(UserError, match="one number a class: found 3, the data have 5"):
        LDAM(margins=(0.1, 0.2, 0.3)).resolve(FACTS)
    with pytest.raises(UserError, match="one number a class: found 2, the data have 5"):
        LogitAdjustment(priors=(0.1, 0.2)).resolve(FACTS)
