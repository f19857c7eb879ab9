"""Model to model: what rewrites a model once, or writes numbers inside it at each step."""

from torchstone.slim.drop_path import DropPathRamp

ModelTransform = DropPathRamp

__all__ = ["DropPathRamp", "ModelTransform"]
