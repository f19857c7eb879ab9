"""Conjugate gradients: for a linear system, and for any smooth function.

Hestenes and Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems", 1952; Fletcher and Reeves, "Function minimization by
conjugate gradients", 1964; Polak and Ribière, 1969, with the factor never below 0 (PR+): Gilbert and Nocedal, 1992. As in Nocedal and
Wright, "Numerical Optimization", 2006, algorithms 5.2 and 5.4, eq. 5.41a and 5.45: d <- -g + beta d with

    FR: beta = g'g / g0'g0                        PR+: beta = max(0, g'(g - g0) / g0'g0)

Shapes: P unknowns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.second_order.line_search import StrongWolfe
from torchstone.optim.second_order.problem import Point, Problem, require_share


@dataclass(frozen=True, kw_only=True, slots=True)
class ConjugateGradient:
    """Nonlinear conjugate gradients. Memory: "direction" and "gradient" [P]; "step", "slope" and "count" 0-d."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"
    searches: ClassVar[bool] = True

    lr: float = 1.0
    """Share of the step found that is taken: 1 is the method as published, less is for batches that are not everything."""
    formula: Literal["pr_plus", "fr"] = "pr_plus"
    """pr_plus: Polak-Ribière, restarting by itself where the factor would be negative; fr: Fletcher-Reeves."""
    search: StrongWolfe = StrongWolfe(c2=0.1)
    """How long a step is; c2 below 0.5 keeps the directions of Fletcher-Reeves downhill."""

    def __post_init__(self) -> None:
        require_share("ConjugateGradient", self.lr)
        if self.formula not in ("pr_plus", "fr"):
            raise ValueError(f'ConjugateGradient.formula must be "pr_plus" or "fr", got {self.formula!r}')

    def init(self, parameters) -> Memory:
        zeros = torch.zeros_like(parameters.data, dtype=torch.float64)
        number = torch.zeros((), dtype=torch.float64)
        return {"direction": zeros, "gradient": zeros.clone(), "step": number, "slope": number.clone(), "count": number.clone()}

    def iterate(self, problem: Problem, point: Point, memory: Memory) -> Point | None:
        g, last = point.gradient, memory["gradient"]
        restart = float(memory["count"]) % max(2, g.numel()) == 0  # after P steps the directions of a quadratic are used up
        beta = 0.0
        if not restart:
            beta = float(g @ g if self.formula == "fr" else (g @ (g - last)).clamp(min=0)) / max(float(last @ last), 1e-300)
        direction = beta * memory["direction"] - g
        slope = float(g @ direction)
        if not slope < 0:
            direction, slope, restart = 0.0 - g, -float(g @ g), True  # -g would leave -0 in the padding
        first = float(memory["step"] * memory["slope"]) / slope if float(memory["step"]) > 0 else 1 / max(point.gradient_norm, 1.0)
        found = self.search(problem, point, direction, min(max(first, 1e-12), 1e12))
        if found is None and not restart:  # a used-up direction: straight down once more
            memory["count"].zero_()
            return self.iterate(problem, point, memory)
        if found is None:
            return None
        memory["direction"].copy_(direction)
        memory["gradient"].copy_(g)
        memory["step"].fill_(found[0])
        memory["slope"].fill_(slope)
        memory["count"] += 1
        return found[1]


def solve(
    times: Callable[[Tensor], Tensor], b: Float[Tensor, " P"], *, tolerance: float = 1e-10, most: int | None = None
) -> tuple[Float[Tensor, " P"], bool]:
    """(x, True) with |b - A x| <= tolerance |b| for `times` = v -> A v, A symmetric and positive definite; in exact arithmetic after at
    most P products. (x so far, False) where a direction of no or negative curvature is met: the first such direction is b itself."""
    x, residual = torch.zeros_like(b), b.clone()
    direction, square = residual.clone(), float(b @ b)
    goal = tolerance**2 * square
    for _ in range(b.numel() * 2 if most is None else most):
        if square <= goal:
            break
        product = times(direction)
        curvature = float(direction @ product)
        if not curvature > torch.finfo(b.dtype).eps * float(direction @ direction):
            return x, False
        x += square / curvature * direction
        residual -= square / curvature * product
        square, before = float(residual @ residual), square
        direction = residual + square / before * direction
    return x, True
