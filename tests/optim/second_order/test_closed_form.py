"""Least squares in one solve: against scikit-learn, and against the iterative way."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge

from torchstone.core.errors import UserError
from torchstone.optim.second_order import LBFGS, ClosedForm, minimize, ridge


def data(n: int = 50, features: int = 7, outputs: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(n, features)) * np.geomspace(1, 30, features) + 2
    return torch.from_numpy(x), torch.from_numpy(x @ draw.normal(size=(features, outputs)) + draw.normal(size=(n, outputs)))


@pytest.mark.parametrize("strength", [0.0, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("intercept", [True, False])
def test_ridge_is_scikit_learns(strength, intercept):
    x, y = data()
    weights, bias = ridge(x, y, strength, intercept=intercept)
    peer = (Ridge(alpha=strength, fit_intercept=intercept, solver="svd") if strength else LinearRegression(fit_intercept=intercept)).fit(
        x, y
    )
    np.testing.assert_allclose(weights.numpy(), peer.coef_.T, rtol=0, atol=1e-11)
    np.testing.assert_allclose(bias.numpy(), np.broadcast_to(peer.intercept_, 3), rtol=0, atol=1e-11)


def test_more_unknowns_than_samples_gives_the_shortest():
    x, y = data(n=5, features=9)
    weights, _ = ridge(x, y)
    np.testing.assert_allclose(weights.numpy(), LinearRegression().fit(x, y).coef_.T, rtol=0, atol=1e-10)


def test_a_repeated_column_and_a_constant_one():
    x, y = data()
    x = torch.cat([x, x[:, :1], torch.full((50, 1), 4.0)], dim=1)
    np.testing.assert_allclose(ridge(x, y)[0].numpy(), LinearRegression().fit(x, y).coef_.T, rtol=0, atol=1e-9)


def test_closed_form_and_iterative_are_the_same_weights():
    x, y = data()
    x = (x - x.mean(0)) / x.std(0)

    def function(flat: torch.Tensor) -> torch.Tensor:
        w, b = flat[:21].view(7, 3), flat[21:]
        return (y - x @ w - b).square().sum() + 2.0 * w.square().sum()

    once, slowly = minimize(function, torch.randn(24), ClosedForm()), minimize(function, torch.randn(24), LBFGS())
    assert once.iterations == 1 and once.converged and slowly.converged
    torch.testing.assert_close(once.x, slowly.x, rtol=0, atol=1e-8)
    weights, bias = ridge(x, y, 2.0)
    torch.testing.assert_close(once.x, torch.cat([weights.flatten(), bias]), rtol=0, atol=1e-11)


def test_what_is_not_quadratic_is_refused():
    with pytest.raises(UserError, match="not quadratic"):
        minimize(lambda x: (x - 1).square().sum() + x.exp().sum(), torch.zeros(3), ClosedForm())
    with pytest.raises(ValueError, match="strength must be"):
        ridge(*data(), -1.0)
