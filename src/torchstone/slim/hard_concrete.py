"""Gates that learn which inputs of a layer it can do without; the penalty `l0` makes an open one cost.

Louizos et al., "Learning Sparse Neural Networks through L0 Regularization", 2018, https://arxiv.org/abs/1712.01312.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from torchstone.core.errors import UserError
from torchstone.nn.gate import HardConcreteGate

Gated = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True, kw_only=True, slots=True)
class HardConcrete:
    """A hard concrete gate on each input channel of every linear layer and convolution but the first, which reads the data.

    A closed gate (exactly 0 in evaluation) means that the weights behind it, and the unit that feeds it, can go. The paper's group
    sparsity on neurons; grouped convolutions get none. Put `penalties=[l0]` beside it, or nothing closes them. The gates belong to the
    model: they are stored with it, and prediction builds them again.
    """

    open: float = 0.5
    """sigmoid(log_alpha) of every gate at the start: 1 - the paper's dropout rate."""
    beta: float = 2 / 3
    """Temperature of the concrete distribution: the smaller, the more often a draw is 0 or 1."""
    low: float = -0.1
    """The distribution is stretched to (low, high) before it is clipped to [0, 1] (gamma in the paper)."""
    high: float = 1.1
    """See `low` (zeta in the paper)."""

    shipped: ClassVar[bool] = True
    """What it changes is part of the model that a run ships."""
    neutral: ClassVar["HardConcrete | None"] = None
    neutral_reason: ClassVar[str] = "gates are parameters of the model: they are there, or they are not"

    def __post_init__(self) -> None:
        if not 0 < self.open < 1:
            raise ValueError(f"HardConcrete.open must be in (0, 1), got {self.open}")
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"HardConcrete.beta must be finite and > 0, got {self.beta}")
        if not self.low < 0:
            raise ValueError(f"HardConcrete.low must be < 0, got {self.low}")
        if not self.high > 1:
            raise ValueError(f"HardConcrete.high must be > 1, got {self.high}")

    def __call__(self, model: nn.Module) -> nn.Module:
        """Adds `gate` to each such layer. Raises UserError for a model with none."""
        layers = [module for module in model.modules() if isinstance(module, Gated)][1:]
        layers = [module for module in layers if not isinstance(module, _ConvNd) or module.groups == 1]
        if not layers:
            raise UserError(f"model_transforms: hard_concrete needs a second linear layer or convolution, {type(model).__name__} has none")
        for layer in layers:
            channels = layer.weight.shape[1]
            dim = 1 if isinstance(layer, _ConvNd) else -1
            gate = HardConcreteGate(
                channels, layer.weight.numel() // channels, dim, open_=self.open, beta=self.beta, low=self.low, high=self.high
            )
            layer.gate = gate.to(layer.weight.device, layer.weight.dtype)
            layer.register_forward_pre_hook(through_gate)
        return model

    def apply(self, model: nn.Module, step: int, total: int) -> None:
        """Nothing moves with time."""


def through_gate(layer: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """As a forward pre-hook: reads the gate from the layer it is called for, so that a copy of a model has its own."""
    return (layer.gate(inputs[0]), *inputs[1:])  # type: ignore[operator]
