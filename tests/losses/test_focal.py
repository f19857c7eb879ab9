"""Focal loss: off is plain cross-entropy bit for bit; on, the paper's formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchstone.core.protocols import Facts, VectorShape
from torchstone.losses import CrossEntropy, Focal

N, C = 64, 10


def case(seed: int, dtype: torch.dtype = torch.float32, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = (torch.randn(N, C, generator=g) * scale).to(dtype)
    return logits, torch.randint(0, C, (N,), generator=g), torch.rand(N, C, generator=g).softmax(-1).to(dtype)


@given(st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), st.booleans(), st.sampled_from([1.0, 40.0]))
def test_gamma_zero_is_cross_entropy_bit_for_bit(seed: int, dtype: torch.dtype, soft: bool, scale: float) -> None:
    logits, target, probabilities = case(seed, dtype, scale)
    target[::7] = -100
    grads = []
    for loss in (CrossEntropy(), Focal.neutral):
        x = logits.clone().requires_grad_()
        terms = loss(x, probabilities if soft else target)
        terms.sum().backward()
        grads.append((terms, x.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_closed_form(gamma: float) -> None:
    logits, target, q = case(0, torch.float64)
    p = logits.softmax(-1)
    every = (1 - p).pow(gamma) * -p.log()
    torch.testing.assert_close(Focal(gamma=gamma)(logits, q), (q * every).sum(-1))
    torch.testing.assert_close(Focal(gamma=gamma)(logits, target), every[torch.arange(N), target])
    one_hot = torch.nn.functional.one_hot(target, C).double()
    torch.testing.assert_close(Focal(gamma=gamma)(logits, one_hot), Focal(gamma=gamma)(logits, target))


def test_class_weights_are_alpha() -> None:
    logits, target, q = case(0, torch.float64)
    alpha = tuple(0.5 + 0.25 * c for c in range(C))
    loss = Focal(class_weights=alpha)
    assert torch.equal(loss(logits, target), Focal()(logits, target))
    assert torch.equal(loss.weight(target), torch.tensor(alpha, dtype=torch.float64)[target])
    p = logits.softmax(-1)
    torch.testing.assert_close(loss(logits, q), (torch.tensor(alpha) * q * (1 - p) ** 2 * -p.log()).sum(-1))
    assert torch.equal(loss.weight(q), torch.ones(N))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_certain_examples_have_finite_gradients(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0], [0.0, float("-inf")]], requires_grad=True)
    terms = Focal(gamma=gamma)(logits, torch.zeros(3, dtype=torch.int64))
    terms.sum().backward()
    assert logits.grad is not None
    assert terms.isfinite().all()
    assert logits.grad.isfinite().all()


def test_all_ignored() -> None:
    logits, _, _ = case(0)
    logits.requires_grad_()
    target = torch.full((N,), -100)
    Focal()(logits, target).sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(N, C))
    assert Focal().weight(target).sum() == 0


def test_gradcheck_resolve_and_validation() -> None:
    logits, target, q = case(1, torch.float64)
    for wanted in (target[:4], q[:4]):
        assert torch.autograd.gradcheck(lambda x, t=wanted: Focal(gamma=1.5)(x, t), (logits[:4].clone().requires_grad_(),))
    facts = Facts(inputs=VectorShape(3), classes=("a", "b"), class_counts=(3, 1))
    assert Focal(weighting="balanced").resolve(facts).class_weights == (2 / 3, 2.0)
    for gamma in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"Focal\.gamma must be"):
            Focal(gamma=gamma)
