"""SOAP against its paper's algorithms in NumPy float64: K = 3 square matrices in one stack, so that no basis is left to chance."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from optim.two_layers import STEPS, by_part, by_rule, must_agree
from torchstone.core.protocols import Group
from torchstone.optim import SOAP, FlatParameters
from torchstone.optim.soap import iterated

WIDTHS = (8, 8, 8, 8)
GROUPS = (
    Group(tuple(f"{i}.weight" for i in (0, 2, 4)), 0.5, 2.0),
    Group(tuple(f"{i}.bias" for i in (0, 2, 4)), 1.0, 0.5),
)
PART = SOAP(lr=0.03, betas=(0.8, 0.9), every=3, weight_decay=0.1)


def adamw(w, g, memory, t, lr, decay):
    memory["m"] = 0.8 * memory.get("m", 0.0) + 0.2 * g
    memory["v"] = 0.9 * memory.get("v", 0.0) + 0.1 * g**2
    return w * (1 - lr * decay) - lr * (memory["m"] / (1 - 0.8**t)) / (np.sqrt(memory["v"] / (1 - 0.9**t)) + 1e-8)


def soap(w, g, memory, t, lr, decay):
    if g.ndim == 1:
        return adamw(w, g, memory, t, lr, decay)
    if t > 1:
        left, right = memory["Q"]
        memory["M"] = 0.8 * memory.get("M", 0.0) + 0.2 * g
        memory["V"] = 0.9 * memory.get("V", 0.0) + 0.1 * (left.T @ g @ right) ** 2
        step = (left.T @ memory["M"] @ right / (1 - 0.8 ** (t - 1))) / (np.sqrt(memory["V"] / (1 - 0.9 ** (t - 1))) + 1e-8)
        w = w * (1 - lr * decay) - lr * left @ step @ right.T
    memory["L"] = 0.9 * memory.get("L", 0.0) + 0.1 * g @ g.T
    memory["R"] = 0.9 * memory.get("R", 0.0) + 0.1 * g.T @ g
    if t == 1:
        memory["Q"] = [np.linalg.eigh(memory[side])[1][:, ::-1] for side in "LR"]
    elif (t - 1) % PART.every == 0:
        for i, side in enumerate("LR"):
            basis = memory["Q"][i]
            order = np.argsort(-np.diag(basis.T @ memory[side] @ basis))
            memory["V"] = np.take(memory["V"], order, axis=i)
            memory["Q"][i] = np.linalg.qr(memory[side] @ basis[:, order])[0]
    return w


def test_is_the_papers():
    # 1e-8: the smallest eigenvalues of the first gradient lie near 1e-6 of the largest, and their directions are that less exact.
    must_agree(by_part(PART, GROUPS, WIDTHS), by_rule(PART, soap, GROUPS, WIDTHS), 1e-8)


def test_without_bases_it_is_adamw_one_gradient_later():
    """No side short enough: plain AdamW, but for the first gradient, which made the bases."""
    part = replace(PART, max_size=1)

    def later(w, g, memory, t, lr, decay):
        if g.ndim == 1:
            return adamw(w, g, memory, t, lr, decay)
        return w if t == 1 else adamw(w, g, memory, t - 1, lr, decay)

    must_agree(by_part(part, GROUPS, WIDTHS), by_rule(part, later, GROUPS, WIDTHS))


def test_the_bases_stay_orthogonal_and_find_the_eigenvectors():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 6, generator=draw, dtype=torch.float64)
    matrix = x @ torch.diag(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], dtype=torch.float64)) @ x.mT
    basis = torch.linalg.qr(torch.randn(2, 6, 6, generator=draw, dtype=torch.float64)).Q
    for _ in range(300):
        basis, _ = iterated(matrix, basis)
    diagonal = basis.mT @ matrix @ basis
    torch.testing.assert_close(basis.mT @ basis, torch.eye(6).double().expand(2, 6, 6), rtol=0, atol=1e-12)
    torch.testing.assert_close(diagonal.diagonal(dim1=1, dim2=2), torch.linalg.eigvalsh(matrix).flip(1), rtol=1e-9, atol=0)


def test_a_frozen_group_starts_when_it_thaws():
    """Its first gradient makes the bases then, whatever the others have done."""
    flat = FlatParameters(torch.nn.Linear(4, 4, bias=False))
    memory = PART.init(flat)
    start = flat.data.clone()
    for step in range(STEPS):
        flat.groups[0].lr_scale = float(step > 5)
        flat.grad.normal_(generator=torch.Generator().manual_seed(step))
        PART.step(flat, memory)
        assert torch.equal(flat.data, start) == (step <= 6), step
    assert memory["updates.weight"] == STEPS - 6 and torch.isfinite(flat.data).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SOAP(betas=(0.9, 1.0)), "SOAP.betas must be"),
        (lambda: SOAP(every=0), "SOAP.every must be"),
        (lambda: SOAP(max_size=0), "SOAP.max_size must be"),
        (lambda: SOAP(eps=0.0), "SOAP.eps must be"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
