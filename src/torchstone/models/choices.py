"""What every model lets one choose by name: activation, norm, initial weights, what is dropped; and the layers these make for images."""

from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from torchstone.core.tree import slots_of
from torchstone.nn import Activation, DropBlock, Norm, activation_layer, has_shift, norm_layer

SHARES = ("dropout", "drop_path", "drop_block", "word_dropout")
NO_BRANCH = "it has no residual branch that a sample could do without; dropout leaves out single numbers"


def check_choices(config: Any) -> None:
    """Raises ValueError, naming the field, for a choice that its annotation does not allow and for shares not in [0, 1)."""
    name, slots = type(config).__name__, slots_of(type(config))
    for field in ("activation", "norm", "attention_scale"):
        if field in slots and getattr(config, field) not in slots[field].words:
            raise ValueError(f"{name}.{field} must be one of {', '.join(map(str, slots[field].words))}, got {getattr(config, field)}")
    for field in SHARES:
        if field in slots and not 0 <= getattr(config, field) < 1:
            raise ValueError(f"{name}.{field} must be in [0, 1), got {getattr(config, field)}")


def check_trunk(config: Any) -> None:
    """Raises ValueError for an activation that cannot stand behind the sum of a block and its shortcut, block after block."""
    if config.activation == "squared_relu":
        raise ValueError(
            f"{type(config).__name__}.activation must not be squared_relu: it stands behind the sum with the shortcut, so that every block "
            "would square all that came before it, and numbers end; relu, gelu or silu grow no faster than their input"
        )


@dataclass(frozen=True, slots=True)
class Choices:
    """A config's choices as makers of layers for images."""

    activation: Activation
    norm: Norm
    drop_block: float = 0.0

    @classmethod
    def of(cls, config: Any) -> Self:
        return cls(config.activation, config.norm, getattr(config, "drop_block", 0.0))

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
        """A convolution that keeps the size (over the stride), in front of a norm: with a bias only where that has no shift."""
        return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=not has_shift(self.norm))

    def normed(self, channels: int) -> nn.Module:
        return norm_layer(self.norm, channels, 2)

    def activated(self, channels: int) -> Any:
        """A function, or a module where it has weights."""
        return activation_layer(self.activation, channels)

    def dropped(self, *, late: bool) -> nn.Module:
        """Drop block, which belongs into the last two stages (Ghiasi et al., 2018, section 4.1)."""
        return DropBlock(self.drop_block if late else 0.0)
