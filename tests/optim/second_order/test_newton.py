"""Hessian-vector products and the whole Hessian against torch.func, Newton's direction against the solved system, CG against LAPACK."""

import pytest
import torch
from torch import Tensor

from optim.second_order.functions import quadratic, rosenbrock, small_network
from torchstone.optim.second_order import LBFGS, Newton, Problem, minimize, solve


def test_products_and_hessian_of_a_network():
    loss, x = small_network()
    whole = torch.func.hessian(loss)(x)
    problem = Problem([loss])
    torch.testing.assert_close(problem.hessian(x), whole, rtol=0, atol=1e-13)
    v = torch.randn(len(x), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(problem.product(x)(v), whole @ v, rtol=0, atol=1e-13)
    assert problem.products == len(x) + 1


def test_a_sum_of_terms_is_the_whole():
    """Value, gradient and products of a function given in three pieces: those of their sum."""
    pieces = [lambda x, k=k: (k * x).sin().sum() * x.square().sum() for k in (1.0, 2.0, 3.0)]
    x = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
    cut, whole = Problem(pieces), Problem([lambda x: sum(piece(x) for piece in pieces)])
    assert cut.at(x).value == pytest.approx(whole.at(x).value, rel=1e-14)
    torch.testing.assert_close(cut.at(x).gradient, whole.at(x).gradient, rtol=0, atol=1e-14)
    torch.testing.assert_close(cut.hessian(x), whole.hessian(x), rtol=0, atol=1e-13)


def test_linear_and_constant_functions_have_no_curvature():
    x = torch.ones(2, dtype=torch.float64)
    assert not Problem([lambda x: 3 * x.sum()]).hessian(x).any()
    assert not Problem([lambda x: torch.zeros((), dtype=torch.float64)]).at(x).gradient.any()


def test_direction_is_the_solved_system():
    a, b, function = quadratic(15, 50.0)
    problem = Problem([function])
    point = problem.at(torch.ones(15, dtype=torch.float64))
    for damping in (0.0, 2.0):
        expected = -torch.linalg.solve(a + damping * torch.eye(15), point.gradient)
        torch.testing.assert_close(Newton(damping=damping).direct(problem, point), expected, rtol=1e-10, atol=1e-12)


def test_negative_curvature_is_walked_down_not_up():
    """x^2 - y^2 + y^4 from near its saddle: plain Newton would be drawn into (0, 0)."""

    def function(x: Tensor) -> Tensor:
        return x[0] ** 2 - x[1] ** 2 + x[1] ** 4

    near = torch.tensor([0.5, 1e-3], dtype=torch.float64)
    for method in (Newton(), Newton(solver="cg")):
        found = minimize(function, near, method)
        assert found.converged and found.value == pytest.approx(-0.25, abs=1e-12)


def test_converges_quadratically():
    """The number of right digits doubles an iteration, near the end."""
    norms = []
    minimize(rosenbrock, torch.tensor([1.1, 1.1]), Newton(), tolerance=1e-12, watch=lambda point: norms.append((point.x - 1).norm()))
    assert len(norms) < 9 and float(norms[-1]) < 50 * float(norms[-2]) ** 2


@pytest.mark.parametrize("condition", [1.0, 100.0])
def test_cg_solves_in_as_many_products_as_there_are_eigenvalues(condition):
    a, b, _ = quadratic(12, condition)
    calls = []

    def times(v: Tensor) -> Tensor:
        calls.append(1)
        return a @ v

    x, positive = solve(times, b, tolerance=1e-9)
    assert positive and len(calls) <= (1 if condition == 1 else 13)
    torch.testing.assert_close(x, torch.linalg.solve(a, b), rtol=1e-7, atol=1e-9)


def test_cg_says_where_curvature_is_negative():
    a = torch.diag(torch.tensor([2.0, -1.0], dtype=torch.float64))
    assert not solve(lambda v: a @ v, torch.tensor([0.1, 1.0], dtype=torch.float64))[1]


def test_hessian_free_and_direct_meet():
    loss, start = small_network()
    ends = [minimize(loss, start, method, tolerance=1e-9) for method in (Newton(), Newton(solver="cg"), LBFGS())]
    assert all(end.converged for end in ends)
    assert ends[1].iterations < ends[2].iterations
