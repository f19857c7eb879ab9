"""Connectionist temporal classification: a row of symbols from frames, without knowing which frame belongs to which symbol.

Graves et al., "Connectionist Temporal Classification", 2006, https://www.cs.toronto.edu/~graves/icml_2006.pdf.
Shapes: N utterances, T frames, C symbols with the blank, S symbols of the target.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from torchstone.losses.layouts import Frames, Symbols
from torchstone.losses.targets import full_precision


@dataclass(frozen=True, kw_only=True, slots=True)
class CTC:
    """-log of the summed probability of all alignments of the symbols with the frames: torch's own.

    A term is an utterance. Where it has fewer frames than symbols (and blanks between equal ones) no alignment exists: the loss is
    infinite, or 0 with `skip_impossible`.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "an alignment summed over is another objective than a class for each frame"
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("sequences",)

    blank: int = 0
    """The symbol that stands for none."""
    per: Literal["symbol", "utterance"] = "symbol"
    """symbol: an utterance's loss is divided by its number of symbols, as torch's mean does."""
    skip_impossible: bool = False
    """An utterance without an alignment costs nothing and has no gradient."""

    def __post_init__(self) -> None:
        if self.blank < 0:
            raise ValueError(f"CTC.blank must be >= 0, got {self.blank}")
        if self.per not in ("symbol", "utterance"):
            raise ValueError(f'CTC.per must be "symbol" or "utterance", got {self.per!r}')

    def __call__(self, outputs: Frames, target: Symbols) -> Float[Tensor, " N"]:
        log_p = full_precision(outputs.logits).log_softmax(dim=-1).transpose(0, 1)
        terms = F.ctc_loss(
            log_p,
            target.symbols,
            outputs.lengths,
            target.lengths,
            blank=self.blank,
            reduction="none",
            zero_infinity=self.skip_impossible,
        )
        return terms / target.lengths.clamp(min=1) if self.per == "symbol" else terms

    def weight(self, target: Symbols) -> Float[Tensor, " N"]:
        return torch.ones(len(target.lengths), device=target.lengths.device)
