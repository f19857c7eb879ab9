"""Losses of detectors beside those of boxes: scores that say how good a box is, distances as distributions, sets of objects.

Varifocal: Zhang et al., "VarifocalNet", 2020, https://arxiv.org/abs/2008.13367, eq. 2. Distribution focal: Li et al., "Generalized
Focal Loss", 2020, https://arxiv.org/abs/2006.04388, eq. 6. Set prediction: Carion et al., "End-to-End Object Detection with
Transformers", 2020, https://arxiv.org/abs/2005.12872, eq. 1 and 2.
Shapes: `...` the terms, C classes, B bins, N images, Q guesses an image, M objects an image at most.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from torchstone.core.errors import WorkError
from torchstone.losses.layouts import Detections, Objects, ones
from torchstone.losses.targets import full_precision
from torchstone.ops import boxes


@dataclass(frozen=True, kw_only=True, slots=True)
class Varifocal:
    """Sum over classes of -q (q log p + (1 - q) log(1 - p)) where the overlap q > 0, and -alpha p^gamma log(1 - p) where q = 0."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a score of a box's overlap is another objective than cross-entropy"
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("quality",)

    alpha: float = 0.75
    """How much the places without an object count."""
    gamma: float = 2.0
    """How steeply the easy ones of them are discounted."""

    def __post_init__(self) -> None:
        for name in ("alpha", "gamma"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"Varifocal.{name} must be finite and >= 0, got {getattr(self, name)}")

    def __call__(self, logits: Float[Tensor, "... C"], target: Float[Tensor, "... C"]) -> Float[Tensor, "..."]:
        logits = full_precision(logits)
        q = target.to(logits.dtype)
        # The power floored: for gamma < 1 its slope at p = 0 is infinite.
        strength = torch.where(q > 0, q, self.alpha * logits.sigmoid().clamp(min=1e-12).pow(self.gamma))
        return (strength * F.binary_cross_entropy_with_logits(logits, q, reduction="none")).sum(dim=-1)

    def weight(self, target: Float[Tensor, "... C"]) -> Float[Tensor, "..."]:
        return ones(target, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class DistributionFocal:
    """-((i + 1 - y) log p_i + (y - i) log p_(i+1)), p = softmax over whole distances, i <= y <= i + 1: their mean can be y exactly."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a distance as a distribution is another objective than one class"
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("distances",)

    def __call__(self, logits: Float[Tensor, "... B"], target: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        log_p = full_precision(logits).log_softmax(dim=-1)
        last = logits.shape[-1] - 1
        y = target.to(log_p.dtype).clamp(0, last)  # a distance beyond the last bin is that bin
        left = y.floor().clamp(max=last - 1).long()
        right_share = y - left
        chosen = log_p.gather(-1, torch.stack((left, left + 1), dim=-1))
        return -((1 - right_share) * chosen[..., 0] + right_share * chosen[..., 1])

    def weight(self, target: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return ones(target, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetPrediction:
    """Each object is matched with one guess (Hungarian, at the least total cost); matched guesses learn it, the others "no object".

    A term is an image, of weight its number of objects (an empty image weighs 1): the sum over all guesses of
    classification x -log p + l1 x |box - box| + giou x (1 - GIoU), divided by the number of objects of the batch, as in the paper. The
    cost of a match is the same with -p in place of -log p.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a matched set of objects is another objective than one class"
    couples: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("detections",)

    classification: float = 1.0
    """How much the class counts, in the matching too."""
    l1: float = 5.0
    """How much the sum of the four absolute differences (center and size) counts."""
    giou: float = 2.0
    """How much 1 - GIoU counts."""
    no_object: float = 0.1
    """How much a guess that must say "no object" counts."""

    def __post_init__(self) -> None:
        for name in ("classification", "l1", "giou", "no_object"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"SetPrediction.{name} must be finite and >= 0, got {getattr(self, name)}")

    def __call__(self, outputs: Detections, target: Objects) -> Float[Tensor, " N"]:
        logits, guesses = full_precision(outputs.logits), full_precision(outputs.boxes_cxcywh)
        queries, nothing = logits.shape[1], logits.shape[2] - 1
        if target.classes.shape[1] > queries and int((target.classes >= 0).sum(dim=1).max()) > queries:
            raise WorkError(f"an image has more objects than the model has guesses ({queries}): give the model more queries")
        image, query, item = self.match(outputs, target)
        wanted = torch.full(logits.shape[:2], nothing, device=logits.device)
        wanted[image, query] = target.classes[image, item].long()
        counts = torch.ones_like(logits[..., 0]).masked_fill(wanted == nothing, self.no_object)
        costs = self.classification * counts * F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(counts)
        a, b = guesses[image, query], target.boxes_cxcywh[image, item].to(guesses.dtype)
        matched = self.l1 * (a - b).abs().sum(dim=-1) + self.giou * (1 - boxes.giou(boxes.xyxy_of(a), boxes.xyxy_of(b)))
        total = costs.sum(dim=1).index_add(0, image, matched)
        return total / self.weight(target).to(total.dtype)

    @torch.no_grad()
    def match(self, outputs: Detections, target: Objects) -> tuple[Int[Tensor, " K"], Int[Tensor, " K"], Int[Tensor, " K"]]:
        """(image, guess, object) of every match: the assignment of least cost, image by image, on the CPU."""
        from scipy.optimize import linear_sum_assignment  # here: SciPy takes longer to import than all losses together

        p, guesses = full_precision(outputs.logits).softmax(dim=-1), full_precision(outputs.boxes_cxcywh)
        true, device = target.boxes_cxcywh.to(guesses.dtype), guesses.device
        classes = target.classes.long().clamp(min=0).unsqueeze(1).expand(-1, p.shape[1], -1)
        cost = -self.classification * p.gather(2, classes)
        cost += self.l1 * (guesses.unsqueeze(2) - true.unsqueeze(1)).abs().sum(dim=-1)
        cost -= self.giou * boxes.giou(boxes.xyxy_of(guesses).unsqueeze(2), boxes.xyxy_of(true).unsqueeze(1))
        cost = torch.nan_to_num(cost.double(), nan=1e12, posinf=1e12, neginf=-1e12).cpu()  # a diverged model meets the guard, not SciPy
        found = []
        for image, there in enumerate((target.classes >= 0).cpu()):
            items = there.nonzero().squeeze(1)
            query, column = linear_sum_assignment(cost[image][:, items].numpy())
            found.append(torch.stack((torch.full((len(query),), image), torch.from_numpy(query), items[torch.from_numpy(column)])))
        image, query, item = torch.cat(found, dim=1).to(device)
        return image, query, item

    def weight(self, target: Objects) -> Float[Tensor, " N"]:
        return (target.classes >= 0).sum(dim=1).clamp(min=1).float()
