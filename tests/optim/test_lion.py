"""Lion against its paper's program in NumPy float64."""

import numpy as np
import pytest
import torch

from optim.two_layers import by_part, by_rule, must_agree
from torchstone.optim import FlatParameters, Lion, kernels

PART = Lion(lr=0.01, betas=(0.8, 0.95), weight_decay=0.3)


def lion(w, g, memory, t, lr, decay):
    m = memory.get("m", np.zeros_like(g))
    update = np.sign(0.8 * m + 0.2 * g)
    memory["m"] = 0.95 * m + 0.05 * g
    return w - lr * (update + decay * w)


@pytest.mark.parametrize("fused", [True, False])
def test_is_the_papers(fused, monkeypatch):
    monkeypatch.setattr(kernels, "has_fused", lambda tensor: fused)
    must_agree(by_part(PART), by_rule(PART, lion))
    must_agree(by_part(PART, factor=lambda t: 1 / t), by_rule(PART, lion, factor=lambda t: 1 / t))


def test_every_weight_moves_by_the_rate_or_not_at_all():
    flat = FlatParameters(torch.nn.Linear(3, 1, bias=False, dtype=torch.float64))
    flat.data.zero_()
    flat.grad[:3] = torch.tensor([1e-9, -5.0, 0.0])
    Lion(lr=0.5).step(flat, Lion().init(flat))
    assert flat.data[:3].tolist() == [-0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lion(lr=-1.0), "Lion.lr must be"),
        (lambda: Lion(betas=(0.9,)), "Lion.betas must be"),
        (lambda: Lion(weight_decay=-1.0), "Lion.weight_decay must be"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
