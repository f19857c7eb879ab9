"""What is said of a thing that has a name but is no part: an activation, a norm."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class About:
    """One row of a table that `explain` and the pages of the canon read."""

    doc: str
    """What it is, in a sentence."""
    formula: str
    """In plain characters."""
    source: str
    """The paper, with where to find it."""
