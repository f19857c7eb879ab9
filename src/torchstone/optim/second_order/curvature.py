"""What kind of place a point is: gradient, extreme curvatures, and the verdict minimum, maximum, saddle.

Lanczos, "An iteration method for the solution of the eigenvalue problem", 1950, with every new direction made orthogonal to all before it,
twice (Giraud et al., 2005: twice is enough), so that no eigenvalue comes out as two. Only products H v are needed. Each eigenvalue comes
with its residual |H v - lambda v|: a true eigenvalue lies no further away than that. That saddles, not poor minima, are where training
stalls: Dauphin et al., 2014, https://arxiv.org/abs/1406.2572. Shapes: P unknowns, K Lanczos steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core import random
from torchstone.optim.second_order.problem import Function, Problem

Verdict = Literal["minimum", "maximum", "saddle", "not stationary", "undecided"]


@dataclass(frozen=True, slots=True)
class Extremes:
    """The smallest and the largest eigenvalue of a symmetric operator."""

    lowest: float
    highest: float
    lowest_residual: float
    """|H v - lowest v| for the vector found: an eigenvalue is at most that far away."""
    highest_residual: float
    lowest_vector: Float[Tensor, " P"]
    highest_vector: Float[Tensor, " P"]
    steps: int
    """Products it took."""


@dataclass(frozen=True, slots=True)
class Saddle:
    """What `saddle` found at a point."""

    value: float
    gradient_norm: float
    lowest: float
    """The smallest eigenvalue of the Hessian: the most negative curvature."""
    highest: float
    residual: float
    """How far the two may be off."""
    verdict: Verdict
    because: str
    products: int

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"value          {self.value:.6g}",
            f"gradient norm  {self.gradient_norm:.3g}",
            f"curvature      {self.lowest:.6g} to {self.highest:.6g} (residual {self.residual:.1e}, {self.products} products)",
            f"verdict        {self.verdict}: {self.because}",
        ]


def lanczos(
    times: Callable[[Tensor], Tensor], like: Float[Tensor, " P"], *, most: int = 200, tolerance: float = 1e-8, key: int = 0
) -> Extremes:
    """Both extreme eigenvalues of v -> A v, A symmetric, from a start drawn from `key`; `like` says size, dtype and device.

    It ends when both residuals are at most `tolerance` times the largest size found, when the directions are used up, or after `most`.
    """
    size = like.numel()
    start = torch.from_numpy(random.generator(key).standard_normal(size)).to(like)
    basis = [start / torch.linalg.vector_norm(start)]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        w = times(basis[-1])
        diagonal.append(float(w @ basis[-1]))
        q = torch.stack(basis)
        for _ in range(2):
            w = w - q.T @ (q @ w)
        length = float(torch.linalg.vector_norm(w))
        values, vectors = torch.linalg.eigh(_tridiagonal(diagonal, beside))
        largest = float(values.abs().max())
        residuals = length * vectors[-1].abs()
        ended = len(basis) >= min(size, most) or length <= 1e-14 * max(largest, 1e-300)
        if ended or float(residuals[[0, -1]].max()) <= tolerance * largest:
            break
        beside.append(length)
        basis.append(w / length)
    low, high = (q.T @ vectors[:, end].to(q) for end in (0, -1))
    return Extremes(float(values[0]), float(values[-1]), float(residuals[0]), float(residuals[-1]), low, high, len(diagonal))


def saddle(function: Function, x: Float[Tensor, " P"], *, tolerance: float = 1e-5, most: int = 200) -> Saddle:
    """What kind of point x is, in float64.

    >>> saddle(lambda x: x[0] ** 2 - x[1] ** 2, torch.zeros(2)).verdict
    'saddle'
    """
    return saddle_of(Problem([function]), x.detach().double(), tolerance=tolerance, most=most)


def saddle_of(problem: Problem, x: Float[Tensor, " P"], *, tolerance: float = 1e-5, most: int = 200) -> Saddle:
    """The same of a problem that is there already. `tolerance`: the gradient norm up to which a point is stationary, and the share of the
    largest curvature up to which one counts as flat."""
    point = problem.at(x)
    found = lanczos(problem.product(x), x, most=most)
    residual = max(found.lowest_residual, found.highest_residual)
    flat = max(tolerance * max(abs(found.lowest), abs(found.highest)), residual)
    verdict, because = judged(point.gradient_norm, found.lowest, found.highest, tolerance, flat)
    return Saddle(point.value, point.gradient_norm, found.lowest, found.highest, residual, verdict, because, problem.products)


def judged(gradient: float, lowest: float, highest: float, tolerance: float, flat: float) -> tuple[Verdict, str]:
    """The verdict and its reason. Curvatures up to `flat` in size count as 0, of which second derivatives say nothing."""
    if not gradient <= tolerance:
        turned = "; the curvature has both signs here" if lowest < -flat and highest > flat else ""
        return "not stationary", f"the gradient is {gradient:.3g}, more than {tolerance:g}{turned}"
    if lowest < -flat and highest > flat:
        return "saddle", "downhill one way, uphill another"
    if lowest > flat:
        return "minimum", "uphill every way"
    if highest < -flat:
        return "maximum", "downhill every way"
    ways = "uphill" if highest > flat else "downhill" if lowest < -flat else "flat"
    return "undecided", f"{ways} or flat every way: along a flat one second derivatives cannot tell"


def _tridiagonal(diagonal: list[float], beside: list[float]) -> Float[Tensor, "K K"]:
    side = torch.tensor(beside, dtype=torch.float64)
    return torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(side, 1) + torch.diag(side, -1)
