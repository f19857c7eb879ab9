"""A convolutional network for images of 8 to 64 pixels that spends few operations for its accuracy.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, https://arxiv.org/abs/2404.00498 ("airbench", sections 3.1 to 3.3), after
Page, "How to train your ResNet", 2018, whose first layer whitens the patches of an image. Scaling the logits: section 3.1 of the first.
Shapes: N images, C classes, H x W pixels, D = channels * kernel^2 numbers of a patch.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, InputShape
from torchstone.models.choices import check_choices
from torchstone.nn import (
    Activation,
    DropPath,
    Init,
    Norm,
    activation_layer,
    activation_layers,
    draw_weights,
    drop_path_shares,
    fan_in_normal_,
    has_shift,
    norm_layer,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FastConvNetConfig:
    """A frozen whitening layer, then stages of convolution, pooling and batch norm; each stage halves the image."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"

    widths: tuple[int, ...] = (48, 96, 192)
    """Channels of each stage."""
    convs_per_stage: int = 2
    """3x3 convolutions in a stage; the image is pooled behind the first."""
    residual: bool = False
    """Add what comes out of a stage's first convolution to what comes out of its last; needs three convolutions."""
    whiten_kernel: int = 2
    """Side in pixels of the patches that the first layer whitens; it makes 2 * channels * side^2 channels of them."""
    whiten_epsilon: float = 5e-4
    """Added to each variance of the patches, so that directions without signal are not blown up; in the units of the normalized image."""
    activation: Activation = "gelu"
    """What follows the whitening layer and each norm."""
    norm: Norm = "batch"
    """What follows each convolution; the batch norm shifts but does not scale."""
    norm_momentum: float = 0.4
    """How far one batch moves the running statistics of a batch norm: short trainings need fast ones."""
    dirac: bool = True
    """Let a convolution's first filters start as the identity, as many as it has input channels."""
    init: Init | None = None
    """Rule that draws the first weights (nn.init); none: as the source above has them."""
    head_scale: float = 1 / 9
    """Factor on the logits, which makes the first updates of the head small against those of the body."""
    dropout: float = 0.0
    """Share of the pooled features that training drops at random before the head."""
    drop_path: float = 0.0
    """Probability that training leaves out what comes behind the first convolution of the last stage for a sample; falls linearly to 0 at
    the first stage. Needs `residual`."""

    def __post_init__(self) -> None:
        if not self.widths or any(width < 1 for width in self.widths):
            raise ValueError(f"FastConvNetConfig.widths must be at least one width >= 1, got {self.widths}")
        if self.convs_per_stage < 1:
            raise ValueError(f"FastConvNetConfig.convs_per_stage must be >= 1, got {self.convs_per_stage}")
        if self.residual and self.convs_per_stage < 3:
            raise ValueError(f"FastConvNetConfig.residual must be false with fewer than 3 convs_per_stage, got {self.convs_per_stage}")
        if not 1 <= self.whiten_kernel <= 8:
            raise ValueError(f"FastConvNetConfig.whiten_kernel must be in [1, 8], got {self.whiten_kernel}")
        if not 0 < self.whiten_epsilon < math.inf:
            raise ValueError(f"FastConvNetConfig.whiten_epsilon must be a number > 0, got {self.whiten_epsilon}")
        if not 0 < self.norm_momentum <= 1:
            raise ValueError(f"FastConvNetConfig.norm_momentum must be in (0, 1], got {self.norm_momentum}")
        if not 0 < self.head_scale < math.inf:
            raise ValueError(f"FastConvNetConfig.head_scale must be a number > 0, got {self.head_scale}")
        check_choices(self)
        if self.drop_path and not self.residual:
            raise ValueError(f"FastConvNetConfig.drop_path must be 0 without a residual branch (residual=false), got {self.drop_path}")

    def build(self, inputs: InputShape, outputs: int) -> "FastConvNet":
        if not isinstance(inputs, ImageShape):
            raise UserError(f"model fast_conv_net reads images, but the data give {inputs}; mlp reads vectors, gpt reads tokens")
        if min(inputs.height, inputs.width) < self.whiten_kernel:
            raise UserError(f"model.whiten_kernel={self.whiten_kernel} does not fit in images of {inputs.height}x{inputs.width} pixels")
        return FastConvNet(self, inputs, outputs)


AIRBENCH94 = FastConvNetConfig(widths=(64, 256, 256))
"""The network of the paper: 94 % on CIFAR-10 after 10 epochs."""
AIRBENCH96 = FastConvNetConfig(widths=(128, 384, 512), convs_per_stage=3, residual=True)
"""The paper's larger one: 96 % after 37 epochs with cutout."""


