"""Which parameters share a rate and a decay."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from torchstone.core import ranks
from torchstone.core.errors import UserError
from torchstone.core.protocols import Group
from torchstone.optim.flat import FlatParameters


@dataclass(frozen=True, kw_only=True, slots=True)
class NoDecay:
    """No weight decay on vectors and scalars: biases, and the scales and shifts of norms.

    Goyal et al., "Accurate, Large Minibatch SGD", 2017, https://arxiv.org/abs/1706.02677, section 5.3, for batch norm;
    He et al., "Bag of Tricks for Image Classification", 2019, https://arxiv.org/abs/1812.01187, section 3.1, for all vectors.
    """

    neutral: ClassVar["NoDecay | None"] = None
    neutral_reason: ClassVar[str] = "it has no number: vectors decay, or they do not"

    def __call__(self, model: nn.Module) -> Sequence[Group]:
        decayed, free = [], []
        for name, p in model.named_parameters():
            (decayed if p.ndim >= 2 else free).append(name)
        return Group(tuple(decayed)), Group(tuple(free), decay_scale=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadFirst:
    """Fine-tuning in two phases: the new head alone, then everything, the body at a smaller rate. Vectors do not decay (`NoDecay`).

    Howard and Ruder, "Universal Language Model Fine-tuning", 2018, https://arxiv.org/abs/1801.06146, sections 3.2 and 3.3 (gradual
    unfreezing, discriminative rates), with two layers of the network: body and head. Kumar et al., "Fine-Tuning can Distort Pretrained
    Features", 2022, https://arxiv.org/abs/2202.10054, say why the head comes first. A frozen body costs no backward pass; its batch
    norms go on adapting their statistics.
    """

    neutral: ClassVar["HeadFirst | None"] = None
    neutral_reason: ClassVar[str] = "at share 0 and rate 1 it still is NoDecay, which has no neutral value"

    share: float = 0.3
    """Share of the run's updates during which the body is frozen."""
    body_lr_scale: float = 0.1
    """What the body's rate is multiplied by afterwards."""
    ramp: float = 0.05
    """Share of the run over which the body's rate rises from 0 to that: its moments start empty."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"HeadFirst.share must be in [0, 1], got {self.share}")
        if not 0 <= self.body_lr_scale < float("inf"):
            raise ValueError(f"HeadFirst.body_lr_scale must be finite and >= 0, got {self.body_lr_scale}")
        if not 0 <= self.ramp <= 1:
            raise ValueError(f"HeadFirst.ramp must be in [0, 1], got {self.ramp}")

    def __call__(self, model: nn.Module) -> Sequence[Group]:
        """Four groups: body and head, each with and without decay. Raises UserError for a model without a module called `head`."""
        names: dict[tuple[bool, bool], list[str]] = {(head, decays): [] for head in (False, True) for decays in (True, False)}
        for name, p in model.named_parameters():
            names[_in_head(name), p.ndim >= 2].append(name)
        if not names[True, True]:
            raise UserError(f"method.groups=head_first: {type(model).__name__} has no output layer called head")
        return [Group(tuple(each), decay_scale=float(decays)) for (_, decays), each in names.items()]

    def update(self, parameters: FlatParameters, step: int, total: int) -> None:
        """Writes the body's rate for this update, and asks for its gradients only where it is not frozen."""
        scale = self.body_scale(step, total)
        for group in parameters.groups:
            if not _in_head(group.names[0]):
                group.lr_scale = scale
        if ranks.world() > 1:  # the exchange of gradients was laid out for all of them
            return
        for name, parameter in zip(parameters.names, parameters, strict=True):
            wanted = scale > 0 or _in_head(name)
            if parameter.requires_grad != wanted:
                parameter.requires_grad_(wanted)

    def plan(self, lr: float, total: int) -> list[str]:
        """The phases of the run in words."""
        frozen = round(self.share * total)
        after = f"everything: the head at rate {lr:g}, the body at {lr * self.body_lr_scale:g}"
        if frozen == 0:
            return [f"updates 1 to {total}: {after}"]
        first = f"updates 1 to {frozen}: the head alone, at rate {lr:g}"
        return [first] if frozen >= total else [first, f"updates {frozen + 1} to {total}: {after}"]

    def body_scale(self, step: int, total: int) -> float:
        """The factor on the body's rate at update `step` of `total`, from 0."""
        since = step + 1 - round(self.share * total)
        if since <= 0:
            return 0.0
        return self.body_lr_scale * min(1.0, since / max(1.0, self.ramp * total))


def _in_head(name: str) -> bool:
    return "head" in name.split(".")[:-1]
