"""Every method on functions whose answer is known, and beside SciPy's: iterations to a gradient of 1e-8."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.optimize
import torch

from optim.second_order.functions import METHODS, quadratic, rosenbrock, small_network
from torchstone.core.errors import UserError
from torchstone.optim.second_order import BFGS, LBFGS, FixedStep, GradientDescent, Newton, StrongWolfe, minimize

CURVED = [name for name in METHODS if name != "gradient_descent"]


@pytest.mark.parametrize("name", CURVED)
def test_rosenbrock(name):
    found = minimize(rosenbrock, torch.tensor([-1.2, 1.0]), METHODS[name])
    assert found.converged and found.gradient_norm <= 1e-8
    assert float((found.x - 1).abs().max()) < 1e-7 and found.value < 1e-15


@pytest.mark.parametrize("ours, theirs", [("bfgs", "BFGS"), ("lbfgs", "L-BFGS-B"), ("newton_cg", "Newton-CG"), ("pr_plus", "CG")])
@pytest.mark.parametrize("size", [2, 10])
def test_as_many_iterations_as_scipy(ours, theirs, size):
    start = np.array([-1.2, 1.0]) if size == 2 else np.linspace(-0.5, 0.5, size)  # from there all find the one minimum
    options = {"BFGS": {"gtol": 1e-8}, "CG": {"gtol": 1e-8}, "L-BFGS-B": {"gtol": 1e-8, "ftol": 0.0}, "Newton-CG": {"xtol": 1e-10}}[theirs]
    scipys = scipy.optimize.minimize(scipy.optimize.rosen, start, jac=scipy.optimize.rosen_der, method=theirs, options=options)
    found = minimize(rosenbrock, torch.from_numpy(start), METHODS[ours])
    assert found.converged and np.abs(found.x.numpy() - scipys.x).max() < 1e-5
    assert found.iterations <= 1.3 * scipys.nit and found.evaluations <= 1.3 * max(scipys.nfev, scipys.njev)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("condition", [1.0, 10.0])
def test_quadratic(name, condition):
    a, b, function = quadratic(30, condition)
    found = minimize(function, torch.zeros(30), METHODS[name])
    assert found.converged
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b), rtol=0, atol=2e-8)
    assert found.iterations <= {"newton": 1, "newton_cg": 10}.get(name, 70)


@pytest.mark.parametrize("name", CURVED)
def test_ill_conditioned_quadratic(name):
    a, b, function = quadratic(15, 300.0)
    found = minimize(function, torch.zeros(15), METHODS[name], most=2000)
    assert found.converged
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b), rtol=0, atol=2e-8)


def test_fixed_step_shrinks_the_error_as_the_theory_says():
    """With t = 2 / (L + m) the error falls by (k - 1) / (k + 1) an iteration."""
    a, b, function = quadratic(12, 10.0)
    seen = []
    method = GradientDescent(search=FixedStep(size=2 / 11))
    minimize(
        function,
        torch.zeros(12),
        method,
        tolerance=0.0,
        most=100,
        watch=lambda point: seen.append((point.x - torch.linalg.solve(a, b)).norm()),
    )
    assert float(seen[100] / seen[90]) == pytest.approx((9 / 11) ** 10, rel=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_small_network(name):
    loss, start = small_network()
    found = minimize(loss, start, METHODS[name], tolerance=1e-6, most=3000)
    assert found.converged, found.why
    assert found.value < float(loss(start))
    scipys = scipy.optimize.minimize(
        lambda x: float(loss(torch.from_numpy(x))),
        found.x.numpy(),
        jac=lambda x: torch.func.grad(loss)(torch.from_numpy(x)).numpy(),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    assert found.value == pytest.approx(scipys.fun, abs=1e-9)  # nothing lower nearby


@pytest.mark.parametrize("name", METHODS)
def test_descents_never_rise(name):
    values = []
    minimize(rosenbrock, torch.tensor([-1.2, 1.0, 0.3]), METHODS[name], most=40, watch=lambda point: values.append(point.value))
    assert all(after < before for before, after in pairwise(values))


def test_counts_are_the_calls():
    calls = []

    def function(x):
        calls.append(1)
        return rosenbrock(x)

    found = minimize(function, torch.tensor([-1.2, 1.0]), LBFGS())
    assert found.evaluations == len(calls) and found.products == 0


def test_endings_say_why():
    assert minimize(rosenbrock, torch.ones(3)).iterations == 0
    few = minimize(rosenbrock, torch.tensor([-1.2, 1.0]), most=3)
    assert not few.converged and few.iterations == 3 and few.why == "3 iterations are done"
    unbounded = minimize(lambda x: -x.exp().sum(), torch.ones(2), GradientDescent(search=FixedStep(size=1.0)))
    assert "not finite after iteration" in unbounded.why
    wrong = minimize(lambda x: (x.detach() + 0 * x).sum(), torch.ones(2))  # flat by its gradient: 0
    assert wrong.converged
    with pytest.raises(ValueError, match="not finite at x0"):
        minimize(lambda x: x.log().sum(), torch.tensor([-1.0]))


def test_a_wall_is_backed_away_from():
    """log is NaN beyond 0: trial points there are only too high."""
    found = minimize(lambda x: (x - x.log()).sum(), torch.tensor([5.0, 0.01]))
    assert found.converged and float((found.x - 1).abs().max()) < 1e-6


def test_a_matrix_that_would_not_fit_is_refused():
    for method in (BFGS(), Newton()):
        with pytest.raises(UserError, match="80.0 GB"):
            minimize(lambda x: x.square().sum(), torch.zeros(100_000), method)
    assert minimize(lambda x: (x - 1).square().sum(), torch.zeros(100_000), Newton(solver="cg")).converged


@pytest.mark.parametrize(
    "make",
    [
        lambda: LBFGS(history=0),
        lambda: Newton(damping=-1.0),
        lambda: Newton(floor=1.0),
        lambda: Newton(cg_steps=0),
        lambda: FixedStep(size=0.0),
        lambda: StrongWolfe(c1=0.5, c2=0.1),
        lambda: StrongWolfe(most=1),
    ],
)
def test_settings_are_checked(make):
    with pytest.raises(ValueError, match="must be"):
        make()
