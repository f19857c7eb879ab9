"""What a step must fulfil, checked on the step; and SciPy's own strong Wolfe search finds one of the same quality."""

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optim.second_order.functions import rosenbrock
from torchstone.optim.second_order import Backtracking, FixedStep, Problem, StrongWolfe

POINTS = st.lists(st.floats(-2, 2), min_size=3, max_size=3).map(lambda x: torch.tensor(x, dtype=torch.float64))


@settings(max_examples=20)
@given(POINTS, st.floats(1e-4, 1e3), st.sampled_from([0.1, 0.9]))
def test_strong_wolfe(x, first, c2):
    problem = Problem([rosenbrock])
    start = problem.at(x)
    if start.gradient_norm < 1e-6:
        return
    direction = -start.gradient
    step, found = StrongWolfe(c2=c2)(problem, start, direction, first)
    slope = float(start.gradient @ direction)
    assert found.value <= start.value + 1e-4 * step * slope
    assert abs(float(found.gradient @ direction)) <= c2 * abs(slope)
    torch.testing.assert_close(found.x, x + step * direction)


@settings(max_examples=20)
@given(POINTS, st.floats(1e-4, 1e3))
def test_backtracking(x, first):
    problem = Problem([rosenbrock])
    start = problem.at(x)
    if start.gradient_norm < 1e-6:
        return
    step, found = Backtracking()(problem, start, -start.gradient, first)
    assert step <= first and found.value <= start.value - 1e-4 * step * start.gradient_norm**2


def test_beside_scipy():
    x = np.array([-1.2, 1.0])
    d = -scipy.optimize.rosen_der(x)
    theirs = scipy.optimize.line_search(scipy.optimize.rosen, scipy.optimize.rosen_der, x, d, c2=0.1)
    problem = Problem([rosenbrock])
    _, found = StrongWolfe(c2=0.1)(problem, problem.at(torch.from_numpy(x)), torch.from_numpy(d), 1.0)
    assert found.value <= theirs[3] * 1.01
    assert problem.evaluations - 1 <= 1.5 * theirs[1]


@pytest.mark.parametrize("search", [Backtracking(), StrongWolfe()])
def test_uphill_everywhere_is_none(search):
    problem = Problem([lambda x: -x.sum() + 2 * (x - 1).clamp(min=0).sum() + x.detach().sum() * 2])  # the gradient lies
    assert search(problem, problem.at(torch.zeros(1, dtype=torch.float64)), torch.ones(1, dtype=torch.float64), 1.0) is None


def test_fixed_step():
    problem = Problem([rosenbrock])
    start = problem.at(torch.zeros(2, dtype=torch.float64))
    step, found = FixedStep(size=0.5)(problem, start, -start.gradient, 7.0)
    assert step == 0.5 and torch.equal(found.x, start.x - 0.5 * start.gradient)
