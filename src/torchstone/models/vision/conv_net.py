"""A small residual convolutional network for images of 8x8 to 64x64 pixels.

He et al., "Deep Residual Learning", 2015, https://arxiv.org/abs/1512.03385 (basic block). The batch norm that ends a branch starts at
0, so a block starts as its shortcut: Goyal et al., "Accurate, Large Minibatch SGD", 2017, https://arxiv.org/abs/1706.02677, section 5.1.
Shapes: N images, C classes, H x W pixels.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, InputShape
from torchstone.models.choices import Choices, check_choices
from torchstone.nn import Activation, DropPath, Init, Norm, draw_weights, drop_path_shares, fan_in_normal_, zero_branch


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvNetConfig:
    """Stages of residual blocks; each stage after the first halves the image."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"

    widths: tuple[int, ...] = (32, 64, 128)
    """Channels of each stage."""
    blocks_per_stage: int = 1
    """Residual blocks, of two 3x3 convolutions each, in a stage."""
    activation: Activation = "relu"
    """What follows each norm."""
    norm: Norm = "batch"
    """What follows each convolution."""
    init: Init | None = None
    """Rule that draws the first weights (nn.init); none: as the source above has them."""
    dropout: float = 0.0
    """Share of the pooled features that training drops at random before the head."""
    drop_path: float = 0.0
    """Probability that training leaves out the last block's branch for a sample; falls linearly to 0 at the first block."""
    drop_block: float = 0.0
    """Share of the pixels that training leaves out, in squares of 7x7, of each map of the last two stages."""

    def __post_init__(self) -> None:
        if not self.widths or any(width < 1 for width in self.widths):
            raise ValueError(f"ConvNetConfig.widths must be at least one width >= 1, got {self.widths}")
        if self.blocks_per_stage < 1:
            raise ValueError(f"ConvNetConfig.blocks_per_stage must be >= 1, got {self.blocks_per_stage}")
        check_choices(self)

    def build(self, inputs: InputShape, outputs: int) -> "ConvNet":
        if not isinstance(inputs, ImageShape):
            raise UserError(f"model conv_net reads images, but the data give {inputs}; mlp reads vectors, gpt reads tokens")
        return ConvNet(self, inputs.channels, outputs)


class ConvNet(nn.Module):
    first_conv = "stem.weight"

    def __init__(self, config: ConvNetConfig, channels: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        choices = Choices.of(config)
        width = config.widths[0]
        self.stem = choices.conv(channels, width, 3)
        self.stem_norm = choices.normed(width)
        self.activation = choices.activated(width)
        self.blocks = nn.ModuleList()
        shares = drop_path_shares(len(config.widths) * config.blocks_per_stage)
        for share in shares:
            stage, position = divmod(len(self.blocks), config.blocks_per_stage)
            stride = 2 if stage and position == 0 else 1
            late = stage >= len(config.widths) - 2
            self.blocks.append(ResidualBlock(choices, width, config.widths[stage], stride, DropPath(config.drop_path, share), late))
            width = config.widths[stage]
        self.head = nn.Linear(width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        fan_in_normal_(self.head.weight, gain=1.0)
        nn.init.zeros_(self.head.bias)
        draw_weights(self, config.init, config.activation)
        for block in self.blocks:
            zero_branch(block.norm_2, block.conv_2)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N C"]:
        x = self.activation(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        x = x.mean(dim=(2, 3))
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        return self.head(x)


class ResidualBlock(nn.Module):
    """activation(shortcut(x) + drop_path(branch(x))); branch = conv, norm, activation, conv, norm; the shortcut averages and projects."""

    def __init__(self, choices: Choices, inputs: int, outputs: int, stride: int, drop_path: DropPath, late: bool) -> None:
        super().__init__()
        self.stride = stride
        self.conv_1 = choices.conv(inputs, outputs, 3, stride)
        self.norm_1 = choices.normed(outputs)
        self.activation_1 = choices.activated(outputs)
        self.conv_2 = choices.conv(outputs, outputs, 3)
        self.norm_2 = choices.normed(outputs)
        self.drop_path = drop_path
        self.drop_block = choices.dropped(late=late)
        self.projection = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        self.activation_2 = choices.activated(outputs)

    def forward(self, x: Float[Tensor, "N inputs H W"]) -> Float[Tensor, "N outputs h w"]:
        branch = self.activation_1(self.drop_block(self.norm_1(self.conv_1(x))))
        branch = self.drop_block(self.norm_2(self.conv_2(branch)))
        shortcut = F.avg_pool2d(x, self.stride, ceil_mode=True) if self.stride > 1 else x
        return self.activation_2(self.drop_block(self.projection(shortcut)) + self.drop_path(branch))
