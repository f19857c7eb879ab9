"""A smooth function to minimize: its value, gradient, Hessian-vector products and whole Hessian, each counted.

Pearlmutter, "Fast Exact Multiplication by the Hessian", 1994: H v is the gradient of (gradient . v), so a product costs two gradients
and no matrix is ever made. Shapes: P unknowns.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.errors import UserError

Function = Callable[[Tensor], Tensor]
"""From x to a 0-d tensor, written in torch operations."""

LARGEST_MATRIX = 10_000
"""Unknowns up to which a P x P matrix is made: 0.8 GB in float64."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where a function was looked at, and what was found there."""

    x: Float[Tensor, " P"]
    value: float
    gradient: Float[Tensor, " P"]
    tag: Any = None
    """Whatever the problem wants to remember of this point (the buffers a model has there)."""

    @property
    def gradient_norm(self) -> float:
        return float(torch.linalg.vector_norm(self.gradient))

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value) and bool(torch.isfinite(self.gradient).all())


class Problem:
    """The sum of `terms`, looked at one after the other so that memory holds one of them at a time.

    `evaluations` counts values with their gradients, `products` Hessian-vector products.
    """

    rounding = 1e-11
    """Of the value's size: a rise smaller than this is no rise (a sum over many samples is no more exact than that)."""

    def __init__(self, terms: Sequence[Function]) -> None:
        self.terms = list(terms)
        self.evaluations = 0
        self.products = 0

    def at(self, x: Float[Tensor, " P"]) -> Point:
        """The value and the gradient at x."""
        self.evaluations += 1
        x = x.detach().clone().requires_grad_()
        value, gradient = x.new_zeros(()), torch.zeros_like(x)
        with torch.enable_grad():
            for term in self.terms:
                part = term(x)
                value = value + part.detach()
                gradient += _gradient(part, x)
        value, gradient = self.reduced(value), self.reduced(gradient)
        return Point(x.detach(), float(value), gradient, self.tag())

    def product(self, x: Float[Tensor, " P"]) -> Callable[[Tensor], Tensor]:
        """v -> H(x) v. The graph of a function of one term is kept between products; of several, each is made anew."""
        if len(self.terms) > 1:
            return lambda v: self._product(x, v)
        x = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            gradient = _gradient(self.terms[0](x), x, create_graph=True)

        def times(v: Tensor) -> Tensor:
            self.products += 1
            return self.reduced(_product(gradient, x, v))

        return times

    def _product(self, x: Tensor, v: Tensor) -> Tensor:
        self.products += 1
        x, total = x.detach().clone().requires_grad_(), torch.zeros_like(x)
        with torch.enable_grad():
            for term in self.terms:
                total += _product(_gradient(term(x), x, create_graph=True), x, v)
        return self.reduced(total)

    def hessian(self, x: Float[Tensor, " P"]) -> Float[Tensor, "P P"]:
        """The whole matrix from P products, made exactly symmetric. UserError where it would be too large."""
        require_room(x.numel())
        times = self.product(x)
        rows = torch.stack([times(unit) for unit in torch.eye(x.numel(), dtype=x.dtype, device=x.device)])
        return (rows + rows.T) / 2

    def reduced(self, tensor: Tensor) -> Tensor:
        """Summed over ranks, where the terms are spread over several."""
        return tensor

    def tag(self) -> Any:
        """What to remember of the point just looked at."""
        return None


def require_share(name: str, lr: float) -> None:
    """ValueError for an `lr` that is no share of a step."""
    if not 0 <= lr <= 1:
        raise ValueError(f"{name}.lr must be in [0, 1], got {lr}")


def require_room(unknowns: int) -> None:
    """UserError where a P x P matrix would be too large."""
    if unknowns > LARGEST_MATRIX:
        raise UserError(
            f"{unknowns:,} unknowns make a matrix of {unknowns**2 * 8 / 1e9:.1f} GB ({LARGEST_MATRIX:,} at most): lbfgs, "
            "conjugate_gradient and newton with solver=cg need none"
        )


def _gradient(value: Tensor, x: Tensor, create_graph: bool = False) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(x)
    found = torch.autograd.grad(value, x, create_graph=create_graph, allow_unused=True, materialize_grads=True)[0]
    return found


def _product(gradient: Tensor, x: Tensor, v: Tensor) -> Tensor:
    if not gradient.requires_grad:  # a linear function
        return torch.zeros_like(x)
    return torch.autograd.grad(gradient, x, grad_outputs=v, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
