"""Batch normalization whose statistics are those of the whole batch over all ranks, on any device.

Ioffe and Szegedy, "Batch Normalization", 2015, https://arxiv.org/abs/1502.03167. (PyTorch's SyncBatchNorm refuses the CPU.)
Shapes: N samples of this rank, C channels.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from torchstone.core import ranks


class SyncBatchNorm(_BatchNorm):
    """nn.BatchNorm1d/2d/3d over the joined batch of all ranks, whose shares may be uneven or empty.

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

    Returns the model (another object only where the model is itself a batch norm).
    """
    made: dict[nn.Module, SyncBatchNorm] = {}
    for module in list(model.modules()):
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            made[module] = _converted(module)
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
    """Tells every SyncBatchNorm of `model` how many rows of the coming micro-batch are real; None: all."""
    for module in model.modules():
        if isinstance(module, SyncBatchNorm):
            module.valid_rows = rows
