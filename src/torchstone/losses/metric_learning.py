"""Losses on embeddings: what belongs together close, the rest apart. They see the whole batch, over all ranks (`couples`).

Triplet: Schroff et al., "FaceNet", 2015, https://arxiv.org/abs/1503.03832 (semi-hard); Hermans et al., "In Defense of the Triplet
Loss", 2017, https://arxiv.org/abs/1703.07737 (batch all, batch hard). N-pair: Sohn, "Improved Deep Metric Learning with
Multi-class N-pair Loss Objective", 2016. InfoNCE: van den Oord et al., 2018, https://arxiv.org/abs/1807.03748; CLIP: Radford et
al., 2021, https://arxiv.org/abs/2103.00020. Supervised contrastive: Khosla et al., 2020, https://arxiv.org/abs/2004.11362, eq. 2.
Shapes: N examples of the whole batch, D dimensions.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torchstone.losses.layouts import Pair
from torchstone.losses.targets import full_precision

OTHER = "what is close to what is another objective than cross-entropy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Triplet:
    """max(0, d(a, p) - d(a, n) + margin) over triplets of the batch: an anchor, one of its class, one of another class.

    A term is an anchor. batch_all: the mean over its triplets; hard: its farthest positive against its nearest negative; semi_hard: for
    each positive the nearest negative that is farther away than it, or, where there is none, the farthest negative. Weights are such that
    the whole is the mean over all triplets, anchors and pairs, in that order. Anchors without a triplet weigh 0.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("embeddings",)

    margin: float = 0.2
    """By how much a negative must be farther away than a positive."""
    mining: Literal["batch_all", "hard", "semi_hard"] = "semi_hard"
    """Which triplets."""
    normalize: bool = True
    """Embeddings are scaled to length 1 first, as in FaceNet."""
    squared: bool = True
    """Distances are squared, as in FaceNet; false: Euclidean, as in Hermans et al."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin < float("inf"):
            raise ValueError(f"Triplet.margin must be finite and >= 0, got {self.margin}")
        if self.mining not in ("batch_all", "hard", "semi_hard"):
            raise ValueError(f'Triplet.mining must be "batch_all", "hard" or "semi_hard", got {self.mining!r}')

    def __call__(self, embeddings: Float[Tensor, "N D"], target: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        embeddings = unit(embeddings) if self.normalize else full_precision(embeddings)
        d = distances(embeddings, squared=self.squared)
        positive, negative = relations(target)
        usable = self.weight(target) > 0
        if self.mining == "hard":
            farthest = d.masked_fill(~positive, -torch.inf).amax(dim=1)
            nearest = d.masked_fill(~negative, torch.inf).amin(dim=1)
            farthest, nearest = (torch.where(usable, each, 0) for each in (farthest, nearest))
            return torch.where(usable, (farthest - nearest + self.margin).clamp(min=0), 0)
        if self.mining == "batch_all":
            each = (d.unsqueeze(2) - d.unsqueeze(1) + self.margin).clamp(min=0)  # [anchor, positive, negative]
            triplets = positive.unsqueeze(2) & negative.unsqueeze(1)
            return torch.where(triplets, each, 0).sum(dim=(1, 2)) / triplets.sum(dim=(1, 2)).clamp(min=1)
        farther = negative.unsqueeze(1) & (d.unsqueeze(1) > d.unsqueeze(2))  # [anchor, positive, negative]
        found = farther.any(dim=2)
        among = d.unsqueeze(1).expand_as(farther).masked_fill(~farther, torch.inf).amin(dim=2)
        last = d.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True).expand_as(d)
        pairs = positive & negative.any(dim=1, keepdim=True)
        chosen = torch.where(pairs, torch.where(found, among, last), 0)
        return torch.where(pairs, (d - chosen + self.margin).clamp(min=0), 0).sum(dim=1) / pairs.sum(dim=1).clamp(min=1)

    def weight(self, target: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        positive, negative = relations(target)
        positives, negatives = positive.sum(dim=1), negative.sum(dim=1)
        if self.mining == "batch_all":
            return (positives * negatives).float()
        return torch.where(negatives > 0, positives if self.mining == "semi_hard" else positives.clamp(max=1), 0).float()


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisedContrastive:
    """-1/|P| sum over p in P of log(exp(z_i z_p / t) / sum over all others a of exp(z_i z_a / t)), P the others of example i's class."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("embeddings",)

    temperature: float = 0.1
    """t: small makes the nearest wrong ones count most."""

    def __post_init__(self) -> None:
        _check_temperature(self)

    def __call__(self, embeddings: Float[Tensor, "N D"], target: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        z = unit(embeddings)
        positive, negative = relations(target)
        alike = (z @ z.T / self.temperature).masked_fill(~(positive | negative), -torch.inf)
        usable = positive.any(dim=1)
        total = torch.where(usable.unsqueeze(1), alike, 0).logsumexp(dim=1)
        mean = torch.where(positive, alike, 0).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
        return torch.where(usable, total - mean, 0)

    def weight(self, target: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        return relations(target)[0].any(dim=1).float()


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoNCE:
    """-log(exp(s_ii / t) / sum_j exp(s_ij / t)), s_ij the likeness of the first of pair i to the second of pair j.

    With symmetric=true it is CLIP's; with normalize=false, temperature=1, symmetric=false the N-pair loss. The target names the thing
    that a pair shows: pairs of the same thing are no negatives of each other.
    """

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = OTHER
    couples: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("views",)

    temperature: float = 0.07
    """t: small makes the nearest wrong ones count most."""
    normalize: bool = True
    """Likeness is the cosine; false: the scalar product."""
    symmetric: bool = False
    """The mean of the loss and of the one with first and second exchanged."""
    length: float = 0.0
    """Adds this times the mean of the squared lengths of the two embeddings (the N-pair paper's regularizer, 0.02 there)."""

    def __post_init__(self) -> None:
        _check_temperature(self)
        if not 0 <= self.length < float("inf"):
            raise ValueError(f"InfoNCE.length must be finite and >= 0, got {self.length}")

    def __call__(self, outputs: Pair, target: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        first, second = full_precision(outputs.first), full_precision(outputs.second)
        a, b = (unit(first), unit(second)) if self.normalize else (first, second)
        positive, _ = relations(target)
        alike = (a @ b.T / self.temperature).masked_fill(positive, -torch.inf)
        own = alike.diagonal()
        terms = alike.logsumexp(dim=1) - own
        if self.symmetric:
            terms = (terms + alike.logsumexp(dim=0) - own) / 2
        return terms + self.length * (first.square().sum(dim=1) + second.square().sum(dim=1)) / 2

    def weight(self, target: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        return torch.ones(len(target), device=target.device)


def unit(embeddings: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Scaled to length 1, in full precision; 0 stays 0."""
    return F.normalize(full_precision(embeddings), dim=1)


def distances(embeddings: Float[Tensor, "N D"], *, squared: bool) -> Float[Tensor, "N N"]:
    """Of all pairs; the gradient of the Euclidean distance at 0 is 0."""
    if squared:
        lengths = embeddings.square().sum(dim=1)
        return (lengths.unsqueeze(1) + lengths.unsqueeze(0) - 2 * embeddings @ embeddings.T).clamp(min=0)
    return torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")


def relations(target: Int[Tensor, " N"]) -> tuple[Bool[Tensor, "N N"], Bool[Tensor, "N N"]]:
    """(which others are of the same class, which are of another one)."""
    same = target.unsqueeze(1) == target.unsqueeze(0)
    return same & ~torch.eye(len(target), dtype=torch.bool, device=target.device), ~same


def _check_temperature(loss: SupervisedContrastive | InfoNCE) -> None:
    if not 0 < loss.temperature < float("inf"):
        raise ValueError(f"{type(loss).__name__}.temperature must be finite and > 0, got {loss.temperature}")
