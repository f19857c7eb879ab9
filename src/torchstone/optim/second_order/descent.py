"""Batch gradient descent: straight down, the gradient of everything at once.

Cauchy, "Méthode générale pour la résolution des systèmes d'équations simultanées", 1847; Nocedal and Wright, "Numerical Optimization",
2006, section 3.3: on a quadratic of condition number k an exact search shrinks the error by (k - 1) / (k + 1) an iteration.
Shapes: P unknowns.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from torchstone.core.protocols import Memory
from torchstone.optim.second_order.line_search import Backtracking, FixedStep, StrongWolfe
from torchstone.optim.second_order.problem import Point, Problem, require_share


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientDescent:
    """x <- x - t g over all samples. Memory: "step" 0-d, the length of the last step."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"
    searches: ClassVar[bool] = True

    lr: float = 1.0
    """Share of the step found that is taken: 1 is the method as published, less is for batches that are not everything."""
    search: Backtracking | StrongWolfe | FixedStep = Backtracking()
    """How long a step is."""

    def __post_init__(self) -> None:
        require_share("GradientDescent", self.lr)

    def init(self, parameters) -> Memory:
        return {"step": torch.zeros((), dtype=torch.float64)}

    def iterate(self, problem: Problem, point: Point, memory: Memory) -> Point | None:
        last = float(memory["step"])
        first = 2 * last if last > 0 else min(1.0, 1 / max(point.gradient_norm, 1e-300))
        found = self.search(problem, point, -point.gradient, first)
        if found is None:
            return None
        memory["step"].fill_(found[0])
        return found[1]
