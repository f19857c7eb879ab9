"""Newton's method: the step that would end it if the function were a parabola.

Nocedal and Wright, "Numerical Optimization", 2nd edition, 2006: chapter 3.4 (a Hessian made positive) and algorithm 7.1 (inner conjugate
gradients, cut short); Martens, "Deep learning via Hessian-free optimization", 2010, damps the same by lambda I. Negative eigenvalues
change their sign: Dauphin et al., "Identifying and attacking the saddle point problem", 2014, https://arxiv.org/abs/1406.2572.

    d = -(|H| + damping I)^-1 g

Shapes: P unknowns.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.protocols import Memory
from torchstone.optim.second_order.conjugate import solve
from torchstone.optim.second_order.line_search import Backtracking, StrongWolfe
from torchstone.optim.second_order.problem import Point, Problem, require_room, require_share


@dataclass(frozen=True, kw_only=True, slots=True)
class Newton:
    """Damped Newton: the full step where it lowers the value enough, else a shorter one. No memory."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a method always has an optimizer"
    searches: ClassVar[bool] = True

    lr: float = 1.0
    """Share of the step found that is taken: 1 is the method as published, less is for batches that are not everything."""
    solver: Literal["direct", "cg"] = "direct"
    """direct: the whole Hessian and its eigenvalues, P^3; cg: products alone, for many unknowns."""
    damping: float = 0.0
    """Added to every eigenvalue: towards short steps straight down."""
    floor: float = 1e-10
    """direct: the smallest eigenvalue that counts, as a share of the largest; below it a direction is left alone."""
    cg_steps: int = 250
    """cg: products of one step at most."""
    search: Backtracking | StrongWolfe = Backtracking()
    """How much of the step is gone."""

    def __post_init__(self) -> None:
        require_share("Newton", self.lr)
        if self.solver not in ("direct", "cg"):
            raise ValueError(f'Newton.solver must be "direct" or "cg", got {self.solver!r}')
        if not 0 <= self.damping < float("inf"):
            raise ValueError(f"Newton.damping must be finite and >= 0, got {self.damping}")
        if not 0 <= self.floor < 1:
            raise ValueError(f"Newton.floor must be in [0, 1), got {self.floor}")
        if self.cg_steps < 1:
            raise ValueError(f"Newton.cg_steps must be >= 1, got {self.cg_steps}")

    def init(self, parameters) -> Memory:
        if self.solver == "direct":
            require_room(parameters.data.numel())
        return {}

    def iterate(self, problem: Problem, point: Point, memory: Memory) -> Point | None:
        direction = self.direct(problem, point) if self.solver == "direct" else self.by_products(problem, point)
        if not float(direction @ point.gradient) < 0:
            direction = -point.gradient
        found = self.search(problem, point, direction, 1.0)
        return None if found is None else found[1]

    def direct(self, problem: Problem, point: Point) -> Float[Tensor, " P"]:
        values, vectors = torch.linalg.eigh(problem.hessian(point.x))
        sizes = values.abs()
        kept = sizes > self.floor * sizes.max()
        inverse = torch.where(kept, 1 / (sizes + self.damping).clamp(min=torch.finfo(sizes.dtype).tiny), 0)
        return -(vectors @ (inverse * (vectors.T @ point.gradient)))

    def by_products(self, problem: Problem, point: Point) -> Float[Tensor, " P"]:
        times, norm = problem.product(point.x), point.gradient_norm
        accuracy = min(0.5, norm**0.5)  # ever better as the end comes nearer: convergence is superlinear
        direction, _ = solve(lambda v: times(v) + self.damping * v, -point.gradient, tolerance=accuracy, most=self.cg_steps)
        return direction
