"""Law over every loss of the union, also those of outputs that no task here gives: one number a term, finite, of its own row alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from torchstone import losses
from torchstone.core.tree import choices, kind_of
from torchstone.data.pytree import map_leaves
from torchstone.losses import LAYOUTS, Detections, Frames, Gaussian, Objects, Pair, Symbols

N, C, D = 8, 5, 3
MADE: dict[str, Callable[[], Any]] = {
    "center": lambda: losses.Center(dim=D, classes=C),
    "ldam": lambda: losses.LDAM(margins=(0.5, 0.1, 0.2, 0.3, 0.4)),
    "logit_adjustment": lambda: losses.LogitAdjustment(priors=(0.1, 0.2, 0.3, 0.2, 0.2)),
}
ALL = [MADE.get(kind, cls)() for kind, cls in choices(losses.Loss).items()]
ALL += [losses.Triplet(mining="hard", squared=False), losses.Triplet(mining="batch_all"), losses.InfoNCE(symmetric=True, length=0.02)]
ALL += [losses.BCE(given="probabilities"), losses.PoissonNll(log_rate=True, full=True), losses.CTC(per="utterance")]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole(*shape: int, high: int = C, seed: int = 1) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def corners(seed: int) -> Tensor:
    low = draw(N, 2, seed=seed)
    return torch.cat((low, low + 1 + draw(N, 2, seed=seed + 1).abs()), dim=1)


def signs() -> Tensor:
    return (whole(N, high=2) * 2 - 1).double()


def centered(*shape: int, seed: int) -> Tensor:
    return draw(*shape, 4, seed=seed).sigmoid() / 2


SAMPLES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "classes": lambda: (draw(N, C), whole(N)),
    "cosines": lambda: (draw(N, C).tanh(), whole(N)),
    "log_probabilities": lambda: (draw(N, C).log_softmax(1), whole(N)),
    "probabilities": lambda: (draw(N, C).sigmoid(), draw(N, C, seed=1).sigmoid()),
    "labels": lambda: (draw(N, C), whole(N, C, high=2).double()),
    "values": lambda: (draw(N, D), draw(N, D, seed=1).abs().round()),
    "gaussian": lambda: (Gaussian(draw(N, D), draw(N, D, seed=2).exp()), draw(N, D, seed=1)),
    "signs": lambda: (draw(N), signs()),
    "pairs": lambda: (Pair(draw(N, D), draw(N, D, seed=2)), signs()),
    "views": lambda: (Pair(draw(N, D), draw(N, D, seed=2)), torch.arange(N) % 6),
    "embeddings": lambda: (draw(N, D), torch.tensor([0, 0, 1, 1, 2, 2, 2, 4])),
    "sequences": lambda: (Frames(draw(N, 9, C), torch.arange(N) % 3 + 7), Symbols(1 + whole(N, 3, high=C - 1), torch.arange(N) % 3 + 1)),
    "boxes": lambda: (corners(0), corners(7)),
    "quality": lambda: (draw(N, C), draw(N, C, seed=1).sigmoid() * whole(N, C, high=2)),
    "distances": lambda: (draw(N, C), draw(N, seed=1).sigmoid() * (C - 1)),
    "detections": lambda: (
        Detections(draw(N, 4, C + 1), centered(N, 4, seed=3)),
        Objects(torch.where(torch.arange(3) < torch.arange(N)[:, None] % 4, whole(N, 3), -1), centered(N, 3, seed=5)),
    ),
}


def sample(loss: Any) -> tuple[Any, Any]:
    outputs, target = SAMPLES[loss.takes[0]]()
    if isinstance(loss, losses.MarginRanking):
        outputs = Pair(outputs.first[:, 0], outputs.second[:, 0])
    if isinstance(loss, losses.HingeEmbedding):
        outputs = outputs.abs()  # a distance
    return outputs, target


def leaves(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_leaves(lambda leaf: found.append(leaf) or leaf, tree)
    return found


def learned(tree: Any) -> Any:
    """The same numbers as leaves of a graph."""
    return map_leaves(lambda leaf: leaf.detach().clone().requires_grad_() if leaf.is_floating_point() else leaf, tree)


def test_every_layout_has_a_loss_and_a_sample() -> None:
    assert set(SAMPLES) == set(LAYOUTS) == {word for loss in ALL for word in loss.takes}
    assert len(choices(losses.Loss)) == 36


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_one_finite_number_a_term(loss: Any) -> None:
    outputs, target = sample(loss)
    outputs = learned(outputs)
    terms, weight = loss(outputs, target), loss.weight(target)
    assert terms.shape == weight.shape == (N,)
    assert terms.dtype == torch.float64 and not weight.requires_grad
    assert bool(terms.isfinite().all()) and bool((weight >= 0).all()) and float(weight.sum()) > 0
    assert bool((terms >= 0).all()) or isinstance(loss, losses.PoissonNll | losses.GaussianNll)
    (terms * weight).sum().backward()
    grads = [leaf.grad for leaf in leaves(outputs) if leaf.is_floating_point()]
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in grads)
    assert any(float(grad.abs().sum()) > 0 for grad in grads if grad is not None)


@pytest.mark.parametrize("loss", [loss for loss in ALL if not loss.couples], ids=str)
def test_a_term_is_of_its_own_row(loss: Any) -> None:
    outputs, target = sample(loss)
    terms = loss(outputs, target)
    for row in range(N):
        alone = loss(*(map_leaves(lambda leaf, row=row: leaf[row : row + 1], tree) for tree in (outputs, target)))
        torch.testing.assert_close(alone[0], terms[row], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss", [loss for loss in ALL if loss.couples], ids=str)
def test_the_order_of_the_rows_does_not_matter(loss: Any) -> None:
    outputs, target = sample(loss)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    moved = [map_leaves(lambda leaf: leaf[order], tree) for tree in (outputs, target)]
    torch.testing.assert_close(loss(*moved), loss(outputs, target)[order], rtol=1e-12, atol=1e-14)
    assert torch.equal(loss.weight(moved[1]), loss.weight(target)[order])


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_bfloat16_outputs_are_read_in_float32(loss: Any) -> None:
    outputs, target = sample(loss)
    half = map_leaves(lambda leaf: leaf.bfloat16() if leaf.is_floating_point() else leaf, outputs)
    assert loss(half, target).dtype == torch.float32
    full = map_leaves(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, half)
    assert torch.equal(loss(half, target), loss(full, target))


def test_kinds_and_docs() -> None:
    for loss in ALL:
        assert kind_of(loss) in choices(losses.Loss) and (type(loss).__doc__ or "").strip()
    for penalty in (losses.GradientPenalty, losses.R1):
        assert penalty.neutral.strength == 0
