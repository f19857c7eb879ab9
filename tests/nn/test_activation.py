"""Activations against their formulas, PyTorch's modules, and SciPy's quadrature for the gains."""

import math
from typing import get_args

import pytest
import torch
from scipy import integrate
from torch import nn

from torchstone.nn import ACTIVATIONS, GATES, Activation, BlockActivation, activation_layer, activation_layers, gain, gated_width, widened
from torchstone.nn.activation import ABOUT

sigmoid = lambda x: 1 / (1 + math.exp(-x))
FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x: max(x, 0.0) + 0.01 * min(x, 0.0),
    "prelu": lambda x: max(x, 0.0) + 0.25 * min(x, 0.0),
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(x),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "hardswish": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    "sigmoid": sigmoid,
    "tanh": math.tanh,
    "squared_relu": lambda x: max(x, 0.0) ** 2,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_and_gradient(name):
    x = torch.linspace(-7, 7, 20, dtype=torch.float64, requires_grad=True)
    layer = activation_layer(name, 20)
    layer = layer.double() if isinstance(layer, nn.Module) else layer
    expected = torch.tensor([FORMULAS[name](v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name](x), expected)
    torch.testing.assert_close(layer(x[None]), expected[None])
    assert torch.autograd.gradcheck(layer, x[None])


def test_the_names_are_the_tables():
    assert set(get_args(Activation)) == {*ACTIVATIONS, "softmax"} == {*FORMULAS, "softmax"}
    assert set(get_args(BlockActivation)) == set(ABOUT) == {*ACTIVATIONS, "softmax", *GATES}
    assert all(about.doc and about.formula and about.source for about in ABOUT.values())


@pytest.mark.parametrize(("shape", "dim"), [((4, 3), 1), ((4, 3, 5, 2), 1), ((4, 6, 3), -1), ((4, 3), -1)])
def test_prelu_and_swish_train_a_number_for_each_channel(shape, dim):
    x = torch.randn(shape)
    by_channel = [1] * len(shape)
    by_channel[dim] = 3
    ours = activation_layer("prelu", 3, dim)
    assert ours(x).equal(torch.where(x > 0, x, 0.25 * x))
    values = torch.tensor([0.0, 0.5, 2.0])
    ours.weight.data = values
    torch.testing.assert_close(ours(x), torch.where(x > 0, x, values.view(by_channel) * x))
    swish = activation_layer("swish", 3, dim)
    swish.beta.data = values
    torch.testing.assert_close(swish(x), x * torch.sigmoid(values.view(by_channel) * x))
    assert [p.shape for p in (*ours.parameters(), *swish.parameters())] == [(3,), (3,)]
    assert ours(x.bfloat16()).dtype == swish(x.bfloat16()).dtype == torch.bfloat16


def test_prelu_is_torchs():
    x = torch.randn(4, 3, 5, requires_grad=True)
    theirs, ours = nn.PReLU(3), activation_layer("prelu", 3)
    theirs(x).square().sum().backward()
    ours(x).square().sum().backward()
    assert torch.equal(ours.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize("name", GATES)
def test_gates(name):
    x = torch.randn(4, 5, 6, dtype=torch.float64)
    a, b = x[..., :3], x[..., 3:]
    expected = {"glu": torch.sigmoid(b), "bilinear": b, "reglu": b.clamp(min=0), "geglu": nn.GELU()(b), "swiglu": b * torch.sigmoid(b)}[
        name
    ]
    gate = activation_layer(name, 3, -1)
    torch.testing.assert_close(gate(x), a * expected)
    torch.testing.assert_close(activation_layer(name, 3, 1)(x.mT), (a * expected).mT)
    assert widened(name) == 2 and gated_width(name, 48) == 32
    if name == "glu":
        assert torch.equal(gate(x), nn.functional.glu(x))


def test_softmax_and_the_rest_of_the_factory():
    x = torch.randn(2, 3, 4)
    assert torch.equal(activation_layer("softmax", 3)(x), x.softmax(dim=1))
    assert torch.equal(activation_layer("softmax", 4, -1)(x), x.softmax(dim=-1))
    assert activation_layer("relu", 3) is nn.functional.relu
    assert widened("relu") == 1 and gated_width("relu", 48) == 48
    assert isinstance(activation_layers("prelu", (3, 4)), nn.ModuleList)
    assert activation_layers("relu", (3, 4)) == [nn.functional.relu] * 2


@pytest.mark.parametrize("name", FORMULAS)
def test_gain_keeps_the_second_moment(name):
    square = lambda z: FORMULAS[name](z) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    moment = sum(integrate.quad(square, a, b, epsabs=1e-14, epsrel=1e-13)[0] for a, b in ((-30, 0), (0, 3), (3, 6), (6, 30)))
    assert gain(name) == pytest.approx(moment**-0.5, rel=1e-7 if name == "selu" else 1e-11)  # the paper's constants have 17 digits or fewer


def test_gains_known_by_heart():
    assert gain("relu") == nn.init.calculate_gain("relu")
    assert gain("leaky_relu") == nn.init.calculate_gain("leaky_relu", 0.01)
    assert gain("selu") == gain("swiglu") == gain("softmax") == 1
    assert gain("tanh") == pytest.approx(1.5925374)
