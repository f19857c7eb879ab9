"""Every part there is, by the seat it fits in: read from the unions, which are the registry."""

import inspect
import re
from dataclasses import dataclass
from typing import Any

from torchstone import losses, metrics
from torchstone.core.parts import Slot, choices, fields_of, kind_of, slot_of
from torchstone.experiment import Experiment
from torchstone.recipes import RECIPES
from torchstone.train.method import Method
from torchstone.train.settings import Run

ABBREVIATED = ("al.", "e.g.", "i.e.", "vs.")
"""What ends in a point and ends no sentence."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A place that takes parts."""

    name: str
    path: str
    """In the experiment; empty for what is in no tree (metrics)."""
    doc: str
    parts: dict[str, type]
    default: str
    """In words."""
    many: bool = False
    """A list of parts."""


def seats() -> dict[str, Seat]:
    """By name, in the order of the tree."""
    found = [_seat(f"{name}", name, Experiment) for name in ("data", "task", "model")]
    found += [_seat(f"method.{name}", name, Method) for name, slot in _slots(Method).items() if (slot.many or slot).parts]
    found.append(_seat("run.trackers", "trackers", Run))
    found.append(Seat("adversarial", "", "What the two networks of a GAN minimize.", choices(losses.AdversarialLoss), "none"))
    penalties = choices(losses.CriticPenalty)
    found.append(Seat("critic_penalties", "", "What holds the critic of a GAN to gentle slopes.", penalties, "none", many=True))
    found.append(Seat("metrics", "", "What is measured; a task says which.", choices(metrics.Metric), "the task's", many=True))
    return {seat.name: seat for seat in found}


def _slots(cls: type) -> dict[str, Slot]:
    return {name: slot_of(facts.annotation) for name, facts in fields_of(cls).items()}


def _seat(path: str, name: str, cls: type) -> Seat:
    facts = fields_of(cls)[name]
    slot = slot_of(facts.annotation)
    return Seat(name, path, facts.doc, choices(facts.annotation), spelled(facts.default), many=slot.many is not None)


def recipes() -> dict[str, str]:
    """Name -> one line."""
    return {name: first_sentence(recipe) for name, recipe in RECIPES.items()}


def first_sentence(thing: Any) -> str:
    """The first sentence of its own docstring, however many lines it takes."""
    paragraph = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    ends = (match.end() for match in re.finditer(r"[.!?](?=\s+[A-Z`])", paragraph) if not paragraph[: match.end()].endswith(ABBREVIATED))
    return paragraph[: next(ends, len(paragraph))]


def spelled(value: Any) -> str:
    """A default as an edit would say it; `required` where there is none."""
    if value is inspect.Parameter.empty or type(value).__name__ == "_MISSING_TYPE":
        return "required"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(spelled(element) for element in value)}]"
    if hasattr(value, "__dataclass_fields__"):
        return kind_of(value)
    return str(value) if value != "" else '""'
