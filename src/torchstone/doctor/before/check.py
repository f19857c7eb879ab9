"""What every check before training is: a function of the patient that says a number, or findings, or why it does not apply."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchstone.core import tree
from torchstone.doctor.before.patient import Patient
from torchstone.doctor.finding import Finding


class Skip(Exception):
    """The check does not apply here; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What one check saw."""

    value: float | None = None
    threshold: float | None = None
    said: str = ""
    """The measurement in words, for who asks what has passed."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A check by name."""

    name: str
    says: str
    """What it looks at, in a few words."""
    run: Callable[[Patient], Seen]


def has_field(part: Any, *names: str) -> bool:
    """Whether a part of the tree has these settings."""
    return tree.is_part(part) and all(name in tree.fields_of(type(part)) for name in names)


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"
