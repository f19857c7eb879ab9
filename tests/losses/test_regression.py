"""Squared error against torch, scikit-learn's Brier score and the derivative through the softmax."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from sklearn.metrics import brier_score_loss

from torchstone.losses import MSE

N, C = 9, 4


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def indices(*shape: int) -> torch.Tensor:
    return torch.randint(0, C, shape, generator=torch.Generator().manual_seed(1))


def test_regression_is_torch() -> None:
    outputs, target = draws(N, 3), draws(N, 3, seed=1)
    terms, weight = MSE()(outputs, target), MSE().weight(target)
    assert terms.shape == weight.shape == (N,)
    torch.testing.assert_close((terms * weight).sum() / weight.sum(), F.mse_loss(outputs, target))


def test_a_column_does_not_broadcast() -> None:
    outputs, target = draws(N, 1), draws(N, seed=1)
    torch.testing.assert_close(MSE()(outputs, target), (outputs[:, 0] - target) ** 2)
    assert MSE().weight(target).shape == (N,)
    with pytest.raises(ValueError, match=r"shape \(9, 3\), got \(9,\)"):
        MSE()(draws(N, 3), target)


def test_on_probabilities_is_the_brier_score() -> None:
    outputs, target = draws(N, C), indices(N)
    terms = MSE(on="probabilities")(outputs, target)
    reference = brier_score_loss(target.numpy(), outputs.softmax(-1).numpy(), labels=np.arange(C), scale_by_half=False)  # type: ignore[arg-type]
    np.testing.assert_allclose(float(terms.mean()), reference, rtol=1e-12)
    one_hot = F.one_hot(target, C).double()
    assert torch.equal(terms, MSE(on="probabilities")(outputs, one_hot))
    assert torch.equal(MSE()(outputs, target), MSE()(outputs, one_hot))


def test_derivative_through_the_softmax() -> None:
    """canon D3, at the true class i: -2 y_i (1 - y_i)^2 - 2 y_i sum_{j != i} y_j^2."""
    outputs, target = draws(N, C).requires_grad_(), indices(N)
    MSE(on="probabilities")(outputs, target).sum().backward()
    assert outputs.grad is not None
    y = outputs.detach().softmax(-1)
    true = y.gather(1, target[:, None])[:, 0]
    expected = -2 * true * (1 - true) ** 2 - 2 * true * (y.square().sum(1) - true**2)
    torch.testing.assert_close(outputs.grad.gather(1, target[:, None])[:, 0], expected, rtol=1e-12, atol=1e-15)


def test_trap_d3() -> None:
    """At the true class i the second term is -2 y_i sum_{j != i} y_j^2; the often-seen "+ ... (1 - y_i)" is another
    number. The whole gradient is the Jacobian diag(y) - y y^T times 2 (y - q)."""
    outputs, target = draws(N, C).requires_grad_(), indices(N)
    MSE(on="probabilities")(outputs, target).sum().backward()
    assert outputs.grad is not None
    y, q = outputs.detach().softmax(-1).numpy(), np.eye(C)[target.numpy()]
    by_jacobian = np.stack([(np.diag(p) - np.outer(p, p)) @ (2 * (p - one)) for p, one in zip(y, q, strict=True)])
    np.testing.assert_allclose(outputs.grad.numpy(), by_jacobian, rtol=1e-12, atol=1e-15)
    rows, i = np.arange(N), target.numpy()
    true, squares = y[rows, i], (y**2).sum(1) - y[rows, i] ** 2
    np.testing.assert_allclose(outputs.grad.numpy()[rows, i], -2 * true * (1 - true) ** 2 - 2 * true * squares, rtol=1e-12, atol=1e-15)
    wrong = -2 * true * (1 - true) ** 2 + 2 * true * squares * (1 - true)
    assert np.abs(outputs.grad.numpy()[rows, i] - wrong).max() > 1e-2


def test_ignored_tokens_and_wrong_fields() -> None:
    outputs, target = draws(3, 5, C).requires_grad_(), indices(3, 5)
    target[0] = -100
    loss = MSE()
    loss(outputs, target).sum().backward()
    assert outputs.grad is not None
    assert loss(outputs, target)[0].abs().sum() == outputs.grad[0].abs().sum() == loss.weight(target)[0].sum() == 0
    with pytest.raises((ValueError, TypeCheckError), match="on"):
        MSE(on="logits")  # type: ignore[arg-type]
