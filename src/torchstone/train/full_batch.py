"""An update that looks around: the optimizers of `optim.second_order` evaluate the step's own batch again and again.

The function they minimize is the step's: the loss of all micro-batches and ranks and the penalties, with the same random draws at every
look (as SAM's second pass sees the first one's). Batch-norm statistics move with the first look alone. With `run.batch_size` the whole
training split it is one function for the whole run, which is what the theory of these methods is about. Weights keep the model's
precision; what is computed about them is float64. Shapes: P scalars of all parameters.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchstone.core import ranks
from torchstone.optim.flat import FlatParameters
from torchstone.optim.second_order import Point, Problem
from torchstone.train.state import TrainState

Term = Callable[[], Tensor]
"""Part of the function, made anew where the weights stand."""


class StepProblem(Problem):
    """The batch of one step as a function of the flat weights.

    `closure` evaluates loss and gradient where the weights stand; `products` makes v -> H v there (double backward, summed over ranks).
    """

    def __init__(self, state: TrainState, closure: Callable[[], Tensor], products: Callable[[], Callable[[Tensor], Tensor]]) -> None:
        super().__init__([])
        self.state, self.closure, self.products_here = state, closure, products
        self.rounding = 1e-11 if state.parameters.data.dtype == torch.float64 else 1e-6
        self.buffers = list(state.model.buffers())
        self.kept = [buffer.clone() for buffer in self.buffers]
        self.mask = free(state.parameters)

    def here(self, value: float | Tensor) -> Point:
        """The point at which the step has just evaluated."""
        parameters = self.state.parameters
        return Point(parameters.data.double().clone(), float(value), self.masked(parameters.grad.double()))

    def at(self, x: Float[Tensor, " P"]) -> Point:
        self.evaluations += 1
        self.go(x)
        return self.here(self.closure())

    def product(self, x: Float[Tensor, " P"]) -> Callable[[Tensor], Tensor]:
        self.go(x)
        times = self.products_here()

        def masked(v: Tensor) -> Tensor:
            self.products += 1
            return self.masked(times(self.masked(v).to(self.state.parameters.data.dtype)).double())

        return masked

    def go(self, x: Float[Tensor, " P"]) -> None:
        """Puts the weights at x, rounded to their own precision, and the buffers where the first look left them: a graph that products are
        made from may hold these, so they are put back with the next move and not before."""
        with torch.no_grad():
            self.state.parameters.data.copy_(x)
        for buffer, kept in zip(self.buffers, self.kept, strict=True):
            buffer.copy_(kept)

    def masked(self, flat: Tensor) -> Tensor:
        return flat.clone() if self.mask is None else flat * self.mask


def free(parameters: FlatParameters) -> Tensor | None:
    """1 where the weights may move, 0 in frozen groups; None where all may."""
    if all(group.lr_scale for group in parameters.groups):
        return None
    mask = torch.ones_like(parameters.data, dtype=torch.float64)
    for group in parameters.groups:
        if group.lr_scale == 0:
            mask[group.start : group.stop] = 0
    return mask


def descend(optimizer: Any, problem: StepProblem, value: float | Tensor) -> dict[str, float]:
    """One iteration from where the weights stand, evaluated already (`value`, the gradient in its place). Where nothing lower is found
    they stay. Returns what is worth logging."""
    state = problem.state
    start = problem.here(value)
    moved = optimizer.iterate(problem, start, state.optimizer) if start.finite else None
    end = start.x if moved is None or not moved.finite else start.x + optimizer.lr * (moved.x - start.x)
    problem.go(end)
    return {"step_norm": float(torch.linalg.vector_norm(end - start.x)), "evaluations": float(problem.evaluations + 1)}


def products(state: TrainState, pieces: list[Term], penalties: list[Term]) -> Callable[[Tensor], Tensor]:
    """v -> H v where the weights stand, summed over ranks. `pieces`: the micro-batches' shares of the loss, each by a forward pass of the
    bare model; the graph of a single one is kept between products. Nothing is written to the gradients."""
    leaves, terms = list(state.parameters), [*pieces, *penalties]

    def slopes(term: Term) -> tuple[Tensor, ...]:
        with sdpa_kernel(SDPBackend.MATH):  # attention's fast kernels have no second derivative
            return torch.autograd.grad(term(), leaves, create_graph=True, allow_unused=True, materialize_grads=True)

    kept = [slopes(term) for term in terms] if len(pieces) == 1 else None

    def times(v: Tensor) -> Tensor:
        total, along = torch.zeros_like(v), list(state.parameters.named(v).values())
        for number, term in enumerate(terms):
            found = kept[number] if kept is not None else slopes(term)
            curved = [(slope, direction) for slope, direction in zip(found, along, strict=True) if slope.requires_grad]
            if curved:
                slope, direction = zip(*curved, strict=True)
                again = torch.autograd.grad(slope, leaves, direction, retain_graph=True, allow_unused=True, materialize_grads=True)
                for view, part in zip(state.parameters.named(total).values(), again, strict=True):
                    view.add_(part)
        return ranks.sum_(total)

    return times
