"""LeNet-5, as it is taught today and as it was published.

LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998, section II.B.
Shapes: N images, C classes, H x W pixels.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, InputShape
from torchstone.models.choices import NO_BRANCH, check_choices
from torchstone.nn import Activation, Init, Norm, activation_layers, draw_weights, fan_in_normal_, norm_layer

SIDE = 32
"""Smaller images get a frame of zeros up to this many pixels, as the paper's 28x28 digits did."""
READS = [{(i + j) % 6 for j in range(3)} for i in range(6)]
READS += [{(i + j) % 6 for j in range(4)} for i in range(6)]
READS += [{i, (i + 1) % 6, (i + 3) % 6, (i + 4) % 6} for i in range(3)]
READS += [set(range(6))]
"""The maps of S2 that each of the 16 maps of C3 reads: the paper's table I."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LenetConfig:
    """Two convolutions with pooling, two hidden layers and the head."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"
    lacks: ClassVar[dict[str, str]] = {"drop_path": NO_BRANCH}

    variant: Literal["modern", "1998"] = "modern"
    """modern: full connections, max pooling and `activation`. 1998: the paper's pooling with weights, table of connections and scaled
    tanh (its output layer alone, distances to fixed pictures of the digits, is replaced by a linear one)."""
    activation: Activation = "relu"
    """What follows each layer of the modern variant."""
    norm: Norm = "none"
    """What stands between a layer and its activation (modern variant alone)."""
    init: Init | None = None
    """Rule that draws the first weights (nn.init); none: as the source above has them."""
    dropout: float = 0.0
    """Share of each hidden layer's outputs that training drops at random."""

    def __post_init__(self) -> None:
        if self.variant not in ("modern", "1998"):
            raise ValueError(f"LenetConfig.variant must be modern or 1998, got {self.variant}")
        check_choices(self)
        if self.norm == "instance":
            raise ValueError("LenetConfig.norm must be over more than one number a channel, which its dense layers have, got instance")
        if self.variant == "1998" and (self.norm != "none" or self.init is not None):
            raise ValueError("LenetConfig.variant must be modern for a norm or an init of one's choice, got 1998")

    def build(self, inputs: InputShape, outputs: int) -> "Lenet":
        if not isinstance(inputs, ImageShape):
            raise UserError(f"model lenet reads images, but the data give {inputs}; mlp reads vectors, gpt reads tokens")
        return Lenet(self, inputs, outputs)


class Lenet(nn.Module):
    first_conv = "conv_1.weight"

    def __init__(self, config: LenetConfig, inputs: ImageShape, outputs: int) -> None:
        super().__init__()
        self.config = config
        published = config.variant == "1998"
        # left, right, top, bottom
        self.frame = tuple(side for size in (inputs.width, inputs.height) for side in _frame(size))
        height, width = ((((max(size, SIDE) - 4) // 2) - 4) // 2 for size in (inputs.height, inputs.width))
        self.conv_1 = nn.Conv2d(inputs.channels, 6, 5)
        self.pool_1 = Subsampling(6) if published else nn.MaxPool2d(2)
        self.conv_2 = TableConv() if published else nn.Conv2d(6, 16, 5)
        self.pool_2 = Subsampling(16) if published else nn.MaxPool2d(2)
        self.hidden_1 = nn.Linear(16 * height * width, 120)
        self.hidden_2 = nn.Linear(120, 84)
        self.head = nn.Linear(84, outputs)
        widths = (6, 16, 120, 84)
        self.norms = nn.ModuleList(norm_layer(config.norm, width, dims) for width, dims in zip(widths, (2, 2, 0, 0), strict=True))
        self.activations = [scaled_tanh] * len(widths) if published else activation_layers(config.activation, widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                # tanh, and the head, pass on what they get; an activation that cuts a half off needs twice the variance.
                fan_in_normal_(module.weight, gain=1.0 if published or module is self.head else math.sqrt(2))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        draw_weights(self, config.init, config.activation)

    def forward(self, x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N C"]:
        x = F.pad(x, self.frame)
        x = self.pool_1(self.activations[0](self.norms[0](self.conv_1(x))))
        x = self.pool_2(self.activations[1](self.norms[1](self.conv_2(x))))
        x = x.flatten(1)
        for number, layer in enumerate((self.hidden_1, self.hidden_2), start=2):
            x = self.activations[number](self.norms[number](layer(x)))
            if self.config.dropout:
                x = F.dropout(x, self.config.dropout, self.training)
        return self.head(x)


def _frame(size: int) -> tuple[int, int]:
    """Zeros before and behind `size` pixels."""
    missing = max(SIDE - size, 0)
    return missing // 2, missing - missing // 2


def scaled_tanh(x: Tensor) -> Tensor:
    """1.7159 tanh(2/3 x), which is +-1 at +-1: the paper's appendix A."""
    return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """The mean of each 2x2 square, times a trained weight and plus a trained bias, one of each a map; then the scaled tanh."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N channels h w"]:
        return scaled_tanh(F.avg_pool2d(x, 2) * self.weight[:, None, None] + self.bias[:, None, None])


class TableConv(nn.Module):
    """C3: a 5x5 convolution of 6 to 16 maps, each of which reads the maps of `READS` alone; the others' filters do not exist."""

    place: Tensor

    def __init__(self) -> None:
        super().__init__()
        pairs = [(out, read) for out, reads in enumerate(READS) for read in sorted(reads)]
        self.register_buffer("place", torch.tensor([6 * out + read for out, read in pairs]), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(pairs), 5, 5))
        self.bias = nn.Parameter(torch.zeros(16))
        start = 0
        for reads in READS:
            filters = self.weight[start : start + len(reads)]
            nn.init.normal_(filters, std=(25 * len(reads)) ** -0.5)
            start += len(reads)

    def forward(self, x: Float[Tensor, "N 6 H W"]) -> Float[Tensor, "N 16 h w"]:
        filters = self.weight.new_zeros(16 * 6, 5, 5).index_copy(0, self.place, self.weight)
        return F.conv2d(x, filters.unflatten(0, (16, 6)), self.bias)
