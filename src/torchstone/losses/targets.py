"""A classification target is class indices or probabilities: what every loss over classes needs to read both.

Shapes: `...` the terms (N examples, or N x T tokens), C classes.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Target = Int[Tensor, "..."] | Float[Tensor, "... C"]


def expectation(target: Target, values: Float[Tensor, "... C"]) -> Float[Tensor, "..."]:
    """Mean of `values` under the target: gathered for indices, summed for probabilities.

    Indices lie in [0, C); replace ignored ones first (`without_ignored`).
    """
    if target.is_floating_point():
        return (target.to(values.dtype) * values).sum(dim=-1)
    return values.gather(-1, target.long().unsqueeze(-1)).squeeze(-1)


def without_ignored(target: Int[Tensor, "..."], ignore_index: int) -> tuple[Int[Tensor, "..."], Bool[Tensor, "..."]]:
    """(the target with class 0 in place of ignored entries, which entries are kept)."""
    kept = target != ignore_index
    return torch.where(kept, target, 0), kept


def full_precision(logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """bfloat16 and float16 as float32: a log-softmax in half precision loses the loss's leading digits."""
    return logits.float() if logits.dtype.itemsize < 4 else logits
