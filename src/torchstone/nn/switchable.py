"""Switchable normalization: the network learns, layer by layer, how much of instance, layer and batch normalization to use.

Luo et al., "Differentiable Learning-to-Normalize via Switchable Normalization", 2018 (ICLR 2019), https://arxiv.org/abs/1806.10779, eq. 3
to 5; the batch's statistics are moving averages in evaluation, as in the authors' code.
Shapes: N samples of this rank, C channels, K = 3 normalizers (instance, layer, batch), 2 for vectors, which have no instance statistics.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from torchstone.core import ranks


class SwitchableNorm(_BatchNorm):
    """(x - sum_k w_k mean_k) / sqrt(sum_k v_k var_k + eps) * weight + bias over [N, C] or [N, C, ...].

    w and v are softmaxes of trained numbers, one each of the normalizers for the means and for the variances.
    Variances divide by the count. A batch norm to whatever asks: it has running statistics (of the batch's part alone), and `synchronize`
    makes them those of all ranks.
    """

    joined = False
    """The batch's statistics are those of the joined batch of all ranks."""
    valid_rows: int | None = None
    """Rows from this one on only pad a rank's share: normalized, but not part of the batch's statistics."""

    def __init__(self, channels: int, dims: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, eps, momentum)
        self.normalizers = 3 if dims > 0 else 2
        self.mean_weight = nn.Parameter(torch.zeros(self.normalizers))
        self.var_weight = nn.Parameter(torch.zeros(self.normalizers))

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"SwitchableNorm needs [N, C, ...], got {tuple(input.shape)}")

    def forward(self, input: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C ..."]:
        x = input.to(torch.promote_types(input.dtype, torch.float32)).flatten(2) if input.ndim > 2 else input[..., None]
        # Of no samples it would warn.
        var_in, mean_in = torch.var_mean(x, dim=2, correction=0) if len(x) else (x.sum(dim=2), x.sum(dim=2))
        mean_ln = mean_in.mean(dim=1, keepdim=True)
        # The variance of a union: the mean of the variances and the variance of the means.
        var_ln = (var_in + (mean_in - mean_ln).square()).mean(dim=1, keepdim=True)
        mean_bn, var_bn = self._batch_statistics(mean_in, var_in)
        w, v = self.mean_weight.softmax(dim=0), self.var_weight.softmax(dim=0)
        mean = w[-2] * mean_ln + w[-1] * mean_bn
        var = v[-2] * var_ln + v[-1] * var_bn
        if self.normalizers == 3:
            mean, var = mean + w[0] * mean_in, var + v[0] * var_in
        scale = torch.rsqrt(var + self.eps) * self.weight
        y = torch.addcmul((self.bias - mean * scale)[..., None], x, scale[..., None])
        return y.to(input.dtype).view(input.shape)

    def _batch_statistics(self, mean_in: Float[Tensor, "N C"], var_in: Float[Tensor, "N C"]) -> tuple[Tensor, Tensor]:
        """(mean [C], variance [C]): the batch's in training, the running ones in evaluation."""
        if not self.training:
            return self.running_mean, self.running_var  # type: ignore[return-value]
        mean_in, var_in = mean_in[: self.valid_rows], var_in[: self.valid_rows]
        count = mean_in.new_full((1,), len(mean_in))
        sums = torch.cat([mean_in.sum(dim=0), count])
        sums = ranks.sum_with_gradient(sums) if self.joined else sums
        total = sums[-1].detach().clamp(min=1)
        mean = sums[:-1] / total
        squares = (var_in + (mean_in - mean).square()).sum(dim=0)
        var = (ranks.sum_with_gradient(squares) if self.joined else squares) / total
        self._track(mean.detach(), var.detach(), sums[-1].detach() > 0)
        return mean, var

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, some: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += some
        rate = some.to(self.running_mean.dtype) * (self.momentum or 0.0)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(var.to(self.running_var.dtype), rate)
