"""GAN losses against closed forms; the penalties against slopes known by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from losses.test_every_loss import draw
from torchstone.losses import R1, GradientPenalty, Hinge, LeastSquares, Minimax, NonSaturating, Wasserstein

REAL, FAKE = draw(9) * 2, draw(9, seed=1) * 2
r, f = REAL.numpy(), FAKE.numpy()
D = lambda x: 1 / (1 + np.exp(-x))
FORMS = {
    Minimax(): (-np.log(D(r)) - np.log(1 - D(f)), np.log(1 - D(f))),
    Minimax(smoothing=0.1): (-0.9 * np.log(D(r)) - 0.1 * np.log(1 - D(r)) - np.log(1 - D(f)), np.log(1 - D(f))),
    NonSaturating(): (-np.log(D(r)) - np.log(1 - D(f)), -np.log(D(f))),
    Hinge(): (np.maximum(0, 1 - r) + np.maximum(0, 1 + f), -f),
    LeastSquares(): (((r - 1) ** 2 + f**2) / 2, (f - 1) ** 2 / 2),
    Wasserstein(): (f - r, -f),
}


@pytest.mark.parametrize("loss", FORMS, ids=str)
def test_closed_forms(loss: Minimax | NonSaturating | Hinge | LeastSquares | Wasserstein) -> None:
    critic, generator = FORMS[loss]
    np.testing.assert_allclose(loss.critic(REAL, FAKE).numpy(), critic, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(loss.generator(FAKE).numpy(), generator, rtol=1e-12, atol=1e-14)
    sure = torch.tensor([-800.0, 800.0], dtype=torch.float64)
    assert bool(loss.critic(sure, sure.flip(0)).isfinite().all()) and bool(loss.generator(sure).isfinite().all())


def test_at_the_equilibrium_the_critics_loss_is_2_log_2() -> None:
    """Goodfellow et al., theorem 1: V = -log 4 where the critic cannot tell."""
    zero = torch.zeros(1, dtype=torch.float64)
    assert Minimax().critic(zero, zero).item() == pytest.approx(math.log(4), rel=1e-15)


def test_the_slope_of_minimax_dies_where_that_of_non_saturating_is_largest() -> None:
    fake = torch.full((1,), -20.0, dtype=torch.float64, requires_grad=True)
    dying, living = (torch.autograd.grad(loss.generator(fake).sum(), fake)[0].item() for loss in (Minimax(), NonSaturating()))
    assert abs(dying) < 1e-8 and living == pytest.approx(-1, rel=1e-8)


def test_penalties_of_a_linear_critic() -> None:
    """Its slope is its weight everywhere: 10 (|w| - 1)^2 and 10 / 2 |w|^2, with gradients 20 (|w| - 1) w / |w| and 10 w."""
    critic = nn.Linear(4, 1, dtype=torch.float64)
    w = critic.weight.detach().clone()[0]
    norm = float(w.norm())
    real, fake = draw(5, 4), draw(5, 4, seed=1)
    penalty = GradientPenalty()(lambda x: critic(x)[:, 0], real, fake, torch.linspace(0, 1, 5).double())
    np.testing.assert_allclose(penalty.detach().numpy(), 10 * (norm - 1) ** 2, rtol=1e-12)
    (grad,) = torch.autograd.grad(penalty.mean(), critic.weight)
    torch.testing.assert_close(grad[0], 20 * (norm - 1) * w / norm, rtol=1e-12, atol=1e-14)
    r1 = R1()(lambda x: critic(x)[:, 0], real)
    np.testing.assert_allclose(r1.detach().numpy(), 5 * norm**2, rtol=1e-12)
    (grad,) = torch.autograd.grad(r1.mean(), critic.weight)
    torch.testing.assert_close(grad[0], 10 * w, rtol=1e-12, atol=1e-14)


def test_penalties_are_taken_at_the_point_between_and_at_the_real_sample() -> None:
    """A critic x^3 / 3 has the slope x^2: the penalty is strength (x^2 - 1)^2 at share x real + (1 - share) x fake; pictures are flat."""
    real, fake = draw(6, 1, 1, 1), draw(6, 1, 1, 1, seed=1)
    share = torch.rand(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    critic = lambda x: x.flatten() ** 3 / 3
    point = share * real.flatten() + (1 - share) * fake.flatten()
    torch.testing.assert_close(GradientPenalty(strength=3.0)(critic, real, fake, share), 3 * (point.square() - 1).square())
    torch.testing.assert_close(R1(strength=4.0)(critic, real), 2 * real.flatten() ** 4)
    assert not real.requires_grad


def test_off_is_zero_and_a_flat_critic_is_finite() -> None:
    weight = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    penalty = GradientPenalty()(lambda x: x @ weight, draw(3, 4), draw(3, 4, seed=1), torch.full((3,), 0.5, dtype=torch.float64))
    penalty.sum().backward()
    assert weight.grad is not None and bool(weight.grad.isfinite().all())
    assert bool((R1.neutral(lambda x: x @ weight, draw(3, 4)) == 0).all())
