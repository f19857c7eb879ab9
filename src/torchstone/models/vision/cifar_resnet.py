"""The ResNets for CIFAR: 20 to 110 layers, few channels, and their plain twins without shortcuts.

He et al., "Deep Residual Learning for Image Recognition", 2015, https://arxiv.org/abs/1512.03385, section 4.2.
Shapes: N images, C classes, H x W pixels.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, InputShape
from torchstone.models.choices import Choices, check_choices, check_trunk
from torchstone.models.vision.resnet import BasicBlock, Projection, our_name
from torchstone.nn import Activation, DropPath, Init, Norm, draw_weights, drop_path_shares, fan_in_normal_

STAGE_COUNT = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CifarResnetConfig:
    """Three stages of basic blocks at full, half and quarter size, with 16, 32 and 64 channels."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"

    depth: int = 20
    """Layers with weights: 6 n + 2, with n blocks in a stage (20, 32, 44, 56 and 110 in the paper)."""
    residual: bool = True
    """Shortcuts around the blocks; false is the paper's plain network."""
    shortcut: Literal["pad", "projection"] = "pad"
    """Where the size changes: every second pixel and zeros for the new channels (the paper's A), or a 1x1 convolution (B)."""
    width: int = 16
    """Channels of the first stage."""
    activation: Activation = "relu"
    """What follows the norms."""
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
        if self.depth < 8 or self.depth % 6 != 2:
            near = max(6 * round((self.depth - 2) / 6) + 2, 8)
            raise ValueError(f"CifarResnetConfig.depth must be 6 n + 2, at least 8 (such as {near}), got {self.depth}")
        if self.shortcut not in ("pad", "projection"):
            raise ValueError(f"CifarResnetConfig.shortcut must be pad or projection, got {self.shortcut}")
        if self.width < 1:
            raise ValueError(f"CifarResnetConfig.width must be >= 1, got {self.width}")
        check_choices(self)
        if self.residual:
            check_trunk(self)
        if self.drop_path and not self.residual:
            raise ValueError(f"CifarResnetConfig.drop_path must be 0 without shortcuts (residual=false), got {self.drop_path}")

    def build(self, inputs: InputShape, outputs: int) -> "CifarResnet":
        if not isinstance(inputs, ImageShape):
            raise UserError(f"model cifar_resnet reads images, but the data give {inputs}; mlp reads vectors, gpt reads tokens")
        return CifarResnet(self, inputs.channels, outputs)


CIFAR_RESNET20 = CifarResnetConfig(depth=20)
CIFAR_RESNET32 = CifarResnetConfig(depth=32)
CIFAR_RESNET44 = CifarResnetConfig(depth=44)
CIFAR_RESNET56 = CifarResnetConfig(depth=56)
CIFAR_RESNET110 = CifarResnetConfig(depth=110)


class CifarResnet(nn.Module):
    first_conv = "stem.weight"

    def __init__(self, config: CifarResnetConfig, channels: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        choices = Choices.of(config)
        width = config.width
        self.stem = choices.conv(channels, width, 3)
        self.stem_norm = choices.normed(width)
        self.activation = choices.activated(width)
        self.blocks = nn.ModuleList()
        self.stages = (config.depth // 6,) * STAGE_COUNT
        shares = iter(drop_path_shares(sum(self.stages)))
        for stage, count in enumerate(self.stages):
            for position in range(count):
                stride = 2 if stage and position == 0 else 1
                shortcut = _shortcut(config, width, stride)
                drop_path = DropPath(config.drop_path, next(shares))
                self.blocks.append(BasicBlock(choices, width, width * stride, stride, shortcut, drop_path, late=stage > 0))
                width *= stride
        self.head = nn.Linear(width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        fan_in_normal_(self.head.weight, gain=1.0)
        nn.init.zeros_(self.head.bias)
        draw_weights(self, config.init, config.activation)

    def forward(self, x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N C"]:
        x = self.activation(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        x = x.mean(dim=(2, 3))
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        return self.head(x)

    def our_name(self, name: str) -> str | None:
        """Our name of a tensor that Idelbayev's pytorch_resnet_cifar10 (or torchvision's habit) calls `name`."""
        return our_name(name, self.stages)


def _shortcut(config: CifarResnetConfig, width: int, stride: int) -> nn.Module | None:
    """What goes around a block that enters with `width` channels; at stride 2 it leaves with twice as many."""
    if not config.residual:
        return None
    if stride == 1:
        return nn.Identity()
    return PadShortcut(width) if config.shortcut == "pad" else Projection(Choices.of(config), width, 2 * width, stride)


class PadShortcut(nn.Module):
    """Every second pixel, with as many zero channels more as there are, half of them on either side. No parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.padding = (width // 2, width - width // 2)

    def forward(self, x: Float[Tensor, "N width H W"]) -> Float[Tensor, "N outputs h w"]:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, *self.padding))
