"""Which parameters share a rate and a decay."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from torchstone.core.protocols import Group


@dataclass(frozen=True, kw_only=True, slots=True)
class NoDecay:
    """No weight decay on vectors and scalars: biases, and the scales and shifts of norms.

    Goyal et al., "Accurate, Large Minibatch SGD", 2017, https://arxiv.org/abs/1706.02677, section 5.3, for batch norm;
    He et al., "Bag of Tricks for Image Classification", 2019, https://arxiv.org/abs/1812.01187, section 3.1, for all vectors.
    """

    neutral: ClassVar["NoDecay | None"] = None
    neutral_reason: ClassVar[str] = "it has no number: vectors decay, or they do not"

    def __call__(self, model: nn.Module) -> Sequence[Group]:
        decayed, free = [], []
        for name, p in model.named_parameters():
            (decayed if p.ndim >= 2 else free).append(name)
        return Group(tuple(decayed)), Group(tuple(free), decay_scale=0.0)
