"""Losses that see the whole batch: under ranks of unequal shares they have the terms and the gradient of one process."""

import pytest
import torch

from core.test_ranks import all_right, together
from torchstone.core.protocols import Batch
from torchstone.losses import CrossEntropy, Triplet
from torchstone.train import coupled


def test_alone_nothing_is_gathered() -> None:
    batch = Batch(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]), torch.arange(4), torch.ones(4))
    for loss in (Triplet(), CrossEntropy()):
        whole = coupled.whole_batch([batch], loss)
        assert whole is None
        assert torch.equal(coupled.terms(loss, batch.inputs, batch.target, whole), loss(batch.inputs, batch.target))
        assert torch.equal(coupled.weight(loss, batch.target, whole), loss.weight(batch.target))


@pytest.mark.slow
def test_three_ranks_have_the_terms_and_the_gradient_of_one() -> None:
    """Of 3, 0 (padding alone) and 5 rows, with a row of padding on the first: each rank's gradient of the summed loss is its part."""
    body = """
    from torchstone.core.protocols import Batch
    from torchstone.losses import Center, InfoNCE, Pair, SupervisedContrastive, Triplet
    from torchstone.train import coupled

    torch.manual_seed(0)
    x = torch.randn(8, 4, dtype=torch.float64)
    z = torch.randn(8, 4, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    rows = {0: [0, 1, 1, 2], 1: [5], 2: [3, 4, 5, 6, 7]}[rank]
    weight = torch.tensor({0: [1.0, 0.0, 1.0, 1.0], 1: [0.0], 2: [1.0] * 5}[rank])
    mine = weight > 0
    for loss in (Triplet(margin=2.0), Triplet(mining="hard", margin=2.0), SupervisedContrastive(), InfoNCE(symmetric=True), Center(dim=4)):
        paired = isinstance(loss, InfoNCE)
        one = x.clone().requires_grad_()
        terms = loss(Pair(one, z) if paired else one, y)
        w = loss.weight(y).double()
        (terms * w).sum().backward()

        own = x[rows].clone().requires_grad_()
        batch = Batch(own, y[rows], torch.tensor(rows), weight)
        whole = coupled.whole_batch([batch], loss)
        part = coupled.terms(loss, Pair(own, z[rows]) if paired else own, batch.target, whole)
        share = coupled.weight(loss, batch.target, whole).double() * weight
        assert part.shape == share.shape == (len(rows),)
        torch.testing.assert_close(part[mine], terms.detach()[rows][mine], rtol=1e-12, atol=1e-14)
        assert torch.equal(share[mine], w[rows][mine]) and not share[~mine].any()
        (part * share).sum().backward()
        torch.testing.assert_close(own.grad[mine], one.grad[rows][mine], rtol=1e-12, atol=1e-14)
        assert not own.grad[~mine].any()
    """
    all_right(together(3, body))
