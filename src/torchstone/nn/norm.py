"""Normalization by name, and batch normalization whose statistics are those of the whole batch over all ranks.

| name | statistics over | paper |
|---|---|---|
| batch | samples and positions, of each channel | Ioffe and Szegedy, 2015 |
| layer | channels and positions, of each sample | Ba et al., 2016 |
| instance | positions, of each sample and channel | Ulyanov et al., 2016 |
| group | positions and a group of channels, of each sample | Wu and He, 2018 |
| rms | as layer, without the mean | Zhang and Sennrich, 2019 |

`layer` of an image is over [C, H, W], as its paper, the group norm's (one group) and switchable norm's have it; ConvNeXt's, over the
channels of each pixel by itself, is another one. Tokens [N, T, C] are each normalized by themselves: `layer`, `rms` and `group` see one
token's channels.
Shapes: N samples of this rank, C channels, T tokens.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from torchstone.core import ranks
from torchstone.core.errors import UserError
from torchstone.nn.about import About
from torchstone.nn.switchable import SwitchableNorm

Norm = Literal["batch", "layer", "instance", "group", "rms", "switchable", "frozen_batch", "none"]
NORMS: tuple[Norm, ...] = get_args(Norm)
OVER_TOKENS = ("batch", "instance", "switchable")
"""Statistics over the positions: in a model that predicts the next token each would see what follows it."""

MOST_GROUPS = 32
"""Groups of a group norm: the paper's."""
FEWEST_CHANNELS = {0: 16, 2: 2}
"""Channels in a group at least, by the positions' dimensions: a group of one number would be nothing, and 16 is the paper's other form."""


