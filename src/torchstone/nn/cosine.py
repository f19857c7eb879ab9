"""A layer of directions: its outputs are cosines between the input and one direction a class.

Wang et al., "NormFace: L2 Hypersphere Embedding for Face Verification", 2017, https://arxiv.org/abs/1704.06369.
Shapes: `...` any, D features, C classes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class CosineLinear(nn.Module):
    """cos(x, w_c) for each of C directions w_c: no bias, lengths do not matter."""

    def __init__(self, weight: Float[Tensor, "C D"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... C"]:
        x = x.float() if x.dtype.itemsize < 4 else x
        return F.linear(F.normalize(x, dim=-1), F.normalize(self.weight.to(x.dtype), dim=-1))

    @classmethod
    def like(cls, linear: nn.Linear) -> "CosineLinear":
        """With the directions of a linear layer's weights; random ones where those are all 0."""
        weight = linear.weight.detach()
        if not weight.any():
            columns = torch.arange(weight.numel(), dtype=torch.float64).add(1).mul(0.6180339887498949)
            weight = columns.frac().sub(0.5).to(weight).view_as(weight)  # a zero vector has no direction; golden-ratio fractions spread
        return cls(weight)
