"""Batch transforms in turn, as the training step applies them.

Where warp, color jitter and normalize follow each other, each picture goes through them while it is in the cache: the warped picture is
never written down, and normalizing costs nothing beside the color's matrix. Shapes: N images.
"""

from collections.abc import Iterable
from dataclasses import replace

from jaxtyping import Int
from torch import Tensor

from torchstone.core.protocols import Batch, BatchTransform
from torchstone.data.batch_transforms.color import ColorJitter
from torchstone.data.batch_transforms.normalize import Normalize, normalized
from torchstone.data.batch_transforms.warp import Warp
from torchstone.ops.color import recolor

_TOGETHER = (Warp, ColorJitter, Normalize)
"""Kinds that go through a picture together, in this order; any of them may be missing."""


def in_turn(batch: Batch, drawn: Iterable[tuple[BatchTransform, Int[Tensor, " N"]]]) -> Batch:
    """The batch after each transform with its keys. The same as one call after the other, to rounding."""
    todo = [(transform, keys) for transform, keys in drawn if not (isinstance(transform, Warp | ColorJitter) and transform.off)]
    while todo:
        count = _together([transform for transform, _ in todo])
        if count > 1:
            batch = _in_one_pass(batch, {type(transform): (transform, keys) for transform, keys in todo[:count]})
        else:
            transform, keys = todo[0]
            batch = transform(batch, keys)
        todo = todo[max(count, 1) :]
    return batch


def _together(transforms: list[BatchTransform]) -> int:
    """How many of the first ones go through a picture together."""
    count = 0
    for kind in _TOGETHER:
        count += count < len(transforms) and type(transforms[count]) is kind
    return count


def _in_one_pass(batch: Batch, run: dict[type, tuple]) -> Batch:
    images, pieces, numbers = batch.inputs, None, ((0.0,), (1.0,))
    if Warp in run:
        warp, keys = run[Warp]
        pieces = warp.pieces(images, keys)
    if Normalize in run:
        numbers = run[Normalize][0].numbers()
    if ColorJitter not in run:
        return replace(batch, inputs=normalized(images, *numbers, pieces=pieces))
    jitter, keys = run[ColorJitter]
    mean, std = numbers
    return replace(batch, inputs=recolor(images, *jitter.matrices(keys, images.shape[1]), mean=mean, std=std, pieces=pieces))
