"""What prediction does to samples too: the transforms that are not `train_only`."""

from collections.abc import Iterable
from typing import TypeVar

import torch

from torchstone.core.protocols import Batch, BatchTransform, SampleTransform

T = TypeVar("T", bound=SampleTransform | BatchTransform)


def steady(transforms: Iterable[T]) -> tuple[T, ...]:
    """Those that an evaluation and a prediction apply as training does, in their order."""
    return tuple(transform for transform in transforms if not transform.train_only)


def as_evaluated(batch: Batch, transforms: Iterable[BatchTransform]) -> Batch:
    """The batch after the steady ones of the batch transforms. They draw nothing, so every key is 0."""
    for transform in steady(transforms):
        batch = transform(batch, torch.zeros_like(batch.index))
    return batch
