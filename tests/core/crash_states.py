"""Every state a power cut may leave on the disk, from a trace of operations: a small ALICE (Pillai et al., OSDI 2014).

The model promises little: data of a file are safe after its fsync, names in a folder after the folder's fsync. At each instant
every operation that is not yet safe may have happened or not, in any combination; unsafe data may be absent, half there, or
zeros. No order is kept between them.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torchstone.core.fault import Operation

Tree = dict[str, "bytes | Tree"]


@dataclass(eq=False)
class Node:
    """A file (entries None) or a folder."""

    entries: "dict[str, Node] | None" = None
    content: bytes = b""


@dataclass
class Effect:
    """What one operation does to one node."""

    node: Node
    removed: tuple[Node, str] | None = None
    placed: tuple[Node, str] | None = None
    data: bytes | None = None
    safe: bool = False

    def choices(self) -> list[str]:
        if self.safe:
            return ["full"]
        return ["none", "full"] if self.data is None else ["none", "half", "zeros", "full"]


@dataclass
class Disk:
    """Replays a trace. `start` is what was safe before it."""

    root: Path
    start: Tree
    nodes: dict[str, Node] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.top = self._load(self.start, str(self.root))

    def _load(self, tree: Tree, path: str) -> Node:
        node = Node(entries={})
        self.nodes[path] = node
        for name, inner in tree.items():
            if isinstance(inner, dict):
                child = self._load(inner, f"{path}/{name}")
            else:
                child = self.nodes[f"{path}/{name}"] = Node(content=inner)
            node.entries[name] = child  # type: ignore[index]
        return node

    def _place(self, path: str) -> tuple[Node, str]:
        parent, _, name = path.rpartition("/")
        return self.nodes[parent], name

    def do(self, operation: Operation) -> None:
        path, name = operation.path, operation.name
        if name in ("create", "mkdir"):
            node = self.nodes[path] = Node(entries={} if name == "mkdir" else None)
            self.effects.append(Effect(node, placed=self._place(path)))
        elif name == "write":
            assert isinstance(operation.detail, bytes)
            self.effects.append(Effect(self.nodes[path], data=operation.detail))
        elif name == "rename":
            assert isinstance(operation.detail, str)
            node, to = self.nodes[path], operation.detail
            self.effects.append(Effect(node, removed=self._place(path), placed=self._place(to)))
            for known in [known for known in self.nodes if known == path or known.startswith(f"{path}/")]:
                self.nodes[to + known.removeprefix(path)] = self.nodes.pop(known)
        elif name in ("unlink", "rmdir"):
            self.effects.append(Effect(self.nodes.pop(path), removed=self._place(path)))
        elif name == "fsync":
            for effect in self.effects:
                effect.safe |= effect.data is not None and effect.node is self.nodes[path]
        elif name == "fsync_folder":
            for effect in self.effects:
                effect.safe |= any(place is not None and place[0] is self.nodes[path] for place in (effect.removed, effect.placed))
        else:
            raise AssertionError(f"no model of {name}")

    def states(self) -> Iterator[Tree]:
        """Every tree that a power cut now may leave."""
        for chosen in itertools.product(*(effect.choices() for effect in self.effects)):
            fresh: dict[int, Node] = {}
            top = _copy(Disk(self.root, self.start).top, self.top, fresh)
            for effect, choice in zip(self.effects, chosen, strict=True):
                if choice != "none":
                    _apply(effect, choice, fresh)
            yield _tree(top)


def _copy(start: Node, live: Node, fresh: dict[int, Node]) -> Node:
    """A fresh copy of the first state, known by the nodes of the live one."""
    fresh[id(live)] = start
    for name, child in (live.entries or {}).items():
        _copy((start.entries or {})[name], child, fresh)
    return start


def _apply(effect: Effect, choice: str, fresh: dict[int, Node]) -> None:
    def of(node: Node) -> Node:
        return fresh.setdefault(id(node), Node(entries=None if node.entries is None else {}))

    node = of(effect.node)
    if effect.data is not None:
        kept = {"full": effect.data, "half": effect.data[: len(effect.data) // 2], "zeros": bytes(len(effect.data))}[choice]
        node.content += kept
    if effect.removed is not None:
        folder, name = effect.removed
        (of(folder).entries or {}).pop(name, None)
    if effect.placed is not None:
        folder, name = effect.placed
        entries = of(folder).entries
        assert entries is not None
        entries[name] = node


def _tree(node: Node) -> Tree:
    return {name: child.content if child.entries is None else _tree(child) for name, child in (node.entries or {}).items()}


def load(folder: Path) -> Tree:
    return {path.name: load(path) if path.is_dir() else path.read_bytes() for path in sorted(folder.iterdir())}


def save(tree: Tree, folder: Path) -> None:
    folder.mkdir()
    for name, inner in tree.items():
        if isinstance(inner, dict):
            save(inner, folder / name)
        else:
            (folder / name).write_bytes(inner)


def every_state(root: Path, start: Tree, trace: list[Operation]) -> list[Tree]:
    """The distinct states over all instants of the trace."""
    found: dict[str, Tree] = {}
    disk = Disk(root, start)
    for operation in [None, *trace]:
        if operation is not None:
            disk.do(operation)
        for state in disk.states():
            found.setdefault(repr(state), state)
    return list(found.values())
