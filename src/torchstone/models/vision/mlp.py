"""Multi-layer perceptron: the smallest model that learns, and the one to beat.

Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986. Weights start as in He et al., 2015.
Shapes: N samples, C classes (or other outputs).
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, InputShape, VectorShape
from torchstone.nn import ACTIVATIONS, Activation, fan_in_normal_


@dataclass(frozen=True, kw_only=True, slots=True)
class MLPConfig:
    """Fully connected layers over vectors, or over images laid flat."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"

    hidden: tuple[int, ...] = (128,)
    """Width of each hidden layer; empty is a linear model."""
    activation: Activation = "relu"
    """What follows each hidden layer."""
    dropout: float = 0.0
    """Share of each hidden layer's outputs that training drops at random."""

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"MLPConfig.hidden must be widths >= 1, got {self.hidden}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"MLPConfig.activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"MLPConfig.dropout must be in [0, 1), got {self.dropout}")

    def build(self, inputs: InputShape, outputs: int) -> "MLP":
        match inputs:
            case VectorShape(features):
                return MLP(self, features, outputs)
            case ImageShape(channels, height, width):
                return MLP(self, channels * height * width, outputs)
            case _:
                raise UserError(f"model mlp reads vectors or images, but the data give {inputs}; gpt reads tokens")


class MLP(nn.Module):
    def __init__(self, config: MLPConfig, features: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.activation = ACTIVATIONS[config.activation]
        widths = (features, *config.hidden)
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        for layer in layers:
            fan_in_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.hidden = nn.ModuleList(layers)
        self.head = nn.Linear(widths[-1], outputs)
        fan_in_normal_(self.head.weight, gain=1.0)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Float[Tensor, "N ..."]) -> Float[Tensor, "N C"]:
        x = x.flatten(1)
        for layer in self.hidden:
            x = self.activation(layer(x))
            if self.config.dropout:
                x = F.dropout(x, self.config.dropout, self.training)
        return self.head(x)
