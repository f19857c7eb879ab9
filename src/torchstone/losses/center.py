"""Center loss: every embedding is drawn to the center of its class, and the centers follow the embeddings.

Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", 2016, eq. 2 to 4.
Shapes: N examples of the whole batch, C classes, D dimensions.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchstone.core.errors import UserError
from torchstone.core.protocols import Facts, Memory
from torchstone.losses.layouts import ones
from torchstone.losses.targets import classes_named, full_precision


@dataclass(frozen=True, kw_only=True, slots=True)
class Center:
    """|x - c_y|^2 / 2. After an update each center moves by rate x sum over its examples of (x - c) / (1 + their number).

    The centers are memory, not weights: no gradient reaches them. They start at 0. Alone this loss is smallest where all embeddings
    are one point.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "what is close to what is another objective than cross-entropy"
    couples: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("embeddings",)

    dim: int
    """Dimensions of the embeddings."""
    classes: int = 0
    """How many centers; 0: one for each class of the data."""
    rate: float = 0.5
    """How fast the centers follow (the paper's alpha)."""

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"Center.dim must be >= 1, got {self.dim}")
        if self.classes < 0:
            raise ValueError(f"Center.classes must be >= 0, got {self.classes}")
        if not 0 <= self.rate <= 1:
            raise ValueError(f"Center.rate must be in [0, 1], got {self.rate}")

    def resolve(self, facts: Facts) -> Self:
        if not self.classes and not facts.classes:
            raise UserError("method.loss=center needs a center for each class, and these data have none; give method.loss.classes")
        return self if self.classes else replace(self, classes=len(facts.classes))

    def init(self, model: nn.Module) -> Memory:
        weight = next(model.parameters())
        zeros = torch.zeros(self.classes, self.dim, device=weight.device, dtype=full_precision(weight.detach()).dtype)
        return {"centers": zeros, "moved": zeros.clone()}

    def __call__(self, embeddings: Float[Tensor, "N D"], target: Int[Tensor, " N"], *, memory: Memory | None = None) -> Float[Tensor, " N"]:
        """Without memory the centers are the means of the batch's own classes. With it, and a gradient asked for, `moved` is written."""
        x, y = full_precision(embeddings), target.long()
        classes = self.classes or int(y.max()) + 1
        if memory is not None and x.shape[1] != memory["centers"].shape[1]:
            raise UserError(f"method.loss.dim is {self.dim}, the model's outputs have {x.shape[1]} dimensions")
        with torch.no_grad(), classes_named(target, classes):
            sums = torch.zeros(classes, x.shape[1], device=x.device, dtype=x.dtype).index_add_(0, y, x.detach())
            counts = torch.zeros(classes, 1, device=x.device, dtype=x.dtype).index_add_(0, y, torch.ones_like(x[:, :1]))
            centers = sums / counts.clamp(min=1) if memory is None else memory["centers"].to(x.dtype)
            own = centers[y]
        if memory is not None and torch.is_grad_enabled():
            memory["moved"].copy_(centers + self.rate * (sums - counts * centers) / (1 + counts))
        return (x - own).square().sum(dim=1) / 2

    def weight(self, target: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        return ones(target, 0)

    def commit(self, memory: Memory, *, skip: Tensor | None = None) -> None:
        """After an update: the centers are where the batch moved them, unless `skip` (0-d, 1.0: nothing changes)."""
        moved = memory["moved"] if skip is None else torch.where(skip > 0, memory["centers"], memory["moved"])
        memory["centers"].copy_(moved)
