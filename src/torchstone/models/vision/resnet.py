"""ResNet v1.5, 18 to 152 layers deep.

He et al., "Deep Residual Learning for Image Recognition", 2015, https://arxiv.org/abs/1512.03385, table 1; "v1.5" puts the stride of a
bottleneck into its 3x3 convolution (Gross and Wilber, "Training and investigating residual nets", 2016). Starting values: Goyal et al.,
"Accurate, Large Minibatch SGD", 2017, https://arxiv.org/abs/1706.02677, section 5.1.
Shapes: N images, C classes, H x W pixels.
"""

import re
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, ImageShape, InputShape
from torchstone.models.choices import Choices, check_choices, check_trunk
from torchstone.nn import Activation, DropPath, Init, Norm, draw_weights, drop_path_shares, zero_branch

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth -> blocks of each stage."""
EXPANSION = 4
"""Channels that leave a bottleneck over those inside it."""
WIDTHS = ((24, 16), (40, 32))
"""Pixels of the shorter side up to which a width that is left open is this."""
SMALL = 64
"""Pixels of the shorter side up to which `stem="auto"` keeps the image whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResnetConfig:
    """Four stages of residual blocks behind a stem; basic blocks up to 34 layers, bottlenecks beyond."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"

    depth: int = 18
    """Layers with weights: 18, 34, 50, 101 or 152."""
    stem: Literal["auto", "imagenet", "small"] = "auto"
    """The first layer: imagenet is 7x7 at stride 2 and pooling, small 3x3 at stride 1; auto is small up to 64 pixels."""
    width: int | None = 64
    """Channels of the stem and inside the first stage; each later stage doubles them. none: by the pictures' shorter side, 16 up to 24
    pixels, 32 up to 40, else 64."""
    activation: Activation = "relu"
    """What follows the norms."""
    norm: Norm = "batch"
    """What follows each convolution."""
    init: Init | None = None
    """Rule that draws the first weights (nn.init); none: as the source above has them."""
    zero_init_residual: bool = True
    """Start the last norm of each branch (or the last convolution, where there is no norm) at 0: a block starts as its shortcut."""
    dropout: float = 0.0
    """Share of the pooled features that training drops at random before the head."""
    drop_path: float = 0.0
    """Probability that training leaves out the last block's branch for a sample; falls linearly to 0 at the first block."""
    drop_block: float = 0.0
    """Share of the pixels that training leaves out, in squares of 7x7, of each map of the last two stages."""

    def __post_init__(self) -> None:
        if self.depth not in STAGES:
            raise ValueError(f"ResnetConfig.depth must be one of {', '.join(map(str, STAGES))}, got {self.depth}")
        if self.stem not in ("auto", "imagenet", "small"):
            raise ValueError(f"ResnetConfig.stem must be auto, imagenet or small, got {self.stem}")
        if self.width is not None and self.width < 1:
            raise ValueError(f"ResnetConfig.width must be >= 1, got {self.width}")
        check_choices(self)
        check_trunk(self)

    def resolve(self, facts: Facts) -> Self:
        """Writes out which stem `auto` is and which width none is, so that the weights keep them when images of another size come."""
        return self.fixed(facts.inputs) if isinstance(facts.inputs, ImageShape) else self

    def fixed(self, inputs: ImageShape) -> Self:
        """With what is left open chosen by the images."""
        stem = stem_for(inputs) if self.stem == "auto" else self.stem
        return replace(self, stem=stem, width=width_for(inputs) if self.width is None else self.width)

    def build(self, inputs: InputShape, outputs: int) -> "Resnet":
        if not isinstance(inputs, ImageShape):
            raise UserError(f"model resnet reads images, but the data give {inputs}; mlp reads vectors, gpt reads tokens")
        return Resnet(self.fixed(inputs), inputs.channels, outputs)


RESNET18 = ResnetConfig(depth=18)
RESNET34 = ResnetConfig(depth=34)
RESNET50 = ResnetConfig(depth=50)
RESNET101 = ResnetConfig(depth=101)
RESNET152 = ResnetConfig(depth=152)


def stem_for(inputs: ImageShape) -> Literal["imagenet", "small"]:
    return "small" if min(inputs.height, inputs.width) <= SMALL else "imagenet"


def width_for(inputs: ImageShape) -> int:
    """A network of full width spends most of its operations on what small pictures do not hold."""
    side = min(inputs.height, inputs.width)
    return next((width for most, width in WIDTHS if side <= most), 64)


