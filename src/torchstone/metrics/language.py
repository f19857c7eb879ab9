"""How many bits the model needs for a byte of text.

Shannon, "Prediction and Entropy of Printed English", 1951. Independent of the tokens, so models of other vocabularies compare.
Shapes: `...` the terms (N x T tokens), V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class BitsPerByte:
    """`bits_per_byte`: -log2 of the probability of the text, over its bytes. A token is a byte here.

    From the outputs, not from the loss's terms: a smoothed, focal or weighted loss is not the length of a code.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a metric reads and changes nothing"

    def measure(
        self, outputs: Float[Tensor, "... V"], target: Int[Tensor, "..."], weight: Float[Tensor, "..."], terms: Float[Tensor, "..."]
    ) -> dict[str, Tensor]:
        counted = weight > 0
        rows = outputs.float() if outputs.dtype.itemsize < 4 else outputs
        target = torch.where(counted, target.long(), 0)
        nats = F.cross_entropy(rows.reshape(-1, rows.shape[-1]), target.flatten(), reduction="none").view(target.shape)
        return {"nats": torch.where(counted, nats, 0).double().sum(), "bytes": counted.sum()}

    def result(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        count = int(sums["bytes"])
        return {"bits_per_byte": float(sums["nats"]) / (log(2) * count) if count else float("nan")}
