"""A drop-path rate that grows over the training: no noise while the model learns the rough shape, more against overfitting later.

Over the depth: Huang et al., "Deep Networks with Stochastic Depth", 2016, https://arxiv.org/abs/1603.09382.
Over time: Morerio et al., "Curriculum Dropout", 2017, https://arxiv.org/abs/1703.06229; here linear.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from torchstone.core.errors import UserError
from torchstone.nn import DropPath


@dataclass(frozen=True, kw_only=True, slots=True)
class DropPathRamp:
    """Drop path from 0 at the first step up to `rate`, linear in time, and linear in depth inside the model."""

    rate: float = 0.1
    """Probability that the last block's branch is left out for a sample, at the end of the ramp; 0 is no drop path."""
    share: float = 1.0
    """Share of the run over which the rate grows; after that it stays."""

    neutral: ClassVar["DropPathRamp"]

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"DropPathRamp.rate must be in [0, 1), got {self.rate}")
        if not 0 < self.share <= 1:
            raise ValueError(f"DropPathRamp.share must be in (0, 1], got {self.share}")

    def __call__(self, model: nn.Module) -> nn.Module:
        """Switches the model's DropPath layers on. Raises UserError where there are none, or where the model's own rate is set."""
        if self.rate == 0:
            return model
        layers = [module for module in model.modules() if isinstance(module, DropPath)]
        if not layers:
            raise UserError(f"model_transforms: drop_path_ramp needs a model with residual branches, {type(model).__name__} has none")
        if any(layer.enabled for layer in layers):
            raise UserError("model_transforms: drop_path_ramp writes the drop-path rate, so model.drop_path must be 0")
        for layer in layers:
            layer.enabled = True
        return model

    def apply(self, model: nn.Module, step: int, total: int) -> None:
        """Writes the rate of update `step` of `total`, counted from 0."""
        if self.rate == 0:
            return
        rate = self.rate * min(1.0, step / (self.share * total))
        for module in model.modules():
            if isinstance(module, DropPath):
                module.rate.fill_(rate * module.depth_share)


DropPathRamp.neutral = DropPathRamp(rate=0.0)
