"""Initial weights.

He et al., "Delving Deep into Rectifiers", 2015, https://arxiv.org/abs/1502.01852, eq. 10, and GPT-2's rule for residual branches.
"""

import math

from torch import Tensor, nn


def fan_in_normal_(weight: Tensor, gain: float = math.sqrt(2.0)) -> None:
    """Fills a linear [out, in] or convolution [out, in, ...] weight with N(0, gain^2 / fan_in); the default gain suits ReLU."""
    nn.init.normal_(weight, std=gain / math.sqrt(max(weight[0].numel(), 1)))


def residual_scale(depth: int) -> float:
    """1 / sqrt(2 depth): the factor on the last weight of each of `depth` blocks' two branches, so their sum keeps a branch's variance.

    Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.3.
    """
    return 1.0 / math.sqrt(2.0 * depth)
