"""Activation functions by name: a plain function where there are no weights, a module where there are (`prelu`, `swish`).

Whatever the name, the input's memory is all that a backward pass keeps: PyTorch's kernels are fused, and a batch norm in front of one does
not need its own output, so computing in place would save nothing but the moment in between.
Shapes: C channels.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.nn.about import About

Activation = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "prelu",
    "elu",
    "selu",
    "gelu",
    "gelu_tanh",
    "silu",
    "swish",
    "softplus",
    "mish",
    "hardswish",
    "sigmoid",
    "tanh",
    "softmax",
    "squared_relu",
]
Gate = Literal["glu", "bilinear", "reglu", "geglu", "swiglu"]
BlockActivation = Literal[Activation, Gate]
"""What stands between two dense layers: an activation, or a gate, which needs a first layer of twice the width."""

LEAK = 0.01
"""Slope of `leaky_relu` for negative inputs: Maas et al.'s."""
PRELU_START = 0.25


def squared_relu(x: Tensor) -> Tensor:
    return F.relu(x).square()


def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def leaky_relu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, LEAK)


def prelu_at_start(x: Tensor) -> Tensor:
    return F.leaky_relu(x, PRELU_START)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": leaky_relu,
    "prelu": prelu_at_start,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "silu": F.silu,
    "swish": F.silu,
    "softplus": F.softplus,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "squared_relu": squared_relu,
}
"""The functions of one number, as they are at the start of training: to draw and to measure. A model asks `activation_layer`."""

GATES: dict[str, Callable[[Tensor], Tensor] | None] = {
    "glu": torch.sigmoid,
    "bilinear": None,
    "reglu": F.relu,
    "geglu": F.gelu,
    "swiglu": F.silu,
}
"""What the gating half goes through."""


