"""Rates by width: the best learning rate of a narrow network is that of a wide one.

Yang et al., "Tensor Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer", 2022,
https://arxiv.org/abs/2203.03466, table 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from torchstone.core.protocols import Group
from torchstone.nn.init import in_head, input_layer, layers_of, widening


@dataclass(frozen=True, kw_only=True, slots=True)
class MuP:
    """Maximal update parametrization, the rates' half; `model.init=mup` at the same base is the weights' half.

    With m = width / base, under Adam (and kin: updates of a size of their own) the matrices behind the first layer and the head learn at
    1 / m; under SGD the head at 1 / m, the first layer and all vectors at m. Decay per update stays: where the rate is divided the decay is
    multiplied. Vectors do not decay. A transformer keeps its heads' size and gets more of them, so that attention can be divided by the
    root of that size; where wider heads are meant, `model.attention_scale=inverse` divides by the size itself (definition 4.1).
    """

    neutral: ClassVar["MuP | None"] = None
    neutral_reason: ClassVar[str] = "at its base width it still is NoDecay, which has no neutral value"

    base: int = 128
    """The width at which the rate was found: the inputs (channels) of the narrowest layer behind the first."""
    updates: Literal["adam", "sgd"] = "adam"
    """adam: the size of an update does not follow the gradient's (Adam, Lion, ...). sgd: it does."""

    def __post_init__(self) -> None:
        if self.base < 1:
            raise ValueError(f"MuP.base must be >= 1, got {self.base}")
        if self.updates not in ("adam", "sgd"):
            raise ValueError(f"MuP.updates must be adam or sgd, got {self.updates}")

    def __call__(self, model: nn.Module) -> Sequence[Group]:
        """Four groups: what reads the data, hidden matrices, the head's, and vectors."""
        wider = widening(model, self.base)
        first, matrices = input_layer(model), {f"{name}.weight": layer for name, layer in layers_of(model)}
        names: dict[str, list[str]] = {"first": [], "hidden": [], "head": [], "vectors": []}
        for name, parameter in model.named_parameters():
            layer = matrices.get(name)
            depthwise = layer is not None and layer.weight.shape[1] == 1 and getattr(layer, "groups", 1) > 1
            if parameter.ndim < 2:
                names["vectors"].append(name)
            elif layer is None or layer is first or depthwise:  # embeddings too: their fan in does not grow
                names["first"].append(name)
            else:
                names["head" if in_head(name) else "hidden"].append(name)
        adam = self.updates == "adam"
        scales = {"first": 1.0 if adam else wider, "hidden": 1 / wider if adam else 1.0, "head": 1 / wider}
        scales["vectors"] = scales["first"]
        return [Group(tuple(each), scales[what], 0.0 if what == "vectors" else 1 / scales[what]) for what, each in names.items() if each]
