"""`minimize`: any of the methods on any smooth function, until the gradient is small.

Shapes: P unknowns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.second_order.problem import Function, Point, Problem
from torchstone.optim.second_order.quasi_newton import LBFGS


class FullBatchOptimizer(Protocol):
    """What `minimize` and the full-batch training call."""

    def init(self, parameters) -> Memory:
        """What it remembers at first; `parameters.data` is the starting point [P] (a tensor will do)."""
        ...

    def iterate(self, problem: Problem, point: Point, memory: Memory) -> Point | None:
        """One iteration from `point`; None where nothing lower is found."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """How a minimization ended."""

    x: Float[Tensor, " P"]
    value: float
    gradient_norm: float
    """Euclidean."""
    iterations: int
    evaluations: int
    """Of the value together with the gradient."""
    products: int
    """Hessian-vector products."""
    converged: bool
    why: str
    """In words."""


def minimize(
    function: Function,
    x0: Float[Tensor, " P"],
    method: FullBatchOptimizer | None = None,
    *,
    tolerance: float = 1e-8,
    most: int = 1000,
    watch: Callable[[Point], object] | None = None,
) -> Result:
    """From x0 downhill in float64 until the gradient's norm is at most `tolerance` or `most` iterations are done; L-BFGS where no method
    is given. `watch` sees every point on the way, the first one too. A start where the function is not finite is a ValueError.

    >>> import torch
    >>> minimize(lambda x: ((x - 3) ** 2).sum(), torch.zeros(2)).x.round(decimals=6)
    tensor([3., 3.], dtype=torch.float64)
    """
    method = LBFGS() if method is None else method
    problem, start = Problem([function]), x0.detach().double()
    memory = method.init(start)
    point = problem.at(start)
    if not point.finite:
        raise ValueError(f"minimize: the function is not finite at x0 (value {point.value})")
    iterations, why, converged = 0, f"{most} iterations are done", False
    while True:
        if watch is not None:
            watch(point)
        if point.gradient_norm <= tolerance:
            why, converged = f"the gradient's norm is at most {tolerance:g}", True
            break
        if iterations == most:
            break
        moved = method.iterate(problem, point, memory)
        if moved is None:
            why = "no lower point is found along the direction: the value is flat to the last digit, or the gradient is wrong"
            break
        iterations += 1
        if not moved.finite:
            why = f"the function is not finite after iteration {iterations}"
            break
        point = moved
    return Result(point.x, point.value, point.gradient_norm, iterations, problem.evaluations, problem.products, converged, why)
