"""Losses on embeddings against loops over their definitions."""

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from losses.test_every_loss import draw
from torchstone.losses import Center, Contrastive, InfoNCE, Pair, SupervisedContrastive, Triplet

X = draw(11, 3)
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 3, 1, 1, 0])


def mean(loss: Triplet | SupervisedContrastive) -> float:
    weight = loss.weight(Y)
    return float((loss(X, Y) * weight).sum() / weight.sum())


@pytest.mark.parametrize("mining", ["batch_all", "hard", "semi_hard"])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.2, 3.0])
def test_triplet(mining: str, squared: bool, margin: float) -> None:
    """The weighted mean is the mean over all triplets, over anchors, and over pairs (as tensorflow-addons' semi-hard loss has it)."""
    x, y = X.numpy(), Y.numpy()
    d = np.linalg.norm(x[:, None] - x[None], axis=2) ** (2 if squared else 1)
    n = range(len(y))
    hinge = lambda p, q: max(0.0, p - q + margin)
    if mining == "batch_all":
        found = [hinge(d[a, p], d[a, q]) for a, p, q in product(n, n, n) if p != a and y[p] == y[a] and y[q] != y[a]]
    elif mining == "hard":
        anchors = [a for a in n if (y == y[a]).sum() > 1]
        found = [hinge(max(d[a, p] for p in n if p != a and y[p] == y[a]), min(d[a, q] for q in n if y[q] != y[a])) for a in anchors]
    else:
        found = []
        for a, p in product(n, n):
            if p != a and y[p] == y[a]:
                farther = [d[a, q] for q in n if y[q] != y[a] and d[a, q] > d[a, p]]
                found.append(hinge(d[a, p], min(farther) if farther else max(d[a, q] for q in n if y[q] != y[a])))
    loss = Triplet(margin=margin, mining=mining, squared=squared, normalize=False)  # type: ignore[arg-type]
    assert mean(loss) == pytest.approx(np.mean(found), rel=1e-12)
    unit = Triplet(margin=margin, mining=mining, squared=squared)  # type: ignore[arg-type]
    torch.testing.assert_close(unit(X, Y), loss(F.normalize(X), Y), rtol=1e-12, atol=1e-14)


