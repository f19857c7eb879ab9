"""Drop path (stochastic depth): a residual branch is left out for a random part of the samples.

Huang et al., "Deep Networks with Stochastic Depth", 2016, https://arxiv.org/abs/1603.09382, sections 3 and 4 (linear decay over the depth).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes whole samples with probability `rate` and scales the others by 1 / (1 - rate); the identity in evaluation or if not enabled.

    Every residual branch of a model ends in one, so that a transform finds it. `rate` is a 0-d tensor: a schedule may write it at each step
    without a recompilation. Whether it is read at all is the Python flag `enabled`, so a branch without drop path draws nothing.
    The draw comes from the default generator, which the step seeds.
    """

    rate: Tensor

    def __init__(self, rate: float = 0.0, depth_share: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(rate * depth_share, dtype=torch.float32), persistent=False)
        self.depth_share = depth_share
        """The factor on a model's rate here: 0 at the first block, 1 at the last."""
        self.enabled = rate > 0

    def forward(self, x: Float[Tensor, "N ..."]) -> Float[Tensor, "N ..."]:
        if not (self.enabled and self.training):
            return x
        kept = torch.rand(x.shape[:1] + (1,) * (x.ndim - 1), device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"depth_share={self.depth_share:g}, enabled={self.enabled}"


def drop_path_shares(depth: int) -> list[float]:
    """The `depth_share` of each of `depth` blocks: linear from 0 to 1. A single block gets 1."""
    return [i / (depth - 1) for i in range(depth)] if depth > 1 else [1.0]
