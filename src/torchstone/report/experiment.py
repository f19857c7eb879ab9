"""The experiment as a tree to read: parts inside parts, each with its settings, and what was edited marked where it stands."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torchstone.report.numbers import number
from torchstone.report.reading import RunFiles, kind_of, rows, table, words

MOST_SETTINGS = 1500
MOST_EDITS = 60
DEEPEST = 10
MOST_ELEMENTS = 8
"""Of a list of plain values; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Edit:
    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    value: str
    empty: bool
    """Nothing sits there: none, or an empty list."""
    edit: Edit | None


@dataclass(frozen=True, slots=True)
class Node:
    """A part, or a list of parts (which has no kind)."""

    name: str
    kind: str
    edit: Edit | None
    settings: tuple[Setting, ...]
    children: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Tree:
    nodes: tuple[Node, ...]
    edits: tuple[Edit, ...]
    cut: bool
    """There was more than is shown."""


def read_tree(run: RunFiles) -> Tree | None:
    edits = tuple(read_edits(run))
    builder = Builder(edits)
    nodes = builder.children(run.experiment, ())
    return Tree(tuple(nodes), edits, builder.left < 0) if nodes else None


def read_edits(run: RunFiles) -> Iterator[Edit]:
    for entry in map(table, rows(run.environment.get("edits"))[:MOST_EDITS]):
        if path := words(entry.get("path"), 160):
            yield Edit(path, words(entry.get("before"), 200) or "nothing", words(entry.get("after"), 200) or "nothing")


class Builder:
    """Walks the tree once and counts what it shows."""

    def __init__(self, edits: tuple[Edit, ...]) -> None:
        self._edits = [(edit.path.split("."), edit) for edit in edits]
        self.left = MOST_SETTINGS

    def children(self, part: dict[str, Any], place: tuple[frozenset[str], ...]) -> list[Node]:
        """The parts and lists of parts inside one."""
        return [self._node(name, value, (*place, frozenset([name]))) for name, value in part.items() if holds_parts(value)]

    def _node(self, name: str, value: Any, place: tuple[frozenset[str], ...]) -> Node:
        self.left -= 1
        if isinstance(value, list):
            inside = [] if self._full(place) else list(self._elements(value, place))
            return Node(words(name, 60), "", self._edit(place), (), tuple(inside))
        if self._full(place):
            return Node(words(name, 60), kind_of(value), self._edit(place), (), ())
        settings = [self._setting(key, inner, place) for key, inner in value.items() if key != "kind" and not holds_parts(inner)]
        shown = settings[: max(0, self.left)]
        self.left -= len(settings)
        return Node(words(name, 60), kind_of(value), self._edit(place), tuple(shown), tuple(self.children(value, place)))

    def _elements(self, parts: list[dict[str, Any]], place: tuple[frozenset[str], ...]) -> Iterator[Node]:
        for i, part in enumerate(parts):
            if self.left < 0:
                return
            yield self._node(str(i + 1), part, (*place, frozenset([str(i), kind_of(part)])))

    def _setting(self, name: str, value: Any, place: tuple[frozenset[str], ...]) -> Setting:
        return Setting(words(name, 60), shown(value), value in ("none", []), self._edit((*place, frozenset([name]))))

    def _edit(self, place: tuple[frozenset[str], ...]) -> Edit | None:
        """The edit of this very place: an element of a list goes by its index or its kind."""
        for names, edit in self._edits:
            if len(names) == len(place) and all(name in spellings for name, spellings in zip(names, place, strict=True)):
                return edit
        return None

    def _full(self, place: tuple[frozenset[str], ...]) -> bool:
        if len(place) > DEEPEST:
            self.left = min(self.left, -1)
        return self.left < 0


def holds_parts(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and value != [] and all(isinstance(item, dict) for item in value))


def shown(value: Any) -> str:
    """A plain value as a reader wants it: six digits, the first elements of a long list."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if abs(value) < 10**18 else "a very large number"
        case float():
            return number(value, 6) if value == value and abs(value) < 1e300 else str(value)
        case str():
            return words(value, 160) or "empty"
        case [] | [*_]:
            parts = [shown(item) for item in value[:MOST_ELEMENTS]]
            more = f", … {len(value):,} in all" if len(value) > MOST_ELEMENTS else ""
            return words(", ".join(parts) + more, 200) or "empty"
        case _:
            return words(str(value), 160)
