"""LARS and LAMB against their papers in NumPy float64; runs of tensors that are cut where tensors meet."""

import numpy as np
import pytest
import torch
from torch import nn

from optim.two_layers import GROUPS, by_part, by_rule, must_agree, network
from torchstone.optim import LAMB, LARS, FlatParameters, flat

MOMENTUM, BETAS = 0.8, (0.8, 0.95)
LARS_PART = LARS(lr=20.0, momentum=MOMENTUM, weight_decay=0.1, trust=0.01)
LAMB_PART = LAMB(lr=0.02, betas=BETAS, weight_decay=0.1)


def norm(x) -> float:
    return float(np.sqrt((x**2).sum()))


def lars(w, g, memory, t, lr, decay):
    ratio = norm(w) / (norm(g) + decay * norm(w)) if norm(w) > 0 and norm(g) > 0 else 1.0
    memory["v"] = MOMENTUM * memory.get("v", 0.0) + lr * LARS_PART.trust * ratio * (g + decay * w)
    return w - memory["v"]


def lamb(w, g, memory, t, lr, decay):
    memory["m"] = BETAS[0] * memory.get("m", 0.0) + (1 - BETAS[0]) * g
    memory["v"] = BETAS[1] * memory.get("v", 0.0) + (1 - BETAS[1]) * g**2
    u = memory["m"] / (1 - BETAS[0] ** t) / (np.sqrt(memory["v"] / (1 - BETAS[1] ** t)) + 1e-6) + decay * w
    return w - lr * (norm(w) / norm(u) if norm(w) > 0 and norm(u) > 0 else 1.0) * u


@pytest.mark.parametrize("piece", [1 << 16, 16, 64], ids=lambda piece: f"piece {piece}")
@pytest.mark.parametrize(("part", "rule"), [(LARS_PART, lars), (LAMB_PART, lamb)], ids=["lars", "lamb"])
def test_is_the_papers(part, rule, piece, monkeypatch):
    monkeypatch.setattr(flat, "PIECE", piece)
    must_agree(by_part(part), by_rule(part, rule))
    must_agree(by_part(part, factor=lambda t: 1 / t), by_rule(part, rule, factor=lambda t: 1 / t))


def test_runs_hold_whole_tensors(monkeypatch):
    monkeypatch.setattr(flat, "PIECE", 64)
    model = nn.Sequential(nn.Linear(16, 3), nn.Linear(3, 16), nn.Linear(16, 16), nn.Linear(16, 1, bias=False))
    parameters = FlatParameters(model)
    assert [run.stacks for run in parameters.runs] == [((1, 48),), ((1, 48),), ((1, 256),), ((4, 16),)]
    assert [run.start for run in parameters.runs] == [0, 48, 96, 352] and parameters.runs[-1].stop == parameters.data.numel()
    for run, names in zip(parameters.runs, [("0.weight",), ("1.weight",), ("2.weight",), ()], strict=True):
        for name in names:
            assert parameters.view(parameters.data, name).data_ptr() == parameters.data[run.start :].data_ptr()
    by_group = FlatParameters(network(), GROUPS)
    assert {run.span.names for run in by_group.runs} == {group.names for group in GROUPS}


@pytest.mark.parametrize("part", [LARS(), LAMB()], ids=lambda part: type(part).__name__)
def test_weights_of_zero_move_at_the_plain_rate(part):
    """|w| = 0 or |g| = 0: the ratio counts as 1, nothing becomes NaN."""
    flat = FlatParameters(nn.Linear(3, 2, dtype=torch.float64))
    flat.data.zero_()
    flat.view(flat.grad, "bias").fill_(2.0)
    part.step(flat, part.init(flat))
    moved = part.lr * part.trust * 2.0 if isinstance(part, LARS) else part.lr
    torch.testing.assert_close(flat.view(flat.data, "bias"), torch.full((2,), -moved, dtype=torch.float64), rtol=1e-6, atol=0)
    assert not flat.view(flat.data, "weight").any()


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("part", [LARS(weight_decay=0.0), LAMB(weight_decay=0.0, eps=1e-30)], ids=lambda part: type(part).__name__)
def test_the_size_of_the_gradient_does_not_matter(part, scale):
    ends = []
    for factor in (1.0, scale):
        flat = FlatParameters(network())
        flat.grad.copy_(flat.data.cos().mul(factor))
        part.step(flat, part.init(flat))
        ends.append(torch.cat([view.flatten() for view in flat.named(flat.data).values()]))
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LARS(lr=-1.0), "LARS.lr must be"),
        (lambda: LARS(trust=-1.0), "LARS.trust must be"),
        (lambda: LARS(momentum=1.0), "LARS.momentum must be"),
        (lambda: LAMB(eps=0.0), "LAMB.eps must be"),
        (lambda: LAMB(betas=(1.0, 0.9)), "LAMB.betas must be"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
