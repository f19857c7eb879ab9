"""Functions to minimize, whose answers are known."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torchstone.optim.second_order import BFGS, LBFGS, ConjugateGradient, GradientDescent, Newton

METHODS = {
    "lbfgs": LBFGS(),
    "bfgs": BFGS(),
    "newton": Newton(),
    "newton_cg": Newton(solver="cg"),
    "pr_plus": ConjugateGradient(),
    "fr": ConjugateGradient(formula="fr"),
    "gradient_descent": GradientDescent(),
}


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def quadratic(size: int, condition: float, shift: float = 3.0) -> tuple[Tensor, Tensor, callable]:
    """(A, b, x -> x'Ax/2 - b'x + shift), eigenvalues from 1 to `condition`, evenly spaced in the logarithm."""
    draw = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64))
    values = condition ** torch.linspace(0, 1, size, dtype=torch.float64)
    a, b = q @ torch.diag(values) @ q.T, torch.randn(size, generator=draw, dtype=torch.float64)
    return a, b, lambda x: 0.5 * x @ (a @ x) - b @ x + shift


def small_network() -> tuple[callable, Tensor]:
    """(the cross-entropy of a network of 4-3-2 tanh units as a function of its 23 weights, some weights)."""
    draw = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x, y = torch.randn(30, 4, generator=draw, dtype=torch.float64), torch.randint(0, 2, (30,), generator=draw)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    start = torch.cat([p.detach().flatten() for p in model.parameters()])

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return nn.functional.cross_entropy(functional_call(model, named, (x,)), y) + 0.01 * flat.square().sum()

    return loss, start
