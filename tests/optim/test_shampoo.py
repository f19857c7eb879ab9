"""Shampoo against its paper in NumPy float64: K = 2 equal matrices in one stack, tall and wide ones, a head apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from optim.two_layers import by_part, by_rule, must_agree
from torchstone.core.protocols import Group
from torchstone.optim import FlatParameters, Shampoo
from torchstone.optim.shampoo import inverse_root

WIDTHS = (5, 8, 8, 8, 3)
MATRICES, VECTORS = tuple(f"{i}.weight" for i in (0, 2, 4, 6)), tuple(f"{i}.bias" for i in (0, 2, 4, 6))
GROUPS = (Group(MATRICES, 0.5, 2.0), Group(VECTORS, 1.0, 0.5))
PART = Shampoo(lr=0.05, every=1, weight_decay=0.1)


def root(matrix, order, eps):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag((np.maximum(values, 0) + eps) ** (-1 / order)) @ vectors.T


def rule_of(part: Shampoo):
    newest = 1.0 if part.beta2 == 1 else 1 - part.beta2

    def diagonal(g, memory, correction):
        memory["s"] = part.beta2 * memory.get("s", 0.0) + newest * g**2
        return g / np.sqrt(memory["s"] / correction + part.eps)

    def shampoo(w, g, memory, t, lr, decay):
        g = g + decay * w
        correction = 1.0 if part.beta2 == 1 else 1 - part.beta2**t
        if g.ndim == 1:
            d = diagonal(g, memory, correction)
        else:
            sides = [size <= part.max_size for size in g.shape]
            memory["L"] = part.beta2 * memory.get("L", 0.0) + newest * g @ g.T
            memory["R"] = part.beta2 * memory.get("R", 0.0) + newest * g.T @ g
            if (t - 1) % part.every == 0:
                memory["roots"] = [
                    root(memory[side] / correction, 2 * sum(sides), part.eps) if there else np.eye(len(memory[side]))
                    for side, there in zip("LR", sides, strict=True)
                ]
            d = memory["roots"][0] @ g @ memory["roots"][1]
            if part.graft != "none":
                size = diagonal(g, memory, correction) if part.graft == "diagonal" else g
                d = d * np.linalg.norm(size) / np.linalg.norm(d)
        memory["v"] = part.momentum * memory.get("v", 0.0) + d
        return w - lr * memory["v"]

    return shampoo


@pytest.mark.parametrize(
    "part",
    [
        PART,
        replace(PART, every=3, momentum=0.0),
        replace(PART, beta2=0.9),
        replace(PART, graft="diagonal"),
        replace(PART, graft="sgd", every=2, beta2=0.8),
        replace(PART, max_size=6),
        replace(PART, max_size=1, weight_decay=0.0),
    ],
    ids=lambda part: f"{part.graft}-{part.every}-{part.beta2}-{part.max_size}",
)
def test_is_the_papers(part):
    if part.max_size == 1:  # no matrix at all: momentum on the gradient, for matrices
        rule = rule_of(part)
        plain = lambda w, g, memory, t, lr, decay: rule(w, g, memory, t, lr, decay) if g.ndim == 1 else momentum(w, g, memory, lr)
        must_agree(by_part(part, GROUPS, WIDTHS), by_rule(part, plain, GROUPS, WIDTHS))
    else:
        # 1e-10: a gradient of few directions leaves eigenvalues at eps, whose roots are large.
        must_agree(by_part(part, GROUPS, WIDTHS), by_rule(part, rule_of(part), GROUPS, WIDTHS), 1e-10)


def momentum(w, g, memory, lr):
    memory["v"] = PART.momentum * memory.get("v", 0.0) + g
    return w - lr * memory["v"]


def test_memory_is_a_matrix_for_each_side():
    flat = FlatParameters(torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in ((5, 8), (8, 8), (8, 8), (8, 3)))))
    memory = Shampoo(max_size=7).init(flat)
    shapes = {name: tuple(tensor.shape) for name, tensor in memory.items() if tensor.ndim > 1}
    assert shapes == {
        "right.0.weight": (1, 5, 5),
        "right_root.0.weight": (1, 5, 5),
        "left.3.weight": (1, 3, 3),
        "left_root.3.weight": (1, 3, 3),
    }
    assert Shampoo().init(flat)["left.1.weight"].shape == (2, 8, 8)


def test_the_first_step_is_orthogonal():
    """Without eps, (G G^T)^-1/4 G (G^T G)^-1/4 = U V^T."""
    flat = FlatParameters(torch.nn.Linear(6, 4, bias=False, dtype=torch.float64))
    flat.data.zero_()
    grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flat.view(flat.grad, "weight").copy_(grad)
    Shampoo(lr=1.0, eps=1e-14).step(flat, Shampoo().init(flat))
    u, _, v = torch.linalg.svd(grad, full_matrices=False)
    torch.testing.assert_close(flat.view(flat.data, "weight"), -u @ v, rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_inverse_root(order):
    x = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = x @ x.mT
    inverse = torch.linalg.matrix_power(inverse_root(matrix, order, 1e-3), order)
    torch.testing.assert_close(inverse @ (matrix + 1e-3 * torch.eye(5)), torch.eye(5).double().expand(3, 5, 5), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shampoo(beta2=1.1), "Shampoo.beta2 must be"),
        (lambda: Shampoo(every=0), "Shampoo.every must be"),
        (lambda: Shampoo(max_size=0), "Shampoo.max_size must be"),
        (lambda: Shampoo(eps=0.0), "Shampoo.eps must be"),
        (lambda: Shampoo(momentum=1.0), "Shampoo.momentum must be"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