def norm_layer(name: Norm, channels: int, dims: int, *, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module:
    """The norm for [N, C] (dims 0), [N, C, T] (1) or images [N, C, H, W] (2), with trained scale and shift where its paper has them.

    Raises UserError for instance norm of vectors.
    """
    match name:
        case "batch":
            return (nn.BatchNorm2d if dims == 2 else nn.BatchNorm1d)(channels, eps, momentum)
        case "layer":
            return nn.GroupNorm(1, channels, eps)
        case "instance":
            if dims == 0:
                raise UserError("norm=instance is over the positions of a channel, and a vector has one number there; use layer or batch")
            return InstanceNorm(channels, eps)
        case "group":
            return nn.GroupNorm(groups_of(channels, FEWEST_CHANNELS[min(dims, 1) * 2]), channels, eps)
        case "rms":
            return RMSNorm(channels, eps)
        case "switchable":
            return SwitchableNorm(channels, dims, eps, momentum)
        case "frozen_batch":
            return FrozenBatchNorm(channels, eps)
        case "none":
            return nn.Identity()


def token_norm(name: Norm, channels: int, *, eps: float = 1e-5, bias: bool = True) -> nn.Module:
    """The norm for tokens [N, T, C]; `bias` False leaves layer norm's shift out. Those of `OVER_TOKENS` mix the tokens of a text."""
    match name:
        case "layer":
            return nn.LayerNorm(channels, eps, bias=bias)
        case "rms":
            return nn.RMSNorm(channels, eps=eps)
        case "none":
            return nn.Identity()
        case "group" | "frozen_batch":
            return EachToken(norm_layer(name, channels, 0, eps=eps))
    return ChannelsFirst(norm_layer(name, channels, 1, eps=eps))


def groups_of(channels: int, fewest: int) -> int:
    """The largest number of groups that divides the channels, is at most 32, and leaves `fewest` channels in each (1 where none does)."""
    return max((g for g in range(1, MOST_GROUPS + 1) if channels % g == 0 and channels // g >= fewest), default=1)


def has_shift(name: str) -> bool:
    """Whether the norm adds a trained shift, so that the layer in front of it needs no bias."""
    return name not in ("rms", "none")


def zero_branch(norm: nn.Module, last: nn.Module) -> None:
    """Lets a residual branch start at 0: by the scale of the norm that ends it, or, where that has none to train, by its last layer.

    Goyal et al., 2017, https://arxiv.org/abs/1706.02677, section 5.1; without a norm: Zhang et al., "Fixup Initialization", 2019,
    https://arxiv.org/abs/1901.09321, section 3.
    """
    weight = getattr(norm, "weight", None)
    nn.init.zeros_(weight if isinstance(weight, nn.Parameter) else last.weight)  # type: ignore[arg-type]


class InstanceNorm(nn.Module):
    """Each channel of each sample to mean 0 and variance 1 over its positions, then scaled and shifted. Has no running statistics."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C ..."]:
        if x[0:1, 0:1].numel() == 1:
            raise UserError(f"norm=instance: channels of one position ({list(x.shape[1:])}) leave nothing of the image; use group or batch")
        return F.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """Each sample over the root mean square of its channels and positions, times a trained scale for each channel.

    Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467, eq. 4.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C ..."]:
        square = x.to(torch.promote_types(x.dtype, torch.float32)).square().mean(dim=tuple(range(1, x.ndim)), keepdim=True)
        scale = torch.rsqrt(square + self.eps) * self.weight.view([-1] + [1] * (x.ndim - 2))
        return x * scale.to(x.dtype)


class FrozenBatchNorm(nn.Module):
    """A batch norm that has stopped: statistics, scale and shift are constants, under a batch norm's names, so its weights load.

    As detection and fine-tuning with small batches use it (He et al., "Mask R-CNN", 2017, https://arxiv.org/abs/1703.06870, section 3.1,
    after He et al., 2015). With its first values it is the identity: it is there for weights trained before.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C ..."]:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)


class EachToken(nn.Module):
    """A norm of vectors [N, C], for each token [N, T, C] by itself."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Float[Tensor, "N T C"]) -> Float[Tensor, "N T C"]:
        return self.norm(x.flatten(0, 1)).view(x.shape)


class ChannelsFirst(nn.Module):
    """A norm of [N, C, T], for tokens [N, T, C]."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Float[Tensor, "N T C"]) -> Float[Tensor, "N T C"]:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class SyncBatchNorm(_BatchNorm):
    """nn.BatchNorm1d/2d/3d over the joined batch of all ranks, whose shares may be uneven or empty. (PyTorch's own refuses the CPU.)

    In training every rank must run the layer, forward and backward: its sums are collectives. In evaluation mode it is local, so a layer
    frozen by `eval()` must be frozen on all ranks. On one rank, without `valid_rows`, it *is* PyTorch's layer, bit for bit.
    """

    valid_rows: int | None = None
    """Rows from this one on only pad a rank's share: normalized, but not part of the statistics."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"SyncBatchNorm needs [N, C, ...], got {tuple(input.shape)}")

    def forward(self, input: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C ..."]:
        by_batch = self.training or self.running_mean is None
        padded = self.valid_rows is not None and self.valid_rows < len(input)
        if not by_batch or (ranks.world() == 1 and not padded):
            return super().forward(input)
        self._check_input_dim(input)

        x = input.to(torch.promote_types(input.dtype, torch.float32))
        valid = x[: self.valid_rows]
        reduced = [d for d in range(x.ndim) if d != 1]
        channels = [1, -1] + [1] * (x.ndim - 2)
        # Two passes, mean first: a one-pass sum of squares would lose the variance of channels far from zero.
        count = valid.new_full((1,), valid.numel() // x.shape[1])
        sums = ranks.sum_with_gradient(torch.cat([valid.sum(dim=reduced), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total.clamp(min=1)
        squares = ranks.sum_with_gradient((valid - mean.view(channels)).square().sum(dim=reduced))
        variance = squares / total.clamp(min=1)
        if self.training:
            self._track(mean.detach(), squares.detach(), total)

        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        y = (x - mean.view(channels)) * scale.view(channels)
        if self.bias is not None:
            y = y + self.bias.view(channels)
        return y.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, squares: Tensor, total: Tensor) -> None:
        """Moves the running statistics towards the mean and the unbiased variance; an empty batch leaves them."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        some = total > 0
        self.num_batches_tracked += some
        # In the buffers' own precision: a tensor made of a bool and a float would be float32.
        rate = some.to(self.running_mean.dtype)
        rate = rate * self.momentum if self.momentum is not None else rate / self.num_batches_tracked.clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_((squares / (total - 1).clamp(min=1)).to(self.running_var.dtype), rate)


def synchronize(model: nn.Module) -> nn.Module:
    """Turns every nn.BatchNorm1d/2d/3d of `model` into a SyncBatchNorm, in place; names, parameters and buffers are the same objects.
    A SwitchableNorm stays itself and joins its batch statistics over the ranks.

    Returns the model (another object only where the model is itself a batch norm).
    """
    made: dict[nn.Module, SyncBatchNorm] = {}
    for module in list(model.modules()):
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            made[module] = _converted(module)
        elif isinstance(module, SwitchableNorm):
            module.joined = True
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child in made:
                setattr(parent, name, made[child])
    return made.get(model, model)


def freeze_batch_norm(model: nn.Module) -> nn.Module:
    """Turns every batch norm of `model` into a FrozenBatchNorm with its present values, in place; returns the model.

    Raises UserError for a switchable norm, whose other statistics are each sample's own and cannot stop.
    """
    made: dict[nn.Module, FrozenBatchNorm] = {}
    for module in list(model.modules()):
        if isinstance(module, SwitchableNorm):
            raise UserError("a switchable norm cannot be frozen: its instance and layer statistics are each sample's own")
        if isinstance(module, _BatchNorm):
            made[module] = frozen = FrozenBatchNorm(module.num_features, module.eps)
            frozen.to(next(iter(module.state_dict().values()), torch.empty(())).device)
            frozen.load_state_dict(module.state_dict(), strict=False)  # one without scale, shift or statistics keeps 1, 0 and 0, 1
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child in made:
                setattr(parent, name, made[child])
    return made.get(model, model)


def _converted(norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> SyncBatchNorm:
    new = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta")
    new._parameters = norm._parameters
    new._buffers = norm._buffers
    new.training = norm.training
    return new


def set_valid_rows(model: nn.Module, rows: int | None) -> None:
    """Tells every synchronized norm of `model` how many rows of the coming micro-batch are real; None: all."""
    for module in model.modules():
        if isinstance(module, SyncBatchNorm | SwitchableNorm):
            module.valid_rows = rows


ABOUT: dict[str, About] = {
    "batch": About(
        "Each channel over the samples and positions of the batch in training, over running averages of them in evaluation.",
        "(x - mean_NHW) / sqrt(var_NHW + eps) * weight + bias",
        "Ioffe and Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167",
    ),
    "layer": About(
        "Each sample (of text: each token) over all its channels and positions.",
        "(x - mean_CHW) / sqrt(var_CHW + eps) * weight + bias",
        "Ba et al., Layer Normalization, 2016, https://arxiv.org/abs/1607.06450",
    ),
    "instance": About(
        "Each channel of each sample over its positions.",
        "(x - mean_HW) / sqrt(var_HW + eps) * weight + bias",
        "Ulyanov et al., Instance Normalization, 2016, https://arxiv.org/abs/1607.08022",
    ),
    "group": About(
        "Each sample over the positions and a group of channels: up to 32 groups, as many as divide the channels and leave two in each "
        "(16 for vectors and tokens).",
        "(x - mean_GHW) / sqrt(var_GHW + eps) * weight + bias",
        "Wu and He, Group Normalization, 2018, https://arxiv.org/abs/1803.08494",
    ),
    "rms": About(
        "Layer norm without the mean and without the shift.",
        "x / sqrt(mean_CHW(x^2) + eps) * weight",
        "Zhang and Sennrich, Root Mean Square Layer Normalization, 2019, https://arxiv.org/abs/1910.07467",
    ),
    "switchable": About(
        "A learned mixture of the statistics of instance, layer and batch norm, one for the means and one for the variances.",
        "(x - sum_k w_k mean_k) / sqrt(sum_k v_k var_k + eps) * weight + bias",
        "Luo et al., Differentiable Learning-to-Normalize, 2018, https://arxiv.org/abs/1806.10779",
    ),
    "frozen_batch": About(
        "Batch norm with constant statistics, scale and shift: for weights that were trained before.",
        "(x - running_mean) / sqrt(running_var + eps) * weight + bias",
        "He et al., Mask R-CNN, 2017, https://arxiv.org/abs/1703.06870",
    ),
    "none": About("No normalization; convolutions then have a bias.", "x", ""),
}
"""Every name's meaning."""
