"""Vision transformer: an image as a sequence of patches, read by a pre-norm encoder.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, https://arxiv.org/abs/2010.11929, section 3.1; the small variants are those of
Touvron et al., "Training data-efficient image transformers", 2020, https://arxiv.org/abs/2012.12877.
Shapes: N images, C classes, H x W pixels, T tokens (patches, and the class token where there is one), D channels a head.
"""

import math
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchstone.core.errors import UserError
from torchstone.core.protocols import ImageShape, InputShape
from torchstone.models.choices import check_choices
from torchstone.nn import (
    AttentionScale,
    BlockActivation,
    DropPath,
    Init,
    Norm,
    activation_layer,
    draw_weights,
    drop_path_shares,
    fan_in_normal_,
    gated_width,
    score_scale,
    token_norm,
    widened,
)

EPSILON = 1e-6
LONGEST = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class VITConfig:
    """Encoder over square patches; the defaults suit images of 28 to 64 pixels."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a model is what is trained; no training is without one"

    patch_size: int = 4
    """Side of a patch in pixels; it must divide the image's sides."""
    depth: int = 6
    """Blocks of attention and MLP."""
    dim: int = 192
    """Channels of a token."""
    num_heads: int = 3
    """Attention heads; each has dim / num_heads channels."""
    attention_scale: AttentionScale = "rsqrt"
    """What queries times keys are divided by, with D channels a head: rsqrt the root of D (Vaswani et al. 2017, section 3.2.1), inverse D
    (muP: Yang et al. 2022, definition 4.1), none nothing."""
    mlp_ratio: float = 4.0
    """Width of the MLP's hidden layer over dim."""
    activation: BlockActivation = "gelu"
    """Between the MLP's two layers; with a gate (glu, swiglu, ...) the hidden layer has two thirds of its width, twice."""
    norm: Norm = "layer"
    """Before each branch, and before the head."""
    init: Init | None = None
    """Rule that draws the first weights (nn.init); none: as the source above has them."""
    pool: Literal["class", "mean"] = "class"
    """What the head reads: a class token that is read along with the patches, or the patches' mean (and no such token)."""
    dropout: float = 0.0
    """Share of the embedding and of each branch's output that training drops at random (attention weights are not dropped)."""
    drop_path: float = 0.0
    """Probability that training leaves out the last block's branches for a sample; falls linearly to 0 at the first block."""

    def __post_init__(self) -> None:
        for name in ("patch_size", "depth", "dim", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"VITConfig.{name} must be >= 1, got {getattr(self, name)}")
        if self.dim % self.num_heads:
            raise ValueError(f"VITConfig.num_heads must divide dim = {self.dim}, got {self.num_heads}")
        if not (math.isfinite(self.mlp_ratio) and self.mlp_ratio * self.dim >= 1):
            raise ValueError(f"VITConfig.mlp_ratio must leave the hidden layer at least one channel, got {self.mlp_ratio}")
        if self.pool not in ("class", "mean"):
            raise ValueError(f"VITConfig.pool must be class or mean, got {self.pool}")
        check_choices(self)

    def build(self, inputs: InputShape, outputs: int) -> "VIT":
        if not isinstance(inputs, ImageShape):
            raise UserError(f"model vit reads images, but the data give {inputs}; mlp reads vectors, gpt reads tokens")
        if inputs.height % self.patch_size or inputs.width % self.patch_size:
            raise UserError(f"model.patch_size={self.patch_size} does not divide images of {inputs.height}x{inputs.width} pixels")
        return VIT(self, inputs, outputs)


VIT_TI16 = VITConfig(patch_size=16, depth=12, dim=192, num_heads=3)
VIT_S16 = VITConfig(patch_size=16, depth=12, dim=384, num_heads=6)
VIT_B16 = VITConfig(patch_size=16, depth=12, dim=768, num_heads=12)