class Resnet(nn.Module):
    first_conv = "stem.weight"

    def __init__(self, config: ResnetConfig, channels: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        choices = Choices.of(config)
        assert config.width is not None, "the config is fixed before it is built"
        width = config.width
        kernel, stride = (7, 2) if config.stem == "imagenet" else (3, 1)
        self.stem = choices.conv(channels, width, kernel, stride)
        self.stem_norm = choices.normed(width)
        self.activation = choices.activated(width)
        self.stages = STAGES[config.depth]
        self.blocks = nn.ModuleList()
        Block = BasicBlock if config.depth < 50 else Bottleneck
        shares = iter(drop_path_shares(sum(self.stages)))
        for stage, count in enumerate(self.stages):
            for position in range(count):
                stride = 2 if stage and position == 0 else 1
                inside = config.width * 2**stage
                outside = inside * Block.expansion
                shortcut = Projection(choices, width, outside, stride) if stride > 1 or width != outside else nn.Identity()
                drop_path = DropPath(config.drop_path, next(shares))
                self.blocks.append(Block(choices, width, inside, stride, shortcut, drop_path, late=stage >= len(self.stages) - 2))
                width = outside
        self.head = nn.Linear(width, outputs)
        initialize(self)
        draw_weights(self, config.init, config.activation)
        if config.zero_init_residual:
            for block in self.blocks:
                zero_branch(*block.branch_end)  # type: ignore[misc]

    def forward(self, x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N C"]:
        x = self.activation(self.stem_norm(self.stem(x)))
        if self.config.stem == "imagenet":
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x)
        x = x.mean(dim=(2, 3))
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        return self.head(x)

    def our_name(self, name: str) -> str | None:
        """Our name of a tensor that torchvision or timm calls `name`."""
        return our_name(name, self.stages)


class BasicBlock(nn.Module):
    """activation(shortcut(x) + drop_path(branch(x))), branch = conv, norm, activation, conv, norm. Without a shortcut: the branch alone."""

    expansion: ClassVar[int] = 1

    def __init__(
        self, choices: Choices, inputs: int, width: int, stride: int, shortcut: nn.Module | None, drop_path: DropPath, *, late: bool
    ) -> None:
        super().__init__()
        self.conv_1 = choices.conv(inputs, width, 3, stride)
        self.norm_1 = choices.normed(width)
        self.activation_1 = choices.activated(width)
        self.conv_2 = choices.conv(width, width, 3)
        self.norm_2 = choices.normed(width)
        self.activation_2 = choices.activated(width)
        self.shortcut = shortcut
        self.drop_path = drop_path
        self.drop_block = choices.dropped(late=late)

    @property
    def branch_end(self) -> tuple[nn.Module, nn.Conv2d]:
        """The last norm of the branch, and the convolution in front of it."""
        return self.norm_2, self.conv_2

    def forward(self, x: Float[Tensor, "N inputs H W"]) -> Float[Tensor, "N outputs h w"]:
        branch = self.activation_1(self.drop_block(self.norm_1(self.conv_1(x))))
        branch = self.drop_block(self.norm_2(self.conv_2(branch)))
        if self.shortcut is None:
            return self.activation_2(branch)
        return self.activation_2(self.drop_block(self.shortcut(x)) + self.drop_path(branch))


class Bottleneck(nn.Module):
    """As BasicBlock, but the branch goes through fewer channels: 1x1 down, 3x3 (with the stride), 1x1 up."""

    expansion: ClassVar[int] = EXPANSION

    def __init__(
        self, choices: Choices, inputs: int, width: int, stride: int, shortcut: nn.Module, drop_path: DropPath, *, late: bool
    ) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv_1 = choices.conv(inputs, width, 1)
        self.norm_1 = choices.normed(width)
        self.activation_1 = choices.activated(width)
        self.conv_2 = choices.conv(width, width, 3, stride)
        self.norm_2 = choices.normed(width)
        self.activation_2 = choices.activated(width)
        self.conv_3 = choices.conv(width, outputs, 1)
        self.norm_3 = choices.normed(outputs)
        self.activation_3 = choices.activated(outputs)
        self.shortcut = shortcut
        self.drop_path = drop_path
        self.drop_block = choices.dropped(late=late)

    @property
    def branch_end(self) -> tuple[nn.Module, nn.Conv2d]:
        """The last norm of the branch, and the convolution in front of it."""
        return self.norm_3, self.conv_3

    def forward(self, x: Float[Tensor, "N inputs H W"]) -> Float[Tensor, "N outputs h w"]:
        branch = self.activation_1(self.drop_block(self.norm_1(self.conv_1(x))))
        branch = self.activation_2(self.drop_block(self.norm_2(self.conv_2(branch))))
        branch = self.drop_block(self.norm_3(self.conv_3(branch)))
        return self.activation_3(self.drop_block(self.shortcut(x)) + self.drop_path(branch))


class Projection(nn.Module):
    """A 1x1 convolution with a norm, where a block changes the channels or the size."""

    def __init__(self, choices: Choices, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = choices.conv(inputs, outputs, 1, stride)
        self.norm = choices.normed(outputs)

    def forward(self, x: Float[Tensor, "N inputs H W"]) -> Float[Tensor, "N outputs h w"]:
        return self.norm(self.conv(x))


def initialize(model: nn.Module) -> None:
    """Convolutions as He et al. by fan out (which keeps the gradients' size), the head N(0, 0.01^2)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


_OUTER = {"conv1": "stem", "bn1": "stem_norm", "fc": "head", "linear": "head"}
_INNER = {f"{their}{i}": f"{our}_{i}" for their, our in (("conv", "conv"), ("bn", "norm")) for i in (1, 2, 3)}
_INNER |= {f"{their}.{i}": our for their in ("downsample", "shortcut") for i, our in ((0, "shortcut.conv"), (1, "shortcut.norm"))}


def our_name(name: str, stages: tuple[int, ...]) -> str | None:
    """Our name of `layer2.0.conv1.weight` and the like, where `stages` has the blocks of each layer; None for no such name."""
    module, _, leaf = name.rpartition(".")
    if module in _OUTER:
        return f"{_OUTER[module]}.{leaf}"
    match = re.fullmatch(r"layer([1-9])\.(\d{1,3})\.(.+)", module)
    if match is None or match[3] not in _INNER:
        return None
    stage, position = int(match[1]) - 1, int(match[2])
    if stage >= len(stages) or position >= stages[stage]:
        return None
    return f"blocks.{sum(stages[:stage]) + position}.{_INNER[match[3]]}.{leaf}"
