"""Losses for classes of very unequal size: the frequencies enter the logits, not the weights.

Logit adjustment: Menon et al., "Long-tail Learning via Logit Adjustment", 2020, https://arxiv.org/abs/2007.07314, eq. 10.
LDAM: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", 2019,
https://arxiv.org/abs/1906.07413, eq. 12 and 13. Shapes: `...` the terms, C classes.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts
from torchstone.losses.class_weights import counted
from torchstone.losses.cross_entropy import CrossEntropy
from torchstone.losses.targets import Target, full_precision, index_weight, probabilities


@dataclass(frozen=True, kw_only=True, slots=True)
class LogitAdjustment:
    """Cross-entropy of logits + tau log(prior): training corrects for how often each class occurs, prediction then need not."""

    neutral: ClassVar["LogitAdjustment"]
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("classes",)

    tau: float = 1.0
    """How much of the correction; 1 makes the balanced error the smallest, 0 is plain cross-entropy."""
    priors: tuple[float, ...] = ()
    """The share of each class; empty: that of the training data."""
    smoothing: float = 0.0
    """Share of the target that is spread evenly over all C classes."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.tau < float("inf"):
            raise ValueError(f"LogitAdjustment.tau must be finite and >= 0, got {self.tau}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"LogitAdjustment.smoothing must be >= 0 and < 1, got {self.smoothing}")
        if not all(isfinite(p) and p > 0 for p in self.priors):
            raise ValueError(f"LogitAdjustment.priors must be finite and > 0, got {self.priors}")

    def resolve(self, facts: Facts) -> Self:
        if self.priors:
            require_one_each("priors", self.priors, facts)
            return self
        if self.tau == 0:
            return self
        counts = counted(facts, "kind=logit_adjustment")
        return replace(self, priors=tuple(count / sum(counts) for count in counts))

    def __call__(self, logits: Float[Tensor, "... C"], target: Target) -> Float[Tensor, "..."]:
        plain = CrossEntropy(smoothing=self.smoothing, ignore_index=self.ignore_index)
        if self.tau == 0:
            return plain(logits, target)
        if not self.priors:
            raise ValueError("LogitAdjustment.priors is empty: resolve(facts) must write the shares out before it is called")
        logits = full_precision(logits)
        return plain(logits + self.tau * vector(self.priors, logits.dtype, logits.device).log(), target)

    def weight(self, target: Target) -> Float[Tensor, "..."]:
        return index_weight(target, self.ignore_index)


LogitAdjustment.neutral = LogitAdjustment(tau=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LDAM:
    """Cross-entropy of scale x (logits, the right class's less its margin), the margin in proportion to n_c^(-1/4): rare classes more.

    The paper's logits are cosines (`model_transforms+=cosine_head`), for which its scale is meant; logits of no bound want scale=1.
    Of probabilities each class's margin counts in proportion.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "its margins come from the counts of the classes; cross-entropy is the case without one"
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("cosines", "classes")

    max_margin: float = 0.5
    """The margin of the rarest class."""
    scale: float = 30.0
    """What the logits are multiplied by after the margin is taken off."""
    margins: tuple[float, ...] = ()
    """The margin of each class; empty: from the counts of the training data."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        for name in ("max_margin", "scale"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"LDAM.{name} must be finite and > 0, got {getattr(self, name)}")
        if not all(isfinite(m) and m >= 0 for m in self.margins):
            raise ValueError(f"LDAM.margins must be finite and >= 0, got {self.margins}")

    def resolve(self, facts: Facts) -> Self:
        if self.margins:
            require_one_each("margins", self.margins, facts)
            return self
        counts = counted(facts, "kind=ldam")
        return replace(self, margins=tuple(self.max_margin * (min(counts) / count) ** 0.25 for count in counts))

    def __call__(self, logits: Float[Tensor, "... C"], target: Target) -> Float[Tensor, "..."]:
        if not self.margins:
            raise ValueError("LDAM.margins is empty: resolve(facts) must write the margins out before it is called")
        logits = full_precision(logits)
        wanted, _ = probabilities(target, logits, self.ignore_index)
        moved = logits - wanted * vector(self.margins, logits.dtype, logits.device)
        return CrossEntropy(ignore_index=self.ignore_index)(self.scale * moved, target)

    def weight(self, target: Target) -> Float[Tensor, "..."]:
        return index_weight(target, self.ignore_index)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arcface:
    """Cross-entropy of scale x cosines, the right class's angle t replaced by t + margin: its cosine by cos(t + angle) - cosine.

    Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2018, https://arxiv.org/abs/1801.07698, eq. 3 and 4;
    CosFace: Wang et al., 2018, https://arxiv.org/abs/1801.09414. The directions of the classes are weights, so they sit in the model
    (`model_transforms+=cosine_head`). Where t + angle would pass pi, cos t - angle sin(angle) goes on downwards, as in the authors' code.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "it reads cosines, which a plain head does not give"
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("cosines",)

    scale: float = 64.0
    """What the cosines are multiplied by."""
    angle: float = 0.5
    """The margin in radians."""
    cosine: float = 0.0
    """CosFace's margin, taken off the cosine (0.35 there, with angle=0)."""
    ignore_index: int = -100
    """An index target of this value has no term: weight 0."""

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"Arcface.scale must be finite and > 0, got {self.scale}")
        if not 0 <= self.angle < 3.14:
            raise ValueError(f"Arcface.angle must be in [0, pi), got {self.angle}")
        if not 0 <= self.cosine <= 2:
            raise ValueError(f"Arcface.cosine must be in [0, 2], got {self.cosine}")

    def __call__(self, cosines: Float[Tensor, "... C"], target: Target) -> Float[Tensor, "..."]:
        cosines = full_precision(cosines)
        wanted, _ = probabilities(target, cosines, self.ignore_index)
        m = torch.tensor(self.angle, dtype=torch.float64)
        # 1 - cos^2 is floored: the slope of the root at 0, where output and direction agree, is infinite.
        sine = (1 - cosines.square()).clamp(min=torch.finfo(cosines.dtype).eps).sqrt()
        turned = cosines * float(m.cos()) - sine * float(m.sin())
        turned = torch.where(cosines > -float(m.cos()), turned, cosines - self.angle * float(m.sin()))
        moved = cosines + wanted * (turned - self.cosine - cosines)
        return CrossEntropy(ignore_index=self.ignore_index)(self.scale * moved, target)

    def weight(self, target: Target) -> Float[Tensor, "..."]:
        return index_weight(target, self.ignore_index)


def require_one_each(name: str, numbers: tuple[float, ...], facts: Facts) -> None:
    """Raises UserError unless there is one number a class."""
    if facts.classes and len(numbers) != len(facts.classes):
        raise UserError(f"method.loss.{name} must hold one number a class: found {len(numbers)}, the data have {len(facts.classes)}")


@lru_cache(maxsize=64)
def vector(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Any:
    """The numbers as a tensor, made once."""
    with torch.inference_mode(False):  # made during an evaluation, it must still serve a backward pass later
        return torch.tensor(numbers, dtype=dtype, device=device)