class FastConvNet(nn.Module):
    """Call `initialize_from` once before training: until then the first layer is a random projection."""

    def __init__(self, config: FastConvNetConfig, inputs: ImageShape, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.whitening = Whitening(inputs.channels, config.whiten_kernel, config.whiten_epsilon)
        width = self.whitening.outputs
        self.activation = activation_layer(config.activation, width)
        side = min(inputs.height, inputs.width) - config.whiten_kernel + 1
        self.blocks = nn.ModuleList()
        for stage_width, share in zip(config.widths, drop_path_shares(len(config.widths)), strict=True):
            self.blocks.append(Stage(config, width, stage_width, DropPath(config.drop_path, share), pool=side > 1))
            width, side = stage_width, max(side // 2, 1)
        self.head = nn.Linear(width, outputs, bias=False)
        fan_in_normal_(self.head.weight, gain=1.0)
        draw_weights(self, config.init, config.activation)

    @torch.no_grad()
    def initialize_from(self, inputs: Float[Tensor, "N channels H W"]) -> None:
        """Makes the first layer whiten the patches of these images, normalized as in training; a few thousand are enough.

        Raises UserError when they hold fewer than two patches or anything that is not finite.
        """
        self.whitening.fit(inputs)

    def forward(self, x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N C"]:
        x = self.activation(self.whitening(x))
        for block in self.blocks:
            x = block(x)
        x = x.amax(dim=(2, 3))
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        return self.head(x) * self.config.head_scale


class Whitening(nn.Module):
    """Patches turned to their principal axes, each axis once as it is and once negated, at unit variance.

    Frozen: its weight is a buffer, no optimizer sees it; only the bias is trained. Both signs let the activation behind it lose nothing.
    """

    weight: Tensor

    def __init__(self, channels: int, kernel: int, epsilon: float) -> None:
        super().__init__()
        self.kernel, self.epsilon = kernel, epsilon
        size = channels * kernel**2
        self.outputs = 2 * size
        axes = torch.empty(size, channels, kernel, kernel)
        fan_in_normal_(axes, gain=1.0)
        self.register_buffer("weight", torch.cat([axes, -axes]))
        self.bias = nn.Parameter(torch.zeros(self.outputs))

    @torch.no_grad()
    def fit(self, inputs: Float[Tensor, "N channels H W"]) -> None:
        axes = whitening_axes(inputs, self.kernel, self.epsilon)
        self.weight.copy_(torch.cat([axes, -axes]))

    def forward(self, x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N outputs h w"]:
        return F.conv2d(x, self.weight, self.bias)


def whitening_axes(inputs: Float[Tensor, "N channels H W"], kernel: int, epsilon: float) -> Float[Tensor, "D channels kernel kernel"]:
    """v / sqrt(variance + epsilon) for each principal axis v of the images' patches, the one of largest variance first.

    Computed in float64, and each axis turned so that its largest entry is positive: the same images give the same layer anywhere.
    """
    channels = inputs.shape[1]
    covariance = _patch_covariance(inputs, kernel)
    if not bool(covariance.isfinite().all()):
        raise UserError("model fast_conv_net: the images given to its first layer hold NaN or infinity")
    variances, axes = torch.linalg.eigh(covariance)
    axes_DD = axes.mT.flip(0)
    largest = axes_DD.gather(1, axes_DD.abs().argmax(dim=1, keepdim=True))
    axes_DD = axes_DD * largest.sign()
    scaled = axes_DD / (variances.flip(0).clamp(min=0) + epsilon).sqrt()[:, None]
    return scaled.to(inputs.dtype).reshape(-1, channels, kernel, kernel)


def _patch_covariance(inputs: Tensor, kernel: int) -> Float[Tensor, "D D"]:
    """Covariance of the flattened patches, by blocks of images: memory stays at some megabytes whatever their number."""
    size = inputs.shape[1] * kernel**2
    count = 0
    total = inputs.new_zeros(size, dtype=torch.float64)
    products = inputs.new_zeros(size, size, dtype=torch.float64)
    # Around a first guess of the mean: a sum of squares far from zero would lose digits.
    center = inputs.double().mean() if inputs.numel() else 0.0
    for block in inputs.split(64):
        patches_NDP = F.unfold((block.double() - center).contiguous(), kernel)
        count += len(patches_NDP) * patches_NDP.shape[2]
        total += patches_NDP.sum(dim=(0, 2))
        products += torch.bmm(patches_NDP, patches_NDP.mT).sum(dim=0)
    if count < 2:
        raise UserError("model fast_conv_net: its first layer is made from images, and was given none")
    return (products - total.outer(total) / count) / (count - 1)


class Stage(nn.Module):
    """conv, pool, norm, activation, then conv, norm, activation as often as asked for."""

    def __init__(self, config: FastConvNetConfig, inputs: int, outputs: int, drop_path: DropPath, pool: bool) -> None:
        super().__init__()
        self.pool, self.residual = pool, config.residual
        widths = [inputs] + [outputs] * (config.convs_per_stage - 1)
        self.convs = nn.ModuleList(conv_3x3(width, outputs, config.dirac, bias=not has_shift(config.norm)) for width in widths)
        self.norms = nn.ModuleList(stage_norm(config, outputs) for _ in widths)
        self.activations = activation_layers(config.activation, [outputs] * len(widths))
        self.drop_path = drop_path

    def forward(self, x: Float[Tensor, "N inputs H W"]) -> Float[Tensor, "N outputs h w"]:
        x = self.convs[0](x)
        if self.pool:
            x = F.max_pool2d(x, 2)
        first = x = self.activations[0](self.norms[0](x))
        last = len(self.convs) - 1
        for position in range(1, last + 1):
            x = self.norms[position](self.convs[position](x))
            if self.residual and position == last:
                x = self.drop_path(x) + first
            x = self.activations[position](x)
        return x


def conv_3x3(inputs: int, outputs: int, dirac: bool, bias: bool) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    fan_in_normal_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    if dirac:
        nn.init.dirac_(conv.weight[:inputs])
    return conv


def stage_norm(config: FastConvNetConfig, width: int) -> nn.Module:
    """A batch norm has a bias but no scale: behind it comes another convolution, which can scale as well."""
    norm = norm_layer(config.norm, width, 2, momentum=config.norm_momentum)
    if config.norm == "batch":
        norm.register_parameter("weight", None)
    return norm