def test_triplet_of_one_triplet_is_torchs() -> None:
    x, y = X[:3], torch.tensor([0, 0, 1])
    loss = Triplet(margin=1.5, mining="hard", normalize=False, squared=False)
    assert loss.weight(y).tolist() == [1, 1, 0]
    theirs = F.triplet_margin_loss(x[:1], x[1:2], x[2:], margin=1.5, eps=0.0)
    torch.testing.assert_close(loss(x, y)[0], theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("mining", ["batch_all", "hard", "semi_hard"])
@pytest.mark.parametrize("squared", [False, True])
def test_equal_embeddings_and_lonely_classes_are_finite(mining: str, squared: bool) -> None:
    loss = Triplet(mining=mining, squared=squared, normalize=False)  # type: ignore[arg-type]
    for y in (torch.zeros(4, dtype=torch.long), torch.arange(4), torch.tensor([0, 0, 1, 1])):
        x = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
        terms = loss(x, y)
        (terms * loss.weight(y)).sum().backward()
        assert bool(terms.isfinite().all()) and x.grad is not None and bool(x.grad.isfinite().all())
        if len(y.unique()) in (1, 4):
            assert float(loss.weight(y).sum()) == float(terms.detach().abs().sum()) == 0


def test_supervised_contrastive() -> None:
    z, y, t = F.normalize(X).numpy(), Y.numpy(), 0.3
    expected = []
    for i in range(len(y)):
        others = [a for a in range(len(y)) if a != i]
        positives = [p for p in others if y[p] == y[i]]
        total = sum(math.exp(z[i] @ z[a] / t) for a in others)
        expected.append(sum(-math.log(math.exp(z[i] @ z[p] / t) / total) for p in positives) / len(positives) if positives else 0.0)
    loss = SupervisedContrastive(temperature=t)
    np.testing.assert_allclose(loss(X, Y).numpy(), expected, rtol=1e-12)
    assert loss.weight(Y).tolist() == [float((Y == y).sum() > 1) for y in Y]


def test_two_views_of_each_is_simclrs_loss() -> None:
    """NT-Xent: with two of each class the loss is cross-entropy over all others, the right answer the other view."""
    a, b = F.normalize(draw(6, 4)), F.normalize(draw(6, 4, seed=1))
    z = torch.cat((a, b))
    alike = (z @ z.T / 0.5).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(alike, torch.arange(12).roll(6), reduction="none")
    torch.testing.assert_close(SupervisedContrastive(temperature=0.5)(z, torch.arange(6).repeat(2)), expected, rtol=1e-12, atol=0)


def test_infonce_is_cross_entropy_of_the_diagonal() -> None:
    pair = Pair(draw(7, 4), draw(7, 4, seed=1))
    alike = F.normalize(pair.first) @ F.normalize(pair.second).T / 0.2
    rows = F.cross_entropy(alike, torch.arange(7), reduction="none")
    columns = F.cross_entropy(alike.T, torch.arange(7), reduction="none")
    ids = torch.arange(7)
    torch.testing.assert_close(InfoNCE(temperature=0.2)(pair, ids), rows, rtol=1e-12, atol=0)
    torch.testing.assert_close(InfoNCE(temperature=0.2, symmetric=True)(pair, ids), (rows + columns) / 2, rtol=1e-12, atol=0)


def test_n_pair() -> None:
    """Sohn, eq. 7: log(1 + sum_j exp(f_i f_j+ - f_i f_i+)), and the squared lengths."""
    f, g = draw(5, 4).numpy(), draw(5, 4, seed=1).numpy()
    expected = [math.log(1 + sum(math.exp(f[i] @ g[j] - f[i] @ g[i]) for j in range(5) if j != i)) for i in range(5)]
    expected = np.array(expected) + 0.02 * ((f**2).sum(1) + (g**2).sum(1)) / 2
    loss = InfoNCE(temperature=1.0, normalize=False, length=0.02)
    np.testing.assert_allclose(loss(Pair(torch.from_numpy(f), torch.from_numpy(g)), torch.arange(5)).numpy(), expected, rtol=1e-12)


def test_pairs_of_the_same_thing_are_no_negatives() -> None:
    pair = Pair(draw(3, 4), draw(3, 4, seed=1))
    fewer = Pair(pair.first[[0, 2]], pair.second[[0, 2]])
    terms = InfoNCE()(pair, torch.tensor([5, 5, 6]))
    torch.testing.assert_close(terms[0], InfoNCE()(fewer, torch.tensor([5, 6]))[0], rtol=1e-12, atol=0)


def test_contrastive() -> None:
    pair, y = Pair(draw(8, 3), draw(8, 3, seed=1)), torch.tensor([1, -1] * 4)
    d = np.linalg.norm(pair.first.numpy() - pair.second.numpy(), axis=1)
    expected = np.where(y.numpy() > 0, d**2, np.maximum(0, 2.5 - d) ** 2) / 2
    np.testing.assert_allclose(Contrastive(margin=2.5)(pair, y).numpy(), expected, rtol=1e-12)
    same = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    Contrastive()(Pair(same, torch.ones(2, 3, dtype=torch.float64)), torch.tensor([1, -1])).sum().backward()
    assert same.grad is not None and bool(same.grad.isfinite().all())


def test_center_follows_the_papers_recursion() -> None:
    loss = Center(dim=3, classes=5, rate=0.4)
    memory = loss.init(torch.nn.Linear(2, 2, dtype=torch.float64))
    centers = np.zeros((5, 3))
    for step in range(4):
        x, y = draw(6, 3, seed=step), torch.tensor([0, 0, 1, 3, 3, 3])
        terms = loss(x, y, memory=memory)
        np.testing.assert_allclose(terms.numpy(), ((x.numpy() - centers[y]) ** 2).sum(1) / 2, rtol=1e-12)
        with torch.no_grad():
            loss(draw(6, 3, seed=99), y, memory=memory)  # an evaluation changes nothing
        loss.commit(memory, skip=torch.tensor(float(step == 2)))
        if step != 2:
            for c in range(5):
                mine = x.numpy()[y == c]
                centers[c] -= 0.4 * (centers[c] - mine).sum(0) / (1 + len(mine))
        np.testing.assert_allclose(memory["centers"].numpy(), centers, rtol=1e-12, atol=1e-15)
    assert memory["centers"][[2, 4]].abs().sum() == 0, "a class that does not occur stays"
