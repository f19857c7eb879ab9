"""Extreme eigenvalues against LAPACK and SciPy's ARPACK, and the verdict on points whose kind is known."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from optim.second_order.functions import METHODS, quadratic, rosenbrock, small_network
from torchstone.optim.second_order import Problem, lanczos, minimize, saddle


def symmetric(size: int, seed: int) -> torch.Tensor:
    a = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a + a.T


@pytest.mark.parametrize("size", [1, 2, 5, 80])
@pytest.mark.parametrize("seed", [0, 1])
def test_lanczos_is_lapacks(size, seed):
    a = symmetric(size, seed)
    found, values = lanczos(lambda v: a @ v, a[0]), torch.linalg.eigvalsh(a)
    assert found.lowest == pytest.approx(float(values[0]), abs=1e-10)
    assert found.highest == pytest.approx(float(values[-1]), abs=1e-10)
    for value, residual, vector in (
        (found.lowest, found.lowest_residual, found.lowest_vector),
        (found.highest, found.highest_residual, found.highest_vector),
    ):
        true = float((a @ vector - value * vector).norm())
        assert true <= residual + 1e-9 and float(vector.norm()) == pytest.approx(1)


def test_lanczos_beside_arpack_on_a_large_operator():
    n = 1500
    diagonal = torch.linspace(-1, 3, n, dtype=torch.float64) ** 3
    found = lanczos(lambda v: diagonal * v, diagonal, most=200)
    operator = scipy.sparse.linalg.LinearOperator((n, n), matvec=lambda v: diagonal.numpy() * v.ravel(), dtype=np.float64)
    theirs = scipy.sparse.linalg.eigsh(operator, k=1, which="LA", return_eigenvectors=False)[0]
    assert found.steps <= 200
    assert abs(found.highest - theirs) <= found.highest_residual + 1e-9
    assert abs(found.lowest + 1) <= found.lowest_residual + 0.01


def test_no_ghosts_and_equal_eigenvalues():
    """Without orthogonalization Lanczos would find the isolated eigenvalue again and again."""
    values = torch.cat([torch.full((30,), 2.0), torch.tensor([100.0])]).double()
    found = lanczos(lambda v: values * v, values)
    assert found.steps <= 4 and (found.lowest, found.highest) == (pytest.approx(2), pytest.approx(100))


def test_zero_operator_ends():
    found = lanczos(lambda v: 0 * v, torch.zeros(9, dtype=torch.float64))
    assert (found.lowest, found.highest, found.steps) == (0, 0, 1)


def test_extremes_of_a_network_are_its_whole_hessians():
    loss, x = small_network()
    values = torch.linalg.eigvalsh(torch.func.hessian(loss)(x))
    found = saddle(loss, x)
    assert found.lowest == pytest.approx(float(values[0]), abs=1e-8)
    assert found.highest == pytest.approx(float(values[-1]), abs=1e-8)
    assert found.verdict == "not stationary" and found.gradient_norm == pytest.approx(float(torch.func.grad(loss)(x).norm()))


@pytest.mark.parametrize(
    "function, at, verdict",
    [
        (rosenbrock, (1.0, 1.0, 1.0), "minimum"),
        (lambda x: -x.square().sum(), (0.0, 0.0), "maximum"),
        (lambda x: x[0] ** 2 - x[1] ** 2, (0.0, 0.0), "saddle"),
        (lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2 + x[2] ** 2, (0.0, 0.0, 0.0), "undecided"),  # the monkey saddle
        (lambda x: x[0] ** 2 + 0 * x[1], (0.0, 3.0), "undecided"),  # a valley with a flat floor
        (lambda x: x.sum(), (0.0, 0.0), "not stationary"),
        (lambda x: x[0] ** 2 * x[1] - x[1], (1.0, 0.0), "saddle"),
        (lambda x: (x[0] - 1) ** 2, (1.0,), "minimum"),
    ],
)
def test_verdicts(function, at, verdict):
    found = saddle(function, torch.tensor(at))
    assert found.verdict == verdict and found.because and len(found.lines()) == 4


def test_the_origin_of_a_linear_network_is_a_saddle():
    """w2 w1 for 1: the gradient at 0 is 0 and the Hessian ((0, -1), (-1, 0)), eigenvalues -1 and 1; any move along (1, 1) leads to a
    minimum, where a valley w2 w1 = 1 is flat along itself."""

    def loss(w: torch.Tensor) -> torch.Tensor:
        return (w[0] * w[1] - 1) ** 2 / 2

    found = saddle(loss, torch.zeros(2))
    assert (found.gradient_norm, found.verdict) == (0, "saddle")
    assert (found.lowest, found.highest) == (pytest.approx(-1), pytest.approx(1))
    end = minimize(loss, torch.tensor([1e-3, 2e-3]), METHODS["newton"])
    assert end.converged and end.value < 1e-12
    valley = saddle(loss, end.x)
    assert valley.verdict == "undecided" and valley.highest == pytest.approx(float(end.x.square().sum()))


def test_quadratic_extremes_and_their_count():
    _, _, function = quadratic(40, 1000.0)
    problem = Problem([function])
    x = torch.zeros(40, dtype=torch.float64)
    found = lanczos(problem.product(x), x)
    assert (found.lowest, found.highest) == (pytest.approx(1, rel=1e-6), pytest.approx(1000, rel=1e-9))
    assert problem.products == found.steps <= 40
