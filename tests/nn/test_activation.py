"""Activations against their formulas."""

import math
from typing import get_args

import pytest
import torch

from torchstone.nn import ACTIVATIONS, Activation

FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "squared_relu": lambda x: max(x, 0.0) ** 2,
}


@pytest.mark.parametrize("name", get_args(Activation))
def test_formula_and_gradient(name):
    x = torch.linspace(-3, 3, 14, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ACTIVATIONS[name](x), torch.tensor([FORMULAS[name](v) for v in x.tolist()], dtype=torch.float64))
    assert torch.autograd.gradcheck(ACTIVATIONS[name], x)


def test_the_names_are_the_table():
    assert set(get_args(Activation)) == set(ACTIVATIONS) == set(FORMULAS)