class VIT(nn.Module):
    first_conv = "patches.weight"

    def __init__(self, config: VITConfig, inputs: ImageShape, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.grid = (inputs.height // config.patch_size, inputs.width // config.patch_size)
        self.patches = nn.Conv2d(inputs.channels, config.dim, config.patch_size, config.patch_size)
        self.extra = int(config.pool == "class")
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if self.extra else None
        self.positions = nn.Parameter(torch.empty(1, self.extra + self.grid[0] * self.grid[1], config.dim))
        self.blocks = nn.ModuleList(Block(config, share) for share in drop_path_shares(config.depth))
        self.norm = token_norm(config.norm, config.dim, eps=EPSILON)
        self.head = nn.Linear(config.dim, outputs)
        self._initialize()
        draw_weights(self, config.init, config.activation)

    @torch.no_grad()
    def _initialize(self) -> None:
        nn.init.normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
        fan_in_normal_(self.patches.weight, gain=1.0)

    def forward(self, x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N C"]:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        x = F.dropout(x + self.positions, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.extra else x.mean(dim=1))

    def our_name(self, name: str) -> str | None:
        """Our name of a tensor that torchvision or timm calls `name`."""
        if name in _WHOLE:
            return _WHOLE[name]
        match = re.fullmatch(r"(?:blocks\.|encoder\.layers\.encoder_layer_)(\d{1,3})\.(.+?)[._](weight|bias)", name)
        if match is not None:
            part = _INNER.get(match[2])
            return f"blocks.{match[1]}.{part}.{match[3]}" if part is not None and int(match[1]) < len(self.blocks) else None
        module, _, leaf = name.rpartition(".")
        return f"{_OUTER[module]}.{leaf}" if module in _OUTER else None

    def fitted(self, name: str, tensor: Tensor) -> tuple[Tensor, str] | None:
        """Positions [1, T, dim] of another square grid, with or without a class token, in the shape of this model's, and what was done.

        None where `tensor` cannot be such positions.
        """
        if name != "positions" or tensor.ndim != 3 or tensor.shape[::2] != self.positions.shape[::2]:
            return None
        side = math.isqrt(tensor.shape[1])
        theirs = tensor.shape[1] - side * side
        if theirs > 1 or side < 1:
            return None
        first, grid = tensor[:, :theirs], tensor[:, theirs:]
        # A class token that they lack keeps the position it has; one that we lack is dropped.
        first = first[:, : self.extra] if theirs else self.positions.detach()[:, : self.extra].to(tensor.dtype)
        said = f"{side}x{side} positions interpolated to {self.grid[0]}x{self.grid[1]}"
        return torch.cat([first, resampled(grid, (side, side), self.grid)], dim=1), said


def resampled(positions: Float[Tensor, "1 T dim"], grid: tuple[int, int], wanted: tuple[int, int]) -> Float[Tensor, "1 T2 dim"]:
    """Positions of one grid of patches [rows, columns] for another, by antialiased bicubic interpolation; the same grid is left alone."""
    if grid == wanted:
        return positions
    planes = positions.float().transpose(1, 2).unflatten(2, grid)
    planes = F.interpolate(planes, size=wanted, mode="bicubic", antialias=True, align_corners=False)
    return planes.flatten(2).transpose(1, 2).to(positions.dtype)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: VITConfig, depth_share: float) -> None:
        super().__init__()
        self.attention_norm = token_norm(config.norm, config.dim, eps=EPSILON)
        self.attention = SelfAttention(config)
        self.mlp_norm = token_norm(config.norm, config.dim, eps=EPSILON)
        self.mlp = MLP(config)
        self.drop_path_1 = DropPath(config.drop_path, depth_share)
        self.drop_path_2 = DropPath(config.drop_path, depth_share)

    def forward(self, x: Float[Tensor, "N T dim"]) -> Float[Tensor, "N T dim"]:
        x = x + self.drop_path_1(self.attention(self.attention_norm(x)))
        return x + self.drop_path_2(self.mlp(self.mlp_norm(x)))


class SelfAttention(nn.Module):
    """Multi-head attention in which each token sees all."""

    def __init__(self, config: VITConfig) -> None:
        super().__init__()
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.scale = score_scale(config.attention_scale, config.dim // config.num_heads)
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Float[Tensor, "N T dim"]) -> Float[Tensor, "N T dim"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, x.shape[-1] // self.num_heads)).permute(2, 0, 3, 1, 4).unbind()
        y = attention(q, k, v, self.scale)
        return F.dropout(self.out(y.transpose(1, 2).flatten(2)), self.dropout, self.training)


def attention(
    q: Float[Tensor, "N H T D"], k: Float[Tensor, "N H T D"], v: Float[Tensor, "N H T D"], scale: float | None = None
) -> Float[Tensor, "N H T D"]:
    """softmax(scale q k^T) v; scale is 1 / sqrt(D) unless given.

    In bfloat16 on a CPU by plain products, everything else by PyTorch's fused kernel. Milliseconds forward and backward on one thread,
    (N, H, T, D) fused -> products: bfloat16 (64,3,65,64) 49 -> 11, (16,3,197,64) 35 -> 16, (8,12,197,64) 72 -> 33; float32 the other
    way, 20 -> 19, 27 -> 38, 53 -> 61.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= LONGEST:
        return ((q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.mT).softmax(dim=-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


class MLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: VITConfig) -> None:
        super().__init__()
        hidden = gated_width(config.activation, round(config.mlp_ratio * config.dim))
        self.activation, self.dropout = activation_layer(config.activation, hidden, dim=-1), config.dropout
        self.hidden = nn.Linear(config.dim, widened(config.activation) * hidden)
        self.out = nn.Linear(hidden, config.dim)

    def forward(self, x: Float[Tensor, "N T dim"]) -> Float[Tensor, "N T dim"]:
        return F.dropout(self.out(self.activation(self.hidden(x))), self.dropout, self.training)


_WHOLE = {"cls_token": "class_token", "pos_embed": "positions", "encoder.pos_embedding": "positions"}
_OUTER = {"patch_embed.proj": "patches", "conv_proj": "patches", "encoder.ln": "norm", "fc_norm": "norm", "heads.head": "head"}
_INNER = {"norm1": "attention_norm", "attn.qkv": "attention.qkv", "attn.proj": "attention.out"}
_INNER |= {"norm2": "mlp_norm", "mlp.fc1": "mlp.hidden", "mlp.fc2": "mlp.out"}
_INNER |= {"ln_1": "attention_norm", "self_attention.in_proj": "attention.qkv", "self_attention.out_proj": "attention.out"}
_INNER |= {"ln_2": "mlp_norm", "mlp.0": "mlp.hidden", "mlp.3": "mlp.out", "mlp.linear_1": "mlp.hidden", "mlp.linear_2": "mlp.out"}
"""Their names (timm's, then torchvision's, new and old) for ours: a whole tensor, a module outside the blocks, one inside."""
