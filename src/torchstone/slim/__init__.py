"""Model to model: what rewrites a model once, or writes numbers inside it at each step."""

from torchstone.slim.cosine_head import CosineHead
from torchstone.slim.drop_path import DropPathRamp
from torchstone.slim.hard_concrete import HardConcrete

ModelTransform = CosineHead | DropPathRamp | HardConcrete

__all__ = ["CosineHead", "DropPathRamp", "HardConcrete", "ModelTransform"]
