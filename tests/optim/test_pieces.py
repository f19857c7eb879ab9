"""Every optimizer, cut into the smallest pieces, on the branch for accelerators, under a raised flag, in bfloat16."""

import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from optim.two_layers import GROUPS, WIDTHS, backward, network
from torchstone.optim import SOAP, FlatParameters, Lion, Optimizer, Radam, Shampoo, adam, flat, pieces, schedule_free

PARTS = [cls() for cls in get_args(Optimizer) if not getattr(cls, "searches", False)]  # what searches looks at the batch again
NAMES = [type(part).__name__ for part in PARTS]


def train(part: Any, steps: int = 4, dtype: torch.dtype = torch.float64, flag: Tensor | None = None) -> FlatParameters:
    parameters = FlatParameters(network(dtype=dtype), GROUPS)
    memory = part.init(parameters)
    for step in range(steps):
        parameters.zero_grad()
        backward(parameters.module, WIDTHS, step)
        part.step(parameters, memory, found_inf=flag)
    return parameters


@pytest.mark.parametrize("part", PARTS, ids=NAMES)
def test_small_pieces_are_large_ones(part, monkeypatch):
    whole = train(part).data
    for module in (flat, pieces):
        monkeypatch.setattr(module, "PIECE", 16)
    torch.testing.assert_close(train(part).data, whole, rtol=0, atol=1e-14)


def test_pieces_cover_what_is_not_frozen(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 16)
    parameters = FlatParameters(network(), GROUPS)
    other = torch.zeros_like(parameters.data)
    parameters.groups[1].lr_scale = 0.0
    seen = 0
    for span, (data, grad, mine) in pieces.pieces(parameters, other):
        assert span is parameters.groups[0] and data.shape == grad.shape == mine.shape and len(mine) <= 16
        mine.add_(1)
        seen += len(mine)
    span = parameters.groups[0]
    assert seen == span.stop - span.start and other[span.start : span.stop].eq(1).all() and other.sum() == seen


@pytest.mark.parametrize("part", PARTS, ids=NAMES)
def test_numbers_on_a_device_are_numbers_on_the_host(part, monkeypatch):
    """On an accelerator the counts stay 0-d tensors; the same branch here."""
    host = train(part).data
    for module in (adam, schedule_free):
        monkeypatch.setattr(module, "number", lambda tensor: tensor.double())
    torch.testing.assert_close(train(part, flag=torch.zeros(())).data, host, rtol=0, atol=1e-12)


@pytest.mark.parametrize("part", PARTS, ids=NAMES)
@pytest.mark.parametrize("poison", [0.0, math.nan, math.inf])
def test_found_inf_changes_nothing_at_all(part, poison):
    parameters = FlatParameters(network(dtype=torch.float32), GROUPS)
    memory = part.init(parameters)
    for step in range(3):
        parameters.zero_grad()
        backward(parameters.module, WIDTHS, step)
        part.step(parameters, memory, found_inf=torch.zeros(()))
    data, before = parameters.data.clone(), {key: value.clone() for key, value in memory.items()}
    parameters.grad.add_(poison)
    part.step(parameters, memory, found_inf=torch.ones(()))
    assert torch.equal(parameters.data, data)
    assert [key for key in before if not torch.equal(memory[key], before[key])] == []


@pytest.mark.parametrize("part", PARTS, ids=NAMES)
def test_a_frozen_group_stands_still(part):
    parameters = FlatParameters(network(), GROUPS)
    memory = part.init(parameters)
    parameters.groups[0].lr_scale = 0.0
    start = parameters.data.clone()
    for step in range(6):
        parameters.zero_grad()
        backward(parameters.module, WIDTHS, step)
        part.step(parameters, memory)
    first, second = parameters.cut(parameters.data)
    assert torch.equal(first, start[: len(first)]) and not torch.equal(second, start[len(first) :])


@pytest.mark.parametrize("part", PARTS, ids=NAMES)
def test_padding_stays_zero(part):
    parameters = train(part)
    padding = torch.ones_like(parameters.data)
    for view in parameters.named(padding).values():
        view.zero_()
    assert padding.any() and not parameters.data[padding != 0].any()


@pytest.mark.parametrize("part", PARTS, ids=NAMES)
def test_bfloat16_parameters_train(part):
    if isinstance(part, Radam):  # its first five steps, 0.0001 long, are below bfloat16
        part = replace(part, lr=0.3)
    start = FlatParameters(network(dtype=torch.bfloat16), GROUPS).data.double()
    rough, exact = train(part, 8, torch.bfloat16).data.double(), train(part, 8).data
    assert torch.isfinite(rough).all() and not torch.equal(rough, start)
    # A weight of 1 moves in bfloat16 by 1 / 128 or not at all, and a sign is right or wrong: the direction is what must agree.
    cosine = torch.nn.functional.cosine_similarity(rough - start, exact - start, dim=0)
    assert cosine > (0.5 if isinstance(part, Lion | Shampoo | SOAP) else 0.6)


@pytest.mark.parametrize("part", PARTS, ids=NAMES)
def test_memory_lies_beside_the_parameters(part):
    parameters = FlatParameters(network(), GROUPS)
    for name, value in part.init(parameters).items():
        assert value.device == parameters.data.device and torch.isfinite(value).all(), name
        assert value.ndim in (0, 3) or value.shape == parameters.data.shape, name
