"""Which parameters share a rate and a decay."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

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


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerDecay:
    """Layer-wise rate decay: what lies deeper below the output learns more slowly. Vectors do not decay (`NoDecay`).

    With L blocks the rate of block i, from 1, is lr x rate^(L + 1 - i); what comes before the blocks (embeddings, the stem) is block 0,
    what comes after them (the last norm, the head) learns at lr. Clark et al., "ELECTRA", 2020, https://arxiv.org/abs/2003.10555,
    appendix A; Bao et al., "BEiT", 2021, https://arxiv.org/abs/2106.08254, appendix H. The blocks are the model's lists called `blocks`; in
    a model without one every module that holds weights is a block of its own, and the last of them is what comes after. Before and after
    go by the order in which the model holds its parameters.
    """

    neutral: ClassVar["LayerDecay | None"] = None
    neutral_reason: ClassVar[str] = "at rate 1 it still is NoDecay, which has no neutral value"

    rate: float = 0.75
    """What the rate is multiplied by from one block to the one below it."""

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"LayerDecay.rate must be in (0, 1], got {self.rate}")

    def __call__(self, model: nn.Module) -> Sequence[Group]:
        """Two groups a depth, with and without decay, the lowest first."""
        depths, above = depths_of([name for name, _ in model.named_parameters()])
        names: dict[tuple[int, bool], list[str]] = {}
        for name, p in model.named_parameters():
            names.setdefault((depths[name], p.ndim >= 2), []).append(name)
        order = sorted(names, key=lambda each: (each[0], not each[1]))
        return [Group(tuple(names[each]), self.rate ** (above - each[0]), float(each[1])) for each in order]


def depths_of(names: Sequence[str]) -> tuple[dict[str, int], int]:
    """(parameter name -> its block, counted from the input: 0 before the first, L + 1 after the last of L; L + 1)."""
    homes = [_home(name) for name in names]
    blocks = list(dict.fromkeys(home for home in homes if home))
    if not blocks:
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
        return {name: layers.index(name.rpartition(".")[0]) for name in names}, len(layers) - 1
    number = {block: depth for depth, block in enumerate(blocks, 1)}
    depths, passed = {}, 0
    for name, home in zip(names, homes, strict=True):
        passed = max(passed, number.get(home, 0))
        between = len(blocks) + 1 if passed == len(blocks) else passed
        depths[name] = number[home] if home else between
    return depths, len(blocks) + 1


def _home(name: str) -> str:
    """The block a parameter belongs to, "blocks.3", or nothing: the innermost of nested lists."""
    words = name.split(".")
    at = [i for i, word in enumerate(words[:-1]) if word == "blocks" and words[i + 1].isdecimal()]
    return ".".join(words[: at[-1] + 2]) if at else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What some parameters' rate and decay are multiplied by."""

    neutral: ClassVar["Rule | None"] = None
    neutral_reason: ClassVar[str] = "a rule is a part of groups=patterns"

    names: str
    """A pattern of parameter names, as in a shell: * is any text, ? one letter, [ab] one of them."""
    lr_scale: float = 1.0
    """The factor on the rate; 0 freezes."""
    decay_scale: float = 1.0
    """The factor on the weight decay."""

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("Rule.names must be a pattern of parameter names, got nothing")
        for name in ("lr_scale", "decay_scale"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"Rule.{name} must be finite and >= 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Patterns:
    """Rates and decays by parameter name: the first rule whose pattern fits decides; what none fits keeps its rate and its decay.

    groups = {kind = "patterns", rules = [{names = "blocks.0.*", lr_scale = 0.1}, {names = "*.bias", decay_scale = 0}]}
    """

    neutral: ClassVar["Patterns"]

    rules: tuple[Rule, ...] = ()
    """In the order in which they are tried."""

    def __call__(self, model: nn.Module) -> Sequence[Group]:
        """A group a rule, and one of the rest. Raises UserError for a rule that fits no parameter, or none that is left."""
        names: list[list[str]] = [[] for _ in range(len(self.rules) + 1)]
        for name, _ in model.named_parameters():
            fits = (i for i, rule in enumerate(self.rules) if fnmatchcase(name, rule.names))
            names[next(fits, len(self.rules))].append(name)
        for number, rule in enumerate(self.rules):
            if not names[number]:
                known = ", ".join([name for name, _ in model.named_parameters()][:6])
                raise UserError(f"method.groups.rules.{number}: no parameter is left for {rule.names!r}; the model has {known}, …")
        ruled = [Group(tuple(own), rule.lr_scale, rule.decay_scale) for own, rule in zip(names, self.rules, strict=False)]
        return [*ruled, Group(tuple(names[-1]))]


Patterns.neutral = Patterns()


def table(model: nn.Module, groups: Sequence[Group], lr: float, decay: float | None) -> list[dict[str, Any]]:
    """The groups as they train: tensors, scalars, rate, decay and names; a decay of None is an optimizer's without one."""
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    rows = []
    for group in groups:
        names = [name for name in group.names if name in sizes]
        if names:
            own = None if decay is None else decay * group.decay_scale
            count = sum(sizes[name] for name in names)
            rows.append({"tensors": len(names), "parameters": count, "lr": lr * group.lr_scale, "decay": own, "names": names})
    return rows


def _in_head(name: str) -> bool:
    return "head" in name.split(".")[:-1]