class PReLU(nn.Module):
    """max(x, 0) + a min(x, 0) with a trained a for each channel; channels in dimension `dim`."""

    def __init__(self, channels: int, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(torch.full((channels,), PRELU_START))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if self.dim == 1 or x.ndim == 2:
            return F.prelu(x, self.weight.to(x.dtype))
        return F.prelu(x.flatten(0, -2), self.weight.to(x.dtype)).view(x.shape)


class Swish(nn.Module):
    """x sigmoid(beta x) with a trained beta for each channel, 1 at the start; channels in dimension `dim`."""

    def __init__(self, channels: int, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.beta = nn.Parameter(torch.ones(channels))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        shape = [1] * x.ndim
        shape[self.dim] = -1
        return x * torch.sigmoid(self.beta.to(x.dtype).view(shape) * x)


class Gated(nn.Module):
    """a f(b), where the input's channels (in dimension `dim`) are a, then b."""

    def __init__(self, name: Gate, dim: int = -1) -> None:
        super().__init__()
        self.name, self.dim = name, dim
        self.function = GATES[name]

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        value, gate = x.chunk(2, dim=self.dim)
        return value * (gate if self.function is None else self.function(gate))

    def extra_repr(self) -> str:
        return self.name


def activation_layer(name: BlockActivation, channels: int, dim: int = 1) -> Callable[[Tensor], Tensor]:
    """The activation for tensors with `channels` channels in dimension `dim`: a function, or a module where it has weights.

    A gate reads twice as many channels as it returns; `channels` are those it returns.
    """
    match name:
        case "prelu":
            return PReLU(channels, dim)
        case "swish":
            return Swish(channels, dim)
        case "softmax":
            return partial(F.softmax, dim=dim)
        case "glu" | "bilinear" | "reglu" | "geglu" | "swiglu":
            return Gated(name, dim)
        case _:
            return ACTIVATIONS[name]


def activation_layers(name: BlockActivation, channels: Iterable[int], dim: int = 1) -> Any:
    """One for each of several layers: a list of functions, or a ModuleList where they have weights."""
    layers = [activation_layer(name, each, dim) for each in channels]
    modules = [layer for layer in layers if isinstance(layer, nn.Module)]
    return nn.ModuleList(modules) if modules else layers


def widened(name: str) -> int:
    """By what the layer before the activation is wider than the one behind it: 2 for a gate."""
    return 2 if name in GATES else 1


def gated_width(name: str, hidden: int) -> int:
    """The hidden width that keeps the parameters of two dense layers what they are without a gate: two thirds of it for a gate.

    Shazeer, 2020, section 2.
    """
    return max(1, round(2 * hidden / 3)) if name in GATES else hidden


@cache
def gain(name: str) -> float:
    """What weights must be multiplied by so that the layers' second moment stays: 1 / sqrt(E f(z)^2) with z from N(0, 1).

    In closed form where there is one, else by Gauss-Legendre quadrature (error below 1e-11). It is kept through many layers where f is
    homogeneous (the ReLUs) or bends down (tanh, sigmoid, ELU, SELU); elsewhere (GELU, SiLU, Mish, Hardswish) small errors grow from layer
    to layer and deep networks want a norm or `lsuv`, and squared ReLU squares every error. Gates and softmax, which are no functions of
    one number, have 1.
    """
    closed = {
        "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1 + LEAK**2)),
        "prelu": math.sqrt(2.0 / (1 + PRELU_START**2)),
        "selu": 1.0,  # its two constants are made so
        "squared_relu": math.sqrt(2 / 3),
        "softmax": 1.0,
        **dict.fromkeys(GATES, 1.0),
    }
    if name in closed:
        return closed[name]
    # Each side of 0 by itself, and of 6 and 3 where relu6 and hardswish have their corners: smooth pieces.
    corners = [-12.0, -3.0, 0.0, 3.0, 6.0, 12.0]
    points, weights = np.polynomial.legendre.leggauss(64)
    total = 0.0
    for low, high in itertools.pairwise(corners):
        z = torch.from_numpy((high - low) / 2 * points + (high + low) / 2)
        density = (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
        total += (torch.from_numpy(weights) * density * ACTIVATIONS[name](z).square()).sum().item() * (high - low) / 2
    return 1 / math.sqrt(total)


_SHAZEER = "Shazeer, GLU Variants Improve Transformer, 2020, https://arxiv.org/abs/2002.05202"
ABOUT: dict[str, About] = {
    "relu": About("Nothing below 0, everything above.", "max(x, 0)", "Nair and Hinton, Rectified Linear Units, ICML 2010"),
    "relu6": About(
        "ReLU that stops at 6, so that it fits in few bits.", "min(max(x, 0), 6)", "Howard et al., 2017, https://arxiv.org/abs/1704.04861"
    ),
    "leaky_relu": About(
        "ReLU with a hundredth of the slope below 0, where no unit dies.", "max(x, 0) + 0.01 min(x, 0)", "Maas et al., ICML workshop 2013"
    ),
    "prelu": About(
        "ReLU whose slope below 0 is trained, one a channel, from 0.25.",
        "max(x, 0) + a min(x, 0)",
        "He et al., Delving Deep into Rectifiers, 2015, https://arxiv.org/abs/1502.01852",
    ),
    "elu": About(
        "Bends smoothly to -1, so that a layer's mean is near 0.",
        "x for x > 0, exp(x) - 1 below",
        "Clevert et al., 2015, https://arxiv.org/abs/1511.07289",
    ),
    "selu": About(
        "ELU with two constants that pull mean and variance of deep networks to 0 and 1; wants init kaiming, whose gain for it is 1.",
        "1.0507 x for x > 0, 1.0507 * 1.6733 (exp(x) - 1) below",
        "Klambauer et al., Self-Normalizing Neural Networks, 2017, https://arxiv.org/abs/1706.02515",
    ),
    "gelu": About(
        "x times the share of a normal distribution below x.", "x Phi(x)", "Hendrycks and Gimpel, 2016, https://arxiv.org/abs/1606.08415"
    ),
    "gelu_tanh": About(
        "GPT-2's approximation of GELU, there to speak its weights: on a CPU it costs twice the exact one.",
        "x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))",
        "Hendrycks and Gimpel, 2016, https://arxiv.org/abs/1606.08415",
    ),
    "silu": About(
        "x times its sigmoid: swish with beta = 1.", "x / (1 + exp(-x))", "Elfwing et al., 2017, https://arxiv.org/abs/1702.03118"
    ),
    "swish": About(
        "SiLU whose steepness beta is trained, one a channel, from 1.",
        "x / (1 + exp(-beta x))",
        "Ramachandran et al., Searching for Activation Functions, 2017, https://arxiv.org/abs/1710.05941",
    ),
    "softplus": About("A smooth ReLU, above 0 everywhere.", "log(1 + exp(x))", "Dugas et al., NIPS 2000"),
    "mish": About("x times the tanh of its softplus.", "x tanh(log(1 + exp(x)))", "Misra, 2019, https://arxiv.org/abs/1908.08681"),
    "hardswish": About(
        "Swish from straight pieces, for small machines.",
        "x min(max(x + 3, 0), 6) / 6",
        "Howard et al., Searching for MobileNetV3, 2019, https://arxiv.org/abs/1905.02244",
    ),
    "sigmoid": About("Squashes to (0, 1); its slope is at most 1/4, so deep stacks of it learn slowly.", "1 / (1 + exp(-x))", "logistic"),
    "tanh": About(
        "Squashes to (-1, 1), centered.", "(exp(x) - exp(-x)) / (exp(x) + exp(-x))", "LeCun et al., Efficient BackProp, 1998, section 4.4"
    ),
    "softmax": About(
        "Channels compete: each above 0, their sum 1. Rarely right between hidden layers.",
        "exp(x_i) / sum_j exp(x_j)",
        "Bridle, 1990, Probabilistic Interpretation of Feedforward Classification Network Outputs",
    ),
    "squared_relu": About(
        "ReLU squared, which learns language in fewer steps than GELU.",
        "max(x, 0)^2",
        "So et al., Primer, 2021, https://arxiv.org/abs/2109.08668",
    ),
    "glu": About(
        "One half of the channels times the sigmoid of the other.", "a sigmoid(b)", "Dauphin et al., 2016, https://arxiv.org/abs/1612.08083"
    ),
    "bilinear": About("One half of the channels times the other.", "a b", _SHAZEER),
    "reglu": About("One half of the channels times the ReLU of the other.", "a max(b, 0)", _SHAZEER),
    "geglu": About("One half of the channels times the GELU of the other.", "a gelu(b)", _SHAZEER),
    "swiglu": About("One half of the channels times the SiLU of the other.", "a silu(b)", _SHAZEER),
}
"""Every name's meaning."""
