"""Normalize: every channel to mean 0 and standard deviation 1 over the training split.

LeCun et al., "Efficient BackProp", 1998, section 4.3. Shapes: N samples, C channels (or features) in dimension 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from torchstone.core.errors import UserError
from torchstone.core.protocols import Batch, Facts
from torchstone.ops.cached import a_few_at_a_time


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalize:
    """(x - mean) / std a channel. Batch inputs [N, C, ...], floats, or bytes v as v / 255, made float32. Applied in prediction too."""

    neutral: ClassVar["Normalize"]
    train_only: ClassVar[bool] = False
    group: ClassVar[int] = 1

    mean: tuple[float, ...] = ()
    """One number a channel, or one for all; empty: the training split's."""
    std: tuple[float, ...] = ()
    """The same; a channel that never varies counts as 1."""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"Normalize.mean and Normalize.std must have the same length, got {len(self.mean)} and {len(self.std)}")
        if not all(0 < value < float("inf") for value in self.std):
            raise ValueError(f"Normalize.std must be finite and > 0, got {self.std}")

    def resolve(self, facts: Facts) -> Self:
        """Mean and deviation of the training split, where none are given."""
        if not facts.mean:
            raise UserError(f"Normalize needs numbers with a mean, but the data are {type(facts.inputs).__name__}")
        if not self.mean:
            return replace(self, mean=facts.mean, std=tuple(value if value > 0 else 1.0 for value in facts.std))
        if len(self.mean) not in (1, len(facts.mean)):
            raise UserError(f"Normalize.mean has {len(self.mean)} numbers, but the data have {len(facts.mean)} channels")
        return self

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch:
        return replace(batch, inputs=normalized(batch.inputs, *self.numbers()))

    def numbers(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation, as they are once resolved."""
        if not self.mean:
            raise ValueError("Normalize.mean is empty: resolve(facts) fills it from the training split")
        return self.mean, self.std


Normalize.neutral = Normalize(mean=(0.0,), std=(1.0,))


def normalized(
    x: Shaped[Tensor, "N *rest"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    pieces: Iterable[tuple[slice, Float[Tensor, "K *rest"]]] | None = None,
) -> Shaped[Tensor, "N *rest"]:
    """(x - mean) / std. pieces: what has become of `x` meanwhile, a few rows at a time, bytes as floats 0 ... 255; none: `x` as it is."""
    if x.dtype == torch.uint8:  # (v / 255 - mean) / std without the pass that divides by 255
        dtype, unit = torch.float32, 255.0
    else:
        dtype, unit = x.dtype, 1.0
    means, stds = _columns(mean, std, unit, x.ndim, dtype, x.device)
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    for some, rows in a_few_at_a_time(x) if pieces is None else pieces:
        out[some].copy_(rows).sub_(means).div_(stds)
    return out


@lru_cache(maxsize=16)
def _columns(
    mean: tuple[float, ...], std: tuple[float, ...], unit: float, ndim: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Both times `unit` as tensors [C, 1, ...]; kept, because making them costs more than using them."""
    mean_, std_ = (
        torch.tensor(values, dtype=torch.float64).mul_(unit).to(device, dtype).reshape(-1, *[1] * (ndim - 2)) for values in (mean, std)
    )
    return mean_, std_
