"""Functions over every tensor of a sample or batch: a tensor, or a dict, tuple or frozen dataclass of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchstone.core.protocols import PyTree


def map_leaves(function: Callable[..., Any], tree: PyTree, *others: PyTree) -> PyTree:
    """`function` of the tensors at the same place of all trees, which have the form of the first."""
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if isinstance(tree, dict):
        return {name: map_leaves(function, value, *(other[name] for other in others)) for name, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map_leaves(function, *parts) for parts in zip(tree, *others, strict=True))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = [field.name for field in dataclasses.fields(tree)]
        parts = {name: map_leaves(function, getattr(tree, name), *(getattr(other, name) for other in others)) for name in names}
        return dataclasses.replace(tree, **parts)
    raise TypeError(f"a sample is made of tensors in dicts, tuples and dataclasses, got {type(tree).__name__}")
