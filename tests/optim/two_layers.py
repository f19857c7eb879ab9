"""A small network with its gradient written out in NumPy float64, and the loop that trains it by an update rule from a paper.

Shapes: 11 rows; the weight of layer i is [widths[i + 1], widths[i]].
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from torchstone.core.protocols import Group
from torchstone.optim.flat import FlatParameters

Weights = dict[str, np.ndarray]
Rule = Callable[[np.ndarray, np.ndarray, dict[str, Any], int, float, float], np.ndarray]
"""(weights, gradient, memory of this tensor, step from 1, rate, decay) -> new weights."""

WIDTHS = (7, 9, 3)
GROUPS = (Group(("0.weight", "2.bias"), 0.5, 2.0), Group(("0.bias", "2.weight"), 1.0, 0.5))
STEPS = 12


def network(widths: Sequence[int] = WIDTHS, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Linear layers with tanh between them, named 0, 2, 4 ..."""
    draw = np.random.default_rng(3)
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layer = nn.Linear(wide, narrow, dtype=torch.float64)
        layer.weight.data = torch.from_numpy(draw.normal(size=(narrow, wide)) / wide**0.5)
        layer.bias.data = torch.from_numpy(0.1 * draw.normal(size=narrow))
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def rows(widths: Sequence[int], step: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(step)
    return draw.normal(size=(11, widths[0])), draw.normal(size=(11, widths[-1]))


def weights_of(model: nn.Module) -> Weights:
    return {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}


def gradient(weights: Weights, widths: Sequence[int], step: int) -> Weights:
    """Of the mean square error over rows and outputs, by hand."""
    x, target = rows(widths, step)
    names = range(0, 2 * (len(widths) - 1), 2)
    inputs = []
    for i in names:
        inputs.append(x)
        x = x @ weights[f"{i}.weight"].T + weights[f"{i}.bias"]
        if i != names[-1]:
            x = np.tanh(x)
    delta, grads = 2 * (x - target) / x.size, {}
    for i, each in zip(reversed(names), reversed(inputs), strict=True):
        grads[f"{i}.weight"], grads[f"{i}.bias"] = delta.T @ each, delta.sum(0)
        delta = (delta @ weights[f"{i}.weight"]) * (1 - each**2)
    return grads


def backward(model: nn.Module, widths: Sequence[int], step: int) -> None:
    x, target = (torch.from_numpy(each).to(next(model.parameters()).dtype) for each in rows(widths, step))
    (model(x) - target).square().mean().backward()


def by_rule(
    part: Any, rule: Rule, groups: Iterable[Group] = GROUPS, widths: Sequence[int] = WIDTHS, factor: Callable[[int], float] = lambda t: 1.0
) -> Iterator[Weights]:
    """The weights after each step."""
    weights = weights_of(network(widths))
    memory: dict[str, dict[str, Any]] = {name: {} for name in weights}
    group_of = {name: group for group in groups for name in group.names}
    decay = getattr(part, "weight_decay", 0.0)
    for t in range(1, STEPS + 1):
        grads = gradient(weights, widths, t)
        for name, group in group_of.items():
            lr = part.lr * factor(t) * group.lr_scale
            weights[name] = rule(weights[name], grads[name], memory[name], t, lr, decay * group.decay_scale)
        yield dict(weights)


def by_part(
    part: Any, groups: Sequence[Group] | None = GROUPS, widths: Sequence[int] = WIDTHS, factor: Callable[[int], float] = lambda t: 1.0
) -> Iterator[Weights]:
    """The same from torchstone."""
    flat = FlatParameters(network(widths), groups)
    memory = part.init(flat)
    for t in range(1, STEPS + 1):
        flat.zero_grad()
        backward(flat.module, widths, t)
        replace(part, lr=part.lr * factor(t)).step(flat, memory)
        yield weights_of(flat.module)


def by_torch(make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer], part: Any) -> Iterator[Weights]:
    """The same from torch.optim, given the groups with their rates and decays."""
    model = network()
    named = dict(model.named_parameters())
    optimizer = make(
        [
            {"params": [named[n] for n in g.names], "lr": part.lr * g.lr_scale, "weight_decay": part.weight_decay * g.decay_scale}
            for g in GROUPS
        ]
    )
    for t in range(1, STEPS + 1):
        optimizer.zero_grad()
        backward(model, WIDTHS, t)
        optimizer.step()
        yield weights_of(model)


def must_agree(ours: Iterable[Weights], theirs: Iterable[Weights], tolerance: float = 1e-12) -> None:
    """At every step; and the steps went somewhere."""
    start = now = None
    for t, (now, wanted) in enumerate(zip(ours, theirs, strict=True), 1):
        start = start or now
        for name in wanted:
            np.testing.assert_allclose(now[name], wanted[name], rtol=0, atol=tolerance, err_msg=f"{name}, step {t}")
    assert start is not None and now is not None and all(np.abs(now[name] - start[name]).max() > 1e-6 for name in now)
