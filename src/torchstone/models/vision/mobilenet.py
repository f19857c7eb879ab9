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
from torchstone.models.vision.resnet import stem_for
from torchstone.nn import DropPath, drop_path_shares, fan_in_normal_

TABLE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""The stages: expansion, channels, blocks, stride of the first block."""
STEM, LAST = 32, 1280
"""Channels of the first and the last convolution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MobilenetV2Config:
    """Seventeen inverted residual blocks between two convolutions."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"

    width: float = 1.0
    """Factor on the channels of every layer (rounded to multiples of 8); the last convolution never gets narrower than 1280."""
    stem: Literal["auto", "imagenet", "small"] = "auto"
    """Where the image shrinks: imagenet five times by two, small three times (the first convolution and the second stage keep its size);
    auto is small up to 64 pixels."""
    dropout: float = 0.0
    """Share of the pooled features that training drops at random before the head."""
    drop_path: float = 0.0
    """Probability that training leaves out the last block's branch for a sample; falls linearly to 0 at the first block."""

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise ValueError(f"MobilenetV2Config.width must be a number > 0, got {self.width}")
        if self.stem not in ("auto", "imagenet", "small"):
            raise ValueError(f"MobilenetV2Config.stem must be auto, imagenet or small, got {self.stem}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"MobilenetV2Config.dropout must be in [0, 1), got {self.dropout}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"MobilenetV2Config.drop_path must be in [0, 1), got {self.drop_path}")

    def resolve(self, facts: Facts) -> Self:
        """Writes out which stem `auto` is, so that the weights keep it when images of another size come."""
        if self.stem != "auto" or not isinstance(facts.inputs, ImageShape):
            return self
        return replace(self, stem=stem_for(facts.inputs))

    def build(self, inputs: InputShape, outputs: int) -> "MobilenetV2":
        if not isinstance(inputs, ImageShape):
            raise UserError(f"model mobilenetv2 reads images, but the data give {inputs}; mlp reads vectors, gpt reads tokens")
        config = replace(self, stem=stem_for(inputs)) if self.stem == "auto" else self
        return MobilenetV2(config, inputs.channels, outputs)


MOBILENET_V2 = MobilenetV2Config()


def rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8, never more than a tenth below."""
    near = max(int(channels + 4) // 8 * 8, 8)
    return near + 8 if near < 0.9 * channels else near


class MobilenetV2(nn.Module):
    first_conv = "stem.weight"

    def __init__(self, config: MobilenetV2Config, channels: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        small = config.stem == "small"
        width = rounded(STEM * config.width)
        self.stem = nn.Conv2d(channels, width, 3, 1 if small else 2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList()
        self.stages = tuple(count for _, _, count, _ in TABLE)
        shares = iter(drop_path_shares(sum(self.stages)))
        for stage, (expansion, out, count, first_stride) in enumerate(TABLE):
            for position in range(count):
                stride = first_stride if position == 0 and not (small and stage == 1) else 1
                outside = rounded(out * config.width)
                self.blocks.append(InvertedResidual(width, outside, stride, expansion, DropPath(config.drop_path, next(shares))))
                width = outside
        last = rounded(LAST * max(config.width, 1.0))
        self.last = nn.Conv2d(width, last, 1, bias=False)
        self.last_norm = nn.BatchNorm2d(last)
        self.head = nn.Linear(last, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in_normal_(module.weight)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N C"]:
        x = F.relu6(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        x = F.relu6(self.last_norm(self.last(x)))
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

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, drop_path: DropPath) -> None:
        super().__init__()
        inside = inputs * expansion
        self.expand = nn.Conv2d(inputs, inside, 1, bias=False) if expansion > 1 else None
        self.expand_norm = nn.BatchNorm2d(inside) if expansion > 1 else None
        self.depthwise = nn.Conv2d(inside, inside, 3, stride, padding=1, groups=inside, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(inside)
        self.project = nn.Conv2d(inside, outputs, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(outputs)
        self.residual = stride == 1 and inputs == outputs
        self.drop_path = drop_path

    def forward(self, x: Float[Tensor, "N inputs H W"]) -> Float[Tensor, "N outputs h w"]:
        branch = x
        if self.expand is not None and self.expand_norm is not None:
            branch = F.relu6(self.expand_norm(self.expand(branch)))
        branch = F.relu6(self.depthwise_norm(self.depthwise(branch)))
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
