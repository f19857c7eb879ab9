"""Adagrad, Adadelta and RMSprop against their papers in NumPy float64 and against torch.optim, groups of unequal rate and decay."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from optim.two_layers import by_part, by_rule, by_torch, must_agree
from torchstone.optim import Adadelta, Adagrad, Rmsprop

O = torch.optim
ADAGRAD = Adagrad(lr=0.1, initial=0.2, weight_decay=0.3)
ADADELTA = Adadelta(lr=0.7, weight_decay=0.3)
RMSPROP = Rmsprop(lr=0.01, alpha=0.8, weight_decay=0.3)


def adagrad(w, g, memory, t, lr, decay):
    g = g + decay * w
    memory["s"] = memory.get("s", ADAGRAD.initial) + g**2
    return w - lr * g / (np.sqrt(memory["s"]) + ADAGRAD.eps)


def adadelta(w, g, memory, t, lr, decay):
    g, rho, eps = g + decay * w, ADADELTA.rho, ADADELTA.eps
    memory["g"] = rho * memory.get("g", 0.0) + (1 - rho) * g**2
    dw = np.sqrt(memory.get("w", 0.0) + eps) / np.sqrt(memory["g"] + eps) * g
    memory["w"] = rho * memory.get("w", 0.0) + (1 - rho) * dw**2
    return w - lr * dw


def rmsprop(w, g, memory, t, lr, decay, *, momentum=0.0, centered=False):
    g, alpha = g + decay * w, RMSPROP.alpha
    memory["v"] = alpha * memory.get("v", 0.0) + (1 - alpha) * g**2
    memory["m"] = alpha * memory.get("m", 0.0) + (1 - alpha) * g
    spread = memory["v"] - memory["m"] ** 2 if centered else memory["v"]
    memory["u"] = momentum * memory.get("u", 0.0) + g / (np.sqrt(spread) + RMSPROP.eps)
    return w - lr * memory["u"]


@pytest.mark.parametrize(
    ("part", "rule"),
    [
        (ADAGRAD, adagrad),
        (ADADELTA, adadelta),
        (RMSPROP, rmsprop),
        (replace(RMSPROP, momentum=0.5, centered=True), partial(rmsprop, momentum=0.5, centered=True)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_is_the_papers(part, rule):
    # 1 - alpha of Graves' variance is small at the first step: rounding of v - m^2 is seen there.
    must_agree(by_part(part), by_rule(part, rule), 1e-10 if getattr(part, "centered", False) else 1e-12)


@pytest.mark.parametrize(
    ("part", "make"),
    [
        (ADAGRAD, partial(O.Adagrad, initial_accumulator_value=0.2)),
        (ADADELTA, partial(O.Adadelta, rho=0.95, eps=1e-6)),
        (RMSPROP, partial(O.RMSprop, alpha=0.8)),
        (replace(RMSPROP, momentum=0.5), partial(O.RMSprop, alpha=0.8, momentum=0.5)),
        (replace(RMSPROP, momentum=0.5, centered=True), partial(O.RMSprop, alpha=0.8, momentum=0.5, centered=True)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_is_torchs(part, make):
    must_agree(by_part(part), by_torch(make, part), 1e-10 if getattr(part, "centered", False) else 1e-12)


def test_rmsprop_remembers_only_what_it_needs():
    from torchstone.optim import FlatParameters

    flat = FlatParameters(torch.nn.Linear(2, 2))
    assert set(Rmsprop().init(flat)) == {"square"}
    assert set(Rmsprop(centered=True, momentum=0.9).init(flat)) == {"square", "mean", "momentum"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adagrad(lr=-1.0), "Adagrad.lr must be"),
        (lambda: Adagrad(initial=-1.0), "Adagrad.initial must be"),
        (lambda: Adadelta(rho=1.0), "Adadelta.rho must be"),
        (lambda: Adadelta(eps=0.0), "Adadelta.eps must be"),
        (lambda: Rmsprop(alpha=1.0), "Rmsprop.alpha must be"),
        (lambda: Rmsprop(momentum=-0.1), "Rmsprop.momentum must be"),
        (lambda: Rmsprop(weight_decay=float("inf")), "Rmsprop.weight_decay must be"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
