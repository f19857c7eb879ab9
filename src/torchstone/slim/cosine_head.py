"""A head of cosines in place of the last linear layer: what ArcFace, CosFace and LDAM read.

Wang et al., "NormFace", 2017, https://arxiv.org/abs/1704.06369; Deng et al., "ArcFace", 2018, https://arxiv.org/abs/1801.07698.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from torchstone.core.errors import UserError
from torchstone.nn.cosine import CosineLinear


@dataclass(frozen=True, kw_only=True, slots=True)
class CosineHead:
    """The model's last linear layer (`head`) gives the cosine between the features and one direction a class.

    The first directions are those of the layer's weights. Meant for losses that read cosines and bring their own scale (arcface, ldam).
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a head of cosines has no setting in which it is a linear layer"
    gives: ClassVar[tuple[str, ...]] = ("cosines",)
    shipped: ClassVar[bool] = True
    """What it changes is part of the model that a run ships."""

    def __call__(self, model: nn.Module) -> nn.Module:
        """Replaces the head. Raises UserError for a model without a linear one, or whose weights are tied to another layer's."""
        head = getattr(model, "head", None)
        if isinstance(head, CosineLinear):
            return model
        if not isinstance(head, nn.Linear):
            raise UserError(f"model_transforms: cosine_head needs a model that ends in a linear layer, {type(model).__name__} does not")
        if getattr(getattr(model, "config", None), "head_scale", 1.0) != 1.0:
            raise UserError("model_transforms: cosine_head needs model.head_scale=1: this model multiplies its head's outputs")
        if sum(parameter is head.weight for module in model.modules() for parameter in module.parameters(recurse=False)) > 1:
            raise UserError("model_transforms: cosine_head needs a head with weights of its own; this one shares them (model.tie=false)")
        model.head = CosineLinear.like(head).to(head.weight.device)
        return model

    def apply(self, model: nn.Module, step: int, total: int) -> None:
        """Nothing moves."""
