"""MobileNet v2: inverted residual blocks, wide inside and narrow outside, with depthwise convolutions.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, https://arxiv.org/abs/1801.04381, table 2.
Shapes: N images, C classes, H x W pixels.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, ImageShape, InputShape
from torchstone.models.choices import Choices, check_choices
from torchstone.models.vision.resnet import stem_for
from torchstone.nn import Activation, DropPath, Init, Norm, draw_weights, drop_path_shares, fan_in_normal_

TABLE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""The stages: expansion, channels, blocks, stride of the first block."""
STEM, LAST = 32, 1280
"""Channels of the first and the last convolution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MobileNetV2Config:
    """Seventeen inverted residual blocks between two convolutions."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"

    width: float = 1.0
    """Factor on the channels of every layer (rounded to multiples of 8); the last convolution never gets narrower than 1280."""
    stem: Literal["auto", "imagenet", "small"] = "auto"
    """Where the image shrinks: imagenet five times by two, small three times (the first convolution and the second stage keep its size);
    auto is small up to 64 pixels."""
    activation: Activation = "relu6"
    """What follows the norms, but where a block gets narrow."""
    norm: Norm = "batch"
    """What follows each convolution."""
    init: Init | None = None
    """Rule that draws the first weights (nn.init); none: as the source above has them."""
    dropout: float = 0.0
    """Share of the pooled features that training drops at random before the head."""
    drop_path: float = 0.0
    """Probability that training leaves out the last block's branch for a sample; falls linearly to 0 at the first block."""

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise ValueError(f"MobileNetV2Config.width must be a number > 0, got {self.width}")
        if self.stem not in ("auto", "imagenet", "small"):
            raise ValueError(f"MobileNetV2Config.stem must be auto, imagenet or small, got {self.stem}")
        check_choices(self)

    def resolve(self, facts: Facts) -> Self:
        """Writes out which stem `auto` is, so that the weights keep it when images of another size come."""
        if self.stem != "auto" or not isinstance(facts.inputs, ImageShape):
            return self
        return replace(self, stem=stem_for(facts.inputs))

    def build(self, inputs: InputShape, outputs: int) -> "MobileNetV2":
        if not isinstance(inputs, ImageShape):
            raise UserError(f"model mobile_net_v2 reads images, but the data give {inputs}; mlp reads vectors, gpt reads tokens")
        config = replace(self, stem=stem_for(inputs)) if self.stem == "auto" else self
        return MobileNetV2(config, inputs.channels, outputs)


MOBILENET_V2 = MobileNetV2Config()


def rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8, never more than a tenth below."""
    near = max(int(channels + 4) // 8 * 8, 8)
    return near + 8 if near < 0.9 * channels else near


class MobileNetV2(nn.Module):
    first_conv = "stem.weight"

    def __init__(self, config: MobileNetV2Config, channels: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        small = config.stem == "small"
        width = rounded(STEM * config.width)
        choices = Choices.of(config)
        self.stem = choices.conv(channels, width, 3, 1 if small else 2)
        self.stem_norm = choices.normed(width)
        self.activation = choices.activated(width)
        self.blocks = nn.ModuleList()
        self.stages = tuple(count for _, _, count, _ in TABLE)
        shares = iter(drop_path_shares(sum(self.stages)))
        for stage, (expansion, out, count, first_stride) in enumerate(TABLE):
            for position in range(count):
                stride = first_stride if position == 0 and not (small and stage == 1) else 1
                outside = rounded(out * config.width)
                drop_path = DropPath(config.drop_path, next(shares))
                self.blocks.append(InvertedResidual(choices, width, outside, stride, expansion, drop_path))
                width = outside
        last = rounded(LAST * max(config.width, 1.0))
        self.last = choices.conv(width, last, 1)
        self.last_norm = choices.normed(last)
        self.last_activation = choices.activated(last)
        self.head = nn.Linear(last, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        draw_weights(self, config.init, config.activation)

    def forward(self, x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N C"]:
        x = self.activation(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        x = self.last_activation(self.last_norm(self.last(x)))
        x = x.mean(dim=(2, 3))
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        return self.head(x)

    def our_name(self, name: str) -> str | None:
        """Our name of a tensor that torchvision or timm calls `name`."""
        module, _, leaf = name.rpartition(".")
        if module in _OUTER:
            return f"{_OUTER[module]}.{leaf}"
        if match := re.fullmatch(r"features\.(\d{1,2})\.conv\.(.+)", module):
            block, part = int(match[1]) - 1, _TORCHVISION[match[1] == "1"].get(match[2])
        elif match := re.fullmatch(r"blocks\.([0-6])\.(\d)\.(.+)", module):
            stage, position = int(match[1]), int(match[2])
            block = sum(self.stages[:stage]) + position if position < self.stages[stage] else -1
            part = _TIMM[match[1] == "0"].get(match[3])
        else:
            return None
        return f"blocks.{block}.{part}.{leaf}" if part is not None and 0 <= block < len(self.blocks) else None


class InvertedResidual(nn.Module):
    """1x1 up, 3x3 depthwise (with the stride), 1x1 down without an activation; a shortcut where nothing changes size."""

    def __init__(self, choices: Choices, inputs: int, outputs: int, stride: int, expansion: int, drop_path: DropPath) -> None:
        super().__init__()
        inside = inputs * expansion
        self.expand = choices.conv(inputs, inside, 1) if expansion > 1 else None
        self.expand_norm = choices.normed(inside) if expansion > 1 else None
        self.expand_activation = choices.activated(inside) if expansion > 1 else None
        self.depthwise = choices.conv(inside, inside, 3, stride, groups=inside)
        self.depthwise_norm = choices.normed(inside)
        self.depthwise_activation = choices.activated(inside)
        self.project = choices.conv(inside, outputs, 1)
        self.project_norm = choices.normed(outputs)
        self.residual = stride == 1 and inputs == outputs
        self.drop_path = drop_path

    def forward(self, x: Float[Tensor, "N inputs H W"]) -> Float[Tensor, "N outputs h w"]:
        branch = x
        if self.expand is not None and self.expand_norm is not None and self.expand_activation is not None:
            branch = self.expand_activation(self.expand_norm(self.expand(branch)))
        branch = self.depthwise_activation(self.depthwise_norm(self.depthwise(branch)))
        branch = self.project_norm(self.project(branch))
        return x + self.drop_path(branch) if self.residual else branch


_OUTER = {"features.0.0": "stem", "features.0.1": "stem_norm", "features.18.0": "last", "features.18.1": "last_norm"}
_OUTER |= {"classifier.1": "head", "conv_stem": "stem", "bn1": "stem_norm", "conv_head": "last", "bn2": "last_norm", "classifier": "head"}
_EXPANDED = ("expand", "expand_norm", "depthwise", "depthwise_norm", "project", "project_norm")
_TORCHVISION: tuple[dict[str, str], ...] = (
    dict(zip(("0.0", "0.1", "1.0", "1.1", "2", "3"), _EXPANDED, strict=True)),
    dict(zip(("0.0", "0.1", "1", "2"), _EXPANDED[2:], strict=True)),
)
_TIMM: tuple[dict[str, str], ...] = (
    dict(zip(("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"), _EXPANDED, strict=True)),
    dict(zip(("conv_dw", "bn1", "conv_pw", "bn2"), _EXPANDED[2:], strict=True)),
)
"""Their names inside a block: one that expands, and the first one, which does not."""
