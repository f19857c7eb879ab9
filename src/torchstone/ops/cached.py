"""Rows a few at a time: each pass over them reads what the one before wrote from the processor's second-level cache."""

from collections.abc import Iterator

from jaxtyping import Shaped
from torch import Tensor

_NUMBERS = 1 << 18
"""As many stay in the cache."""


def a_few_at_a_time(x: Shaped[Tensor, "N *rest"]) -> Iterator[tuple[slice, Shaped[Tensor, "K *rest"]]]:
    """(which rows, those rows) of pieces that stay in a CPU's cache; an accelerator gets them all as one."""
    step = max(1, _NUMBERS // max(1, x[:1].numel())) if x.device.type == "cpu" else max(1, len(x))
    for start in range(0, len(x), step):
        some = slice(start, start + step)
        yield some, x[some]
