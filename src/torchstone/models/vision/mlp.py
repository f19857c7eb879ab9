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
from torchstone.models.choices import NO_BRANCH, check_choices
from torchstone.nn import BlockActivation, Init, Norm, activation_layers, draw_weights, fan_in_normal_, norm_layer, widened


@dataclass(frozen=True, kw_only=True, slots=True)
class MLPConfig:
    """Fully connected layers over vectors, or over images laid flat."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"
    lacks: ClassVar[dict[str, str]] = {"drop_path": NO_BRANCH}

    hidden: tuple[int, ...] = (128,)
    """Width of each hidden layer; empty is a linear model."""
    activation: BlockActivation = "relu"
    """What follows each hidden layer; a gate (glu, swiglu, ...) doubles the layer's outputs and halves them again."""
    norm: Norm = "none"
    """What stands between a hidden layer and its activation."""
    init: Init | None = None
    """Rule that draws the first weights (nn.init); none: as the source above has them."""
    dropout: float = 0.0
    """Share of each hidden layer's outputs that training drops at random."""

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"MLPConfig.hidden must be widths >= 1, got {self.hidden}")
        check_choices(self)
        if self.norm == "instance":
            raise ValueError("MLPConfig.norm must be over more than one number a channel has: batch, layer, group or another, got instance")

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
        widths = (features, *config.hidden)
        wide = widened(config.activation)
        layers = [nn.Linear(a, wide * b) for a, b in itertools.pairwise(widths)]
        for layer in layers:
            fan_in_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.hidden = nn.ModuleList(layers)
        self.norms = nn.ModuleList(norm_layer(config.norm, wide * width, 0) for width in config.hidden)
        self.activations = activation_layers(config.activation, config.hidden)
        self.head = nn.Linear(widths[-1], outputs)
        fan_in_normal_(self.head.weight, gain=1.0)
        nn.init.zeros_(self.head.bias)
        draw_weights(self, config.init, config.activation)

    def forward(self, x: Float[Tensor, "N ..."]) -> Float[Tensor, "N C"]:
        x = x.flatten(1)
        for layer, norm, activation in zip(self.hidden, self.norms, self.activations, strict=True):
            x = activation(norm(layer(x)))
            if self.config.dropout:
                x = F.dropout(x, self.config.dropout, self.training)
        return self.head(x)
