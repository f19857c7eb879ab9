"""What a loss reads: the layouts of outputs and targets, by a word each. A task says which it gives, a loss which it takes.

Shapes: N examples, `...` the terms, C classes, K labels, D embedding dimensions, T frames, S symbols, Q queries, M objects.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchstone.core.errors import UserError, warn
from torchstone.core.parts import kind_of

LAYOUTS: dict[str, str] = {
    "classes": "logits of classes and a class (or a probability of each class)",
    "cosines": "cosines to one direction a class (a cosine head's outputs) and a class",
    "log_probabilities": "log-probabilities of classes and a class",
    "probabilities": "probabilities and targets in [0, 1] of the same shape",
    "labels": "a logit for each of several labels and 0 or 1 for each",
    "values": "numbers and true numbers of the same shape",
    "gaussian": "a mean and a variance for each true number (losses.Gaussian)",
    "signs": "one number an example and a target of 1 or -1",
    "pairs": "pairs (losses.Pair) and a target of 1 or -1",
    "views": "pairs (losses.Pair) of embeddings of the same thing and an integer that names the thing",
    "embeddings": "embeddings and a class of each",
    "sequences": "logits at each frame and a shorter row of symbols (losses.Frames, losses.Symbols)",
    "boxes": "predicted boxes and the true box of each",
    "quality": "logits of classes and, for each, an overlap in [0, 1] that is 0 where the class is not there",
    "distances": "logits of whole distances and a true distance",
    "detections": "a set of guesses (losses.Detections) and a set of objects (losses.Objects)",
}
"""Word -> outputs and target."""

FITTING: dict[str, str] = {"classes": "cross_entropy", "cosines": "arcface", "values": "mse", "embeddings": "triplet"}
"""Layout -> the loss that an error message recommends."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two outputs for each example: scores [N] or embeddings [N D]."""

    first: Float[Tensor, "N *D"]
    second: Float[Tensor, "N *D"]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A normal distribution for every number."""

    mean: Float[Tensor, "... F"]
    variance: Float[Tensor, "... F"]


@dataclass(frozen=True, slots=True)
class Frames:
    """Logits of symbols at each frame; of row n the first `lengths[n]` frames count."""

    logits: Float[Tensor, "N T C"]
    lengths: Int[Tensor, " N"]


@dataclass(frozen=True, slots=True)
class Symbols:
    """Rows of symbols; of row n the first `lengths[n]` count."""

    symbols: Int[Tensor, "N S"]
    lengths: Int[Tensor, " N"]


@dataclass(frozen=True, slots=True)
class Detections:
    """Q guesses an image: logits of C classes and, last, of "no object"; boxes as shares of the image."""

    logits: Float[Tensor, "N Q C1"]
    boxes_cxcywh: Float[Tensor, "N Q 4"]


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of each image, padded to M with class -1; boxes as shares of the image."""

    classes: Int[Tensor, "N M"]
    boxes_cxcywh: Float[Tensor, "N M 4"]


def require_fit(loss: Any, task: Any, transforms: tuple[Any, ...] = ()) -> None:
    """Raises UserError when the task's outputs are not what the loss takes. A loss that does not say what it takes is let through."""
    takes, gives = getattr(loss, "takes", None), getattr(task, "gives", None)
    if takes is None or gives is None:
        return
    given = {gives} | {word for transform in transforms for word in getattr(transform, "gives", ())}
    if given & set(takes):
        return
    wanted = " or ".join(LAYOUTS[word] for word in takes)
    way = "put model_transforms+=cosine_head before it, or " if "cosines" in takes and gives == "classes" else ""
    fits = f": {way}method.loss={FITTING[gives]} fits" if gives in FITTING else ""
    raise UserError(f"method.loss={kind_of(loss)} takes {wanted}; task={kind_of(task)} gives {LAYOUTS[gives]}{fits}")


def may_be_told(loss: Any) -> bool:
    """Whether probabilities would be a mistake: the loss takes logits of classes, and nothing that may be any number."""
    takes = getattr(loss, "takes", ())
    return "classes" in takes and "values" not in takes


def tell_probabilities(loss: Any, outputs: Any) -> bool:
    """Warns, once, when a loss that takes logits of classes gets rows that are probabilities already. Returns whether it did."""
    if not may_be_told(loss) or not isinstance(outputs, Tensor) or outputs.ndim < 2 or outputs.shape[-1] < 2:
        return False
    rows = outputs.detach().float().flatten(0, -2)
    if len(rows) == 0 or bool((rows < 0).any()) or bool(((rows.sum(dim=-1) - 1).abs() > 1e-3).any()):
        return False
    warn(
        f"the model's outputs look like probabilities (no number of {len(rows)} rows is negative and each row adds up to 1), and "
        f"method.loss={kind_of(loss)} takes logits, on which it does the softmax or sigmoid itself: leave out the model's own"
    )
    return True


def ones(target: Tensor, dims: int) -> Float[Tensor, "..."]:
    """The weight 1 for every term of a target whose last `dims` dimensions belong to one term."""
    shape = target.shape[: target.ndim - dims]
    return torch.ones(shape, device=target.device)
