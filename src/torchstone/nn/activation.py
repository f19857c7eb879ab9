"""Activation functions by name.

`squared_relu` is So et al., "Primer", 2021, https://arxiv.org/abs/2109.08668: relu(x)^2, which learns language in fewer steps than GELU.
`gelu_tanh` is GPT-2's approximation, there to speak its weights: on a CPU it costs twice the exact `gelu`.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "squared_relu"]


def squared_relu(x: Tensor) -> Tensor:
    return F.relu(x).square()


def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "silu": F.silu,
    "squared_relu": squared_relu,
}
