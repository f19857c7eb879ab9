"""BFGS and L-BFGS against the textbook's matrices, written out in NumPy."""

from itertools import pairwise

import numpy as np
import torch

from optim.second_order.functions import quadratic, rosenbrock
from torchstone.optim.second_order import BFGS, LBFGS, Problem, minimize


def updated(h: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Nocedal and Wright, eq. 6.17."""
    rho, unit = 1 / (y @ s), np.eye(len(s))
    return (unit - rho * np.outer(s, y)) @ h @ (unit - rho * np.outer(y, s)) + rho * np.outer(s, s)


def walked(method, start: torch.Tensor, steps: int):
    """The points of some iterations, and the memory at the end."""
    problem, memory = Problem([rosenbrock]), method.init(start)
    points = [problem.at(start)]
    for _ in range(steps):
        points.append(method.iterate(problem, points[-1], memory))
    return points, memory


START = torch.tensor([-1.2, 1.0, 0.5, -0.3], dtype=torch.float64)


def test_bfgs_matrix_is_the_textbooks():
    points, memory = walked(BFGS(), START, 9)
    h = None
    for a, b in pairwise(points):
        s, y = (b.x - a.x).numpy(), (b.gradient - a.gradient).numpy()
        h = np.eye(4) * (y @ s) / (y @ y) if h is None else h
        h = updated(h, s, y)
    np.testing.assert_allclose(memory["inverse"].numpy(), h, rtol=1e-9, atol=1e-12)


def test_lbfgs_is_bfgs_from_its_remembered_steps():
    method = LBFGS(history=3)
    points, memory = walked(method, START, 8)
    pairs = [((b.x - a.x).numpy(), (b.gradient - a.gradient).numpy()) for a, b in pairwise(points)][-3:]
    s, y = pairs[-1]
    h = np.eye(4) * (s @ y) / (y @ y)
    for s, y in pairs:
        h = updated(h, s, y)
    v = torch.tensor([1.0, -2.0, 0.3, 4.0], dtype=torch.float64)
    np.testing.assert_allclose(method.times_inverse(v, memory).numpy(), h @ v.numpy(), rtol=1e-10)


def test_bfgs_learns_the_inverse_of_a_quadratic():
    a, _, function = quadratic(6, 20.0)
    method = BFGS()
    problem, start = Problem([function]), torch.zeros(6, dtype=torch.float64)
    memory, point = method.init(start), problem.at(start)
    for _ in range(40):
        point = method.iterate(problem, point, memory)
        if point.gradient_norm < 1e-10:
            break
    assert float((memory["inverse"] @ a - torch.eye(6)).abs().max()) < 0.05


def test_a_start_does_not_change():
    start = START.clone()
    minimize(rosenbrock, start)
    assert torch.equal(start, START)
