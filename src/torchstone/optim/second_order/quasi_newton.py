"""Quasi-Newton methods: the inverse Hessian learned from how the gradient changes, whole (BFGS) or from the last few steps (L-BFGS).

Broyden, Fletcher, Goldfarb and Shanno, each 1970; Liu and Nocedal, "On the limited memory BFGS method for large scale optimization",
1989. Here as in Nocedal and Wright, "Numerical Optimization", 2nd edition, 2006: algorithm 6.1 with the first scale of eq. 6.20,
algorithms 7.4 and 7.5 with the scale of eq. 7.20. With s = the last step and y = the change of the gradient along it:

    H <- (I - r s y') H (I - r y s') + r s s',     r = 1 / (y' s)

Strong Wolfe searches keep y' s > 0; a pair for which rounding spoils that is left out.
Shapes: P unknowns, M remembered steps.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.second_order.line_search import Backtracking, StrongWolfe
from torchstone.optim.second_order.problem import Point, Problem, require_room, require_share

CURVATURE = 1e-12
"""y' s must be more than this share of |y| |s|."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BFGS:
    """Quasi-Newton with the whole matrix: P^2 numbers. Memory: "inverse" [P, P], "count" 0-d."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"
    searches: ClassVar[bool] = True

    lr: float = 1.0
    """Share of the step found that is taken: 1 is the method as published, less is for batches that are not everything."""
    search: StrongWolfe | Backtracking = StrongWolfe()
    """How long a step is."""

    def __post_init__(self) -> None:
        require_share("BFGS", self.lr)

    def init(self, parameters) -> Memory:
        data = parameters.data
        require_room(data.numel())
        inverse = torch.eye(data.numel(), dtype=torch.float64, device=data.device)
        return {"inverse": inverse, "count": torch.zeros((), dtype=torch.float64)}

    def iterate(self, problem: Problem, point: Point, memory: Memory) -> Point | None:
        inverse = memory["inverse"]
        direction = -(inverse @ point.gradient)
        if not float(direction @ point.gradient) < 0:
            inverse.copy_(torch.eye(len(inverse)))
            memory["count"].zero_()
            direction = -point.gradient
        found = self.search(problem, point, direction, first_step(point, memory))
        if found is None:
            return None
        s, y = found[1].x - point.x, found[1].gradient - point.gradient
        if usable(s, y):
            if float(memory["count"]) == 0:
                inverse.copy_(torch.eye(len(inverse)) * (y @ s) / (y @ y))
            rho, z = 1 / (y @ s), inverse @ y
            inverse += (rho + rho**2 * (y @ z)) * torch.outer(s, s) - rho * (torch.outer(z, s) + torch.outer(s, z))
            memory["count"] += 1
        return found[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class LBFGS:
    """Quasi-Newton from the last steps: 2 x history x P numbers. Memory: "steps" and "changes" [M, P], "count" 0-d."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"
    searches: ClassVar[bool] = True

    lr: float = 1.0
    """Share of the step found that is taken: 1 is the method as published, less is for batches that are not everything."""
    history: int = 10
    """Steps remembered."""
    search: StrongWolfe | Backtracking = StrongWolfe()
    """How long a step is."""

    def __post_init__(self) -> None:
        require_share("LBFGS", self.lr)
        if not 1 <= self.history <= 1000:
            raise ValueError(f"LBFGS.history must be in 1..1000, got {self.history}")

    def init(self, parameters) -> Memory:
        data = parameters.data
        pairs = torch.zeros(self.history, data.numel(), dtype=torch.float64, device=data.device)
        return {"steps": pairs, "changes": pairs.clone(), "count": torch.zeros((), dtype=torch.float64)}

    def iterate(self, problem: Problem, point: Point, memory: Memory) -> Point | None:
        direction = -self.times_inverse(point.gradient, memory)
        if not float(direction @ point.gradient) < 0:
            memory["count"].zero_()
            direction = -point.gradient
        found = self.search(problem, point, direction, first_step(point, memory))
        if found is None:
            return None
        s, y = found[1].x - point.x, found[1].gradient - point.gradient
        if usable(s, y):
            place = int(memory["count"]) % self.history
            memory["steps"][place], memory["changes"][place] = s, y
            memory["count"] += 1
        return found[1]

    def times_inverse(self, v: Float[Tensor, " P"], memory: Memory) -> Float[Tensor, " P"]:
        """The inverse Hessian of the remembered steps times v: two loops over them, newest first, then oldest first."""
        count = int(memory["count"])
        if count == 0:
            return v
        places = [number % self.history for number in range(max(0, count - self.history), count)]
        pairs = [(memory["steps"][place], memory["changes"][place]) for place in places]
        q, shares = v.clone(), []
        for s, y in reversed(pairs):
            share = (s @ q) / (y @ s)
            q -= share * y
            shares.append(share)
        s, y = pairs[-1]
        q *= (s @ y) / (y @ y)
        for (s, y), share in zip(pairs, reversed(shares), strict=True):
            q += (share - (y @ q) / (y @ s)) * s
        return q


def first_step(point: Point, memory: Memory) -> float:
    """1, but before anything is known of the curvature no further than 1."""
    return 1.0 if float(memory["count"]) > 0 else min(1.0, 1 / max(point.gradient_norm, 1e-300))


def usable(s: Float[Tensor, " P"], y: Float[Tensor, " P"]) -> bool:
    return float(y @ s) > CURVATURE * float(torch.linalg.vector_norm(y) * torch.linalg.vector_norm(s))
