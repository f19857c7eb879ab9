"""The losses that torch has: the weighted mean of our terms is torch's own mean, for value and gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from losses.test_every_loss import C, D, N, draw, signs, whole
from torchstone import losses
from torchstone.losses import Frames, Gaussian, Pair, Symbols

WEIGHTS = (0.2, 1.0, 3.5, 0.7, 1.3)
W = torch.tensor(WEIGHTS, dtype=torch.float64)
Y, LABELS, V, S = whole(N), whole(N, C, high=2), draw(N, D, seed=1), signs()
COUNTS = V.abs().round()
LISTED = torch.full((N, C), -1)
for row in range(N):
    there = LABELS[row].nonzero().flatten()
    LISTED[row, : len(there)] = there
SYMBOLS, SIZES, FRAMES = 1 + whole(N, 3, high=C - 1), torch.arange(N) % 3 + 1, torch.arange(N) % 3 + 7

# name -> (ours, its target, torch's own); x and z are leaves [N, C], [N, C]
DOORS: dict[str, tuple[Any, Any, Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Any]]] = {
    "mse": (losses.MSE(), V, lambda x, z: F.mse_loss(x[:, :D], V), lambda x, z: x[:, :D]),
    "l1": (losses.MAE(), V, lambda x, z: F.l1_loss(x[:, :D], V), lambda x, z: x[:, :D]),
    "huber": (losses.Huber(delta=0.7), V, lambda x, z: F.huber_loss(x[:, :D], V, delta=0.7), lambda x, z: x[:, :D]),
    "smooth_l1": (losses.SmoothL1(beta=0.3), V, lambda x, z: F.smooth_l1_loss(x[:, :D], V, beta=0.3), lambda x, z: x[:, :D]),
    "cross_entropy": (losses.CrossEntropy(), Y, lambda x, z: F.cross_entropy(x, Y), lambda x, z: x),
    "nll": (losses.NLL(class_weights=WEIGHTS), Y, lambda x, z: F.nll_loss(x.log_softmax(1), Y, weight=W), lambda x, z: x.log_softmax(1)),
    "kl_div": (
        losses.KLDiv(),
        draw(N, C, seed=4).softmax(1),
        lambda x, z: F.kl_div(x.log_softmax(1), draw(N, C, seed=4).softmax(1), reduction="batchmean"),
        lambda x, z: x,
    ),
    "bce_with_logits": (
        losses.BCE(positive_weight=WEIGHTS),
        LABELS.double(),
        lambda x, z: F.binary_cross_entropy_with_logits(x, LABELS.double(), pos_weight=W),
        lambda x, z: x,
    ),
    "bce": (
        losses.BCE(given="probabilities"),
        LABELS.double(),
        lambda x, z: F.binary_cross_entropy(x.sigmoid(), LABELS.double()),
        lambda x, z: x.sigmoid(),
    ),
    "poisson_nll": (
        losses.PoissonNll(full=True),
        COUNTS,
        lambda x, z: F.poisson_nll_loss(x[:, :D], COUNTS, full=True),
        lambda x, z: x[:, :D],
    ),
    "gaussian_nll": (
        losses.GaussianNll(full=True),
        V,
        lambda x, z: F.gaussian_nll_loss(x[:, :D], V, z[:, :D].exp(), full=True),
        lambda x, z: Gaussian(x[:, :D], z[:, :D].exp()),
    ),
    "margin_ranking": (
        losses.MarginRanking(margin=0.3),
        S,
        lambda x, z: F.margin_ranking_loss(x[:, 0], z[:, 0], S, margin=0.3),
        lambda x, z: Pair(x[:, 0], z[:, 0]),
    ),
    "hinge_embedding": (
        losses.HingeEmbedding(margin=0.8),
        S,
        lambda x, z: F.hinge_embedding_loss(x[:, 0], S, margin=0.8),
        lambda x, z: x[:, 0],
    ),
    "multilabel_margin": (losses.MultilabelMargin(), LABELS, lambda x, z: F.multilabel_margin_loss(x, LISTED), lambda x, z: x),
    "multilabel_soft_margin": (
        losses.MultilabelSoftMargin(label_weights=WEIGHTS),
        LABELS.double(),
        lambda x, z: F.multilabel_soft_margin_loss(x, LABELS.double(), weight=W),
        lambda x, z: x,
    ),
    "multi_margin": (losses.MultiMargin(power=2), Y, lambda x, z: F.multi_margin_loss(x, Y, p=2), lambda x, z: x),
    "soft_margin": (losses.SoftMargin(), S, lambda x, z: F.soft_margin_loss(x[:, 0], S), lambda x, z: x[:, 0]),
    "cosine_embedding": (
        losses.CosineEmbedding(margin=0.2),
        S,
        lambda x, z: F.cosine_embedding_loss(x, z, S, margin=0.2),
        lambda x, z: Pair(x, z),
    ),
    "ctc": (
        losses.CTC(),
        Symbols(SYMBOLS, SIZES),
        lambda x, z: F.ctc_loss(
            (x[:, None] + z[:, :, None] * draw(C)).log_softmax(2).repeat(1, 2, 1).transpose(0, 1), SYMBOLS, FRAMES, SIZES
        ),
        lambda x, z: Frames((x[:, None] + z[:, :, None] * draw(C)).repeat(1, 2, 1), FRAMES),
    ),
}


@pytest.mark.parametrize("name", DOORS)
def test_the_mean_is_torchs(name: str) -> None:
    loss, target, theirs, outputs = DOORS[name]
    grads, values = [], []
    for make in (lambda x, z: mean(loss, outputs(x, z), target), theirs):
        x, z = draw(N, C).requires_grad_(), draw(N, C, seed=2).requires_grad_()
        value = make(x, z)
        value.backward()
        values.append(value.detach())
        grads.append((x.grad, z.grad if z.grad is not None else torch.zeros(N, C, dtype=torch.float64)))
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-11, atol=1e-13)


def mean(loss: Any, outputs: Any, target: Any) -> Tensor:
    weight = loss.weight(target)
    return (loss(outputs, target) * weight).sum() / weight.sum()


def test_ctc_without_an_alignment() -> None:
    frames = Frames(draw(2, 2, C).requires_grad_(), torch.tensor([2, 2]))
    target = Symbols(torch.tensor([[1, 1], [1, 2]]), torch.tensor([2, 2]))  # equal symbols need a blank between them: three frames
    assert losses.CTC()(frames, target).isinf().tolist() == [True, False]
    terms = losses.CTC(skip_impossible=True)(frames, target)
    terms.sum().backward()
    assert float(terms[0].detach()) == 0 and frames.logits.grad is not None and bool(frames.logits.grad.isfinite().all())
    # two frames, two symbols: one alignment, so the loss is the sum of the two log-probabilities
    log_p = frames.logits.detach().log_softmax(2)
    assert float(losses.CTC(per="utterance")(frames, target)[1].detach()) == pytest.approx(
        -float(log_p[1, 0, 1] + log_p[1, 1, 2]), rel=1e-12
    )


def test_multi_margin_of_probabilities_is_the_mean_under_them() -> None:
    x, q = draw(N, C), draw(N, C, seed=3).softmax(1)
    for power in (1, 2):
        each = torch.stack([F.multi_margin_loss(x, torch.full((N,), c), p=power, reduction="none") for c in range(C)], dim=1)
        torch.testing.assert_close(losses.MultiMargin(power=power)(x, q), (q * each).sum(1), rtol=1e-12, atol=1e-14)


def test_bce_of_classes_is_bce_of_their_one_hot_vectors() -> None:
    x = draw(N, C)
    target = Y.clone()
    target[2] = -100
    loss = losses.BCE(smoothing=0.2)
    torch.testing.assert_close(loss(x, Y), loss(x, F.one_hot(Y, C).double()))
    smooth = F.one_hot(Y, C).double() * 0.8 + 0.1
    torch.testing.assert_close(loss(x, Y), F.binary_cross_entropy_with_logits(x, smooth, reduction="none").mean(1))
    assert float(loss(x, target)[2]) == float(loss.weight(target)[2]) == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: losses.Huber(delta=0.0), "Huber.delta must be"),
        (lambda: losses.SmoothL1(beta=-1.0), "SmoothL1.beta must be"),
        (lambda: losses.BCE(smoothing=1.5), "BCE.smoothing must be"),
        (lambda: losses.BCE(positive_weight=(0.0,)), "BCE.positive_weight must be"),
        (lambda: losses.GaussianNll(floor=0.0), "GaussianNll.floor must be"),
        (lambda: losses.MultiMargin(margin=-1.0), "MultiMargin.margin must be"),
        (lambda: losses.MultiMargin(power=3), "MultiMargin.power must be"),
        (lambda: losses.CosineEmbedding(margin=2.0), "CosineEmbedding.margin must be"),
        (lambda: losses.CTC(blank=-1), "CTC.blank must be"),
        (lambda: losses.Triplet(margin=-1.0), "Triplet.margin must be"),
        (lambda: losses.InfoNCE(temperature=0.0), "InfoNCE.temperature must be"),
        (lambda: losses.Arcface(angle=4.0), "Arcface.angle must be"),
        (lambda: losses.LDAM(scale=0.0), "LDAM.scale must be"),
        (lambda: losses.LogitAdjustment(tau=-1.0), "LogitAdjustment.tau must be"),
        (lambda: losses.Center(dim=0), "Center.dim must be"),
        (lambda: losses.CrossEntropy(beta=1.0), "CrossEntropy.beta must be"),
        (lambda: losses.Minimax(smoothing=1.0), "Minimax.smoothing must be"),
        (lambda: losses.R1(strength=-1.0), "R1.strength must be"),
        (lambda: losses.SetPrediction(l1=-1.0), "SetPrediction.l1 must be"),
        (lambda: losses.Varifocal(alpha=-1.0), "Varifocal.alpha must be"),
    ],
)
def test_wrong_fields(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_shapes_that_would_broadcast() -> None:
    for loss in (losses.SoftMargin(), losses.HingeEmbedding()):
        with pytest.raises(ValueError, match=r"target of shape \(8, 1\), got \(8,\)"):
            loss(draw(N, 1), S)
    with pytest.raises(ValueError, match="outputs' shape"):
        losses.PoissonNll()(draw(N, 3), COUNTS[:, 0])
