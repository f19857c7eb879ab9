"""What training leaves out at random, so that nothing can rely on it: whole branches, squares of a map, words. All off in evaluation.

Drop path: Huang et al., "Deep Networks with Stochastic Depth", 2016, https://arxiv.org/abs/1603.09382, sections 3 and 4 (linear decay over
the depth). Single numbers are left out by PyTorch's own dropout (Srivastava et al., 2014).
The draws come from the default generator, which the step seeds.
Shapes: N samples, C channels, H x W positions, T tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


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


class DropBlock(nn.Module):
    """Zeroes squares of `size` pixels of each map, about `rate` of all pixels, and scales the rest so that the sum of the mask stays.

    Ghiasi et al., "DropBlock", 2018, https://arxiv.org/abs/1810.12890, algorithm 1 and eq. 1: neighboring pixels know the same, so a pixel
    left out alone is hardly missed. Squares lie whole inside the map; on one smaller than a square, the square is as large as the shorter
    side. (The paper's count is of the whole batch; here of each sample, so that a row does not depend on its neighbors.)
    """

    def __init__(self, rate: float, size: int = 7) -> None:
        super().__init__()
        self.rate, self.size = rate, size

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        if not (self.rate and self.training):
            return x
        height, width = x.shape[2:]
        size = min(self.size, height, width)
        inside = (height - size + 1, width - size + 1)
        gamma = self.rate * height * width / (size**2 * inside[0] * inside[1])
        corner = (torch.rand(*x.shape[:2], *inside, device=x.device) < gamma).to(x.dtype)
        dropped = F.max_pool2d(F.pad(corner, (size - 1,) * 4), size, stride=1)
        kept = 1 - dropped
        share = kept.mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float32)
        return x * (kept / share.clamp(min=1 / kept[:1].numel() if len(kept) else 1.0)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}, size={self.size}"


class WordDropout(nn.Module):
    """Leaves whole tokens out of the embedded sequence: their vectors are 0, the others scaled by 1 / (1 - rate).

    Iyyer et al., "Deep Unordered Composition Rivals Syntactic Methods", 2015, section 3.2. The positions stay: a model that adds them knows
    that something was there.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "N T C"]) -> Float[Tensor, "N T C"]:
        if not (self.rate and self.training):
            return x
        kept = torch.rand(*x.shape[:2], 1, device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"
