"""Least squares in closed form: the weights of a linear model from one solve.

Legendre, 1805, and Gauss, 1809; with a penalty, Hoerl and Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems",
1970: W = (X'X + strength I)^-1 X'Y. Shapes: N samples, F features, C outputs, P unknowns.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.errors import UserError
from torchstone.core.protocols import Memory
from torchstone.optim.second_order.problem import Point, Problem, require_room, require_share

REFINEMENTS = 4
"""Corrections of the solution at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClosedForm:
    """One solve, from anywhere: for losses that are quadratic in the weights, a linear model under squared error with or without l2.

    The normal equations H x = -g(0) are read off the function itself, and of all solutions the shortest is taken. UserError where the
    function turns out not to be quadratic. No memory.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"
    searches: ClassVar[bool] = True

    lr: float = 1.0
    """Share of the step found that is taken: 1 is the method as published, less is for batches that are not everything."""
    floor: float = 1e-12
    """Eigenvalues of H below this share of the largest count as 0: directions the data say nothing of."""

    def __post_init__(self) -> None:
        require_share("ClosedForm", self.lr)
        if not 0 <= self.floor < 1:
            raise ValueError(f"ClosedForm.floor must be in [0, 1), got {self.floor}")

    def init(self, parameters) -> Memory:
        require_room(parameters.data.numel())
        return {}

    def iterate(self, problem: Problem, point: Point, memory: Memory) -> Point | None:
        zero = problem.at(torch.zeros_like(point.x))
        inverse, found = pseudo_inverse(problem.hessian(zero.x), self.floor), zero
        for _ in range(REFINEMENTS):  # each takes away what rounding left of the gradient before
            better = problem.at(found.x - inverse @ found.gradient)
            if not better.gradient_norm < found.gradient_norm:
                break
            found = better
        left, limit = found.gradient_norm, 1e4 * problem.rounding * max(zero.gradient_norm, 1e-300)
        if not left <= limit and zero.gradient_norm > 0:
            raise UserError(
                f"optimizer=closed_form: a gradient of {left:.3g} is left after the solve (at most {limit:.3g} may be), so the loss is not "
                "quadratic in the weights; it must be squared error of a model without hidden layers (loss=mse model=mlp model.hidden=[])"
            )
        return found


def pseudo_inverse(matrix: Float[Tensor, "P P"], floor: float) -> Float[Tensor, "P P"]:
    """Of a symmetric matrix: eigenvalues up to `floor` of the largest count as 0 and stay 0."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = values.abs() > floor * values.abs().max()
    return (vectors * torch.where(kept, 1 / torch.where(kept, values, 1), 0)) @ vectors.T


def ridge(
    inputs: Float[Tensor, "N F"], target: Float[Tensor, "N C"], strength: float = 0.0, *, intercept: bool = True
) -> tuple[Float[Tensor, "F C"], Float[Tensor, " C"]]:
    """(W, b) that minimize |Y - X W - b|^2 + strength |W|^2, by the singular values of X; of several the shortest W. b is free of the
    penalty, and 0 without `intercept`. Computed in float64.

    >>> ridge(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [3.0], [5.0]]))[0].round(decimals=6)
    tensor([[2.]], dtype=torch.float64)
    """
    if not 0 <= strength < float("inf"):
        raise ValueError(f"ridge: strength must be finite and >= 0, got {strength}")
    x, y = inputs.double(), target.double()
    x_mean = x.mean(dim=0) if intercept else x.new_zeros(x.shape[1])
    y_mean = y.mean(dim=0) if intercept else y.new_zeros(y.shape[1])
    u, s, vt = torch.linalg.svd(x - x_mean, full_matrices=False)
    kept = s > torch.finfo(s.dtype).eps * max(x.shape) * (s.max() if len(s) else 0)
    gains = torch.where(kept, s / torch.where(kept, s**2 + strength, 1), 0)
    weights = vt.T @ (gains[:, None] * (u.T @ (y - y_mean)))
    return weights, y_mean - x_mean @ weights
