"""Places in the tree: reading and replacing what is at a path, listing all paths, and finding the one that a short path means.

A path is the names from the root, joined by dots; an element of a list of parts is named by its index or its kind
(`method.batch_transforms.0.alpha`, `method.batch_transforms.mixup.alpha`). A short path is a suffix of exactly one path.
"""

import difflib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from .codec import owns
from .errors import UserError
from .parts import Slot, fields_of, hint, is_part, join, kind_of, lacking, names_of, show, slots_of

T = TypeVar("T")


class Place(NamedTuple):
    """One place of a tree."""

    path: str
    """From the root, list elements by index."""
    spellings: tuple[frozenset[str], ...]
    """What each segment of the path may be called."""
    slot: Slot
    value: Any


class Setting(NamedTuple):
    """A place as `explain` shows it."""

    path: str
    """From the root, list elements by kind where that says which."""
    allowed: str
    value: Any
    doc: str


# --- get and put ---------------------------------------------------------------------------------------------------------


def get(tree: Any, path: str) -> Any:
    """What is at a full path. UserError where there is no such path."""
    value = tree
    for name in split(path):
        value = _child(value, name, path)
    return value


def put(tree: T, path: str, value: Any) -> T:
    """A copy of the tree with `value` (of the right type already) at a full path; all else is shared.

    Nothing is validated: the training step calls this for every scheduled number. `edit` is the careful way.
    """
    return _put(tree, split(path), 0, value, path)


def _put(node: Any, names: tuple[str, ...], depth: int, value: Any, path: str) -> Any:
    if depth == len(names):
        return value
    name = names[depth]
    child = _put(_child(node, name, path), names, depth + 1, value, path)
    if isinstance(node, tuple):
        index = _index(node, name, path)
        return (*node[:index], child, *node[index + 1 :])
    cls = type(node)
    twin = object.__new__(cls)
    for field in names_of(cls):
        object.__setattr__(twin, field, getattr(node, field))
    object.__setattr__(twin, name, child)
    return twin


def _child(node: Any, name: str, path: str) -> Any:
    if isinstance(node, tuple):
        return node[_index(node, name, path)]
    if is_part(node) and name in names_of(type(node)):
        return getattr(node, name)
    raise UserError(f"there is no setting {show(path)}: {_no_child(node, name)}")


def _index(elements: tuple[Any, ...], name: str, path: str) -> int:
    """The position of the element that an index or a kind names."""
    if name.isdecimal() and int(name) < len(elements):
        return int(name)
    found = [i for i, element in enumerate(elements) if is_part(element) and kind_of(element) == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{show(path)} is ambiguous: {len(found)} elements are {show(name)}, use the index ({', '.join(map(str, found))})")
    raise UserError(f"there is no setting {show(path)}: {_no_child(elements, name)}")


@lru_cache(maxsize=4096)
def split(path: str) -> tuple[str, ...]:
    """The names of a path; the empty path is the root."""
    return tuple(path.split(".")) if path else ()


# --- listing -------------------------------------------------------------------------------------------------------------


def paths(tree: Any) -> list[str]:
    """Every full path of the tree, parts before what they hold, list elements by index."""
    return [place.path for place in places(tree)]


def places(tree: Any, path: str = "", spellings: tuple[frozenset[str], ...] = ()) -> Iterator[Place]:
    """Every place of the tree, in the order of the fields. A class of the user's own is a leaf."""
    for name, slot in slots_of(type(tree)).items():
        place = Place(join(path, name), (*spellings, frozenset([name])), slot, getattr(tree, name))
        yield place
        yield from _inside(place)


def _inside(place: Place) -> Iterator[Place]:
    if owns(place.slot, place.value):
        yield from places(place.value, place.path, place.spellings)
    elif place.slot.many is not None and isinstance(place.value, tuple):
        for i, value in enumerate(place.value):
            if is_part(value):
                element = Place(join(place.path, i), (*place.spellings, frozenset([str(i), kind_of(value)])), place.slot.many, value)
                yield element
                yield from _inside(element)


def settable(tree: Any) -> list[Setting]:
    """(path, what it may be, value, documentation) of every place that an edit can name."""
    return [Setting(_readable(tree, place.path), str(place.slot), place.value, _doc(tree, place.path)) for place in places(tree)]


def _readable(tree: Any, path: str) -> str:
    """The path with kinds for indices, but where two elements of a list are of one kind."""
    names: list[str] = []
    node = tree
    for name in split(path):
        elements = node if isinstance(node, tuple) else ()
        node = _child(node, name, path)
        kinds = [kind_of(element) for element in elements if is_part(element)]
        names.append(kind_of(node) if elements and kinds.count(kind_of(node)) == 1 else name)
    return ".".join(names)


def _doc(tree: Any, path: str) -> str:
    parent, _, name = path.rpartition(".")
    owner = get(tree, parent)
    return fields_of(type(owner))[name].doc if is_part(owner) else ""


# --- short paths ---------------------------------------------------------------------------------------------------------


def resolve_path(tree: Any, short: str) -> str:
    """The full path (list elements by index) that a full or short path means. UserError where it means none or several."""
    return find(tree, short).path


def find(tree: Any, short: str) -> Place:
    """The place that a full or short path means; a full path wins over suffixes of others."""
    names = split(short)
    fitting = [place for place in places(tree) if names and _fits(place, names)]
    full = [place for place in fitting if len(place.spellings) == len(names)]
    found = full or fitting
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(_ambiguous(short, found))
    raise UserError(_unknown(tree, short))


def _fits(place: Place, names: tuple[str, ...]) -> bool:
    """True when `names` is a suffix of the place's path."""
    tail = place.spellings[-len(names) :]
    return len(tail) == len(names) and all(name in spelling for name, spelling in zip(names, tail, strict=True))


def _ambiguous(short: str, found: list[Place]) -> str:
    without_indices = {re.sub(r"\b\d+\b", "", place.path) for place in found}
    remedy = "use the index" if len(without_indices) == 1 else "write more of the path"
    return f"{show(short)} is ambiguous, {remedy}: {', '.join(place.path for place in found)}"


def _unknown(tree: Any, short: str) -> str:
    """Why a path means nothing: the nearest part of it that exists says what it has."""
    parent, _, name = short.rpartition(".")
    if parent:
        try:
            place = find(tree, parent)
        except UserError:
            pass
        else:
            if is_part(place.value) and not owns(place.slot, place.value):
                return f"{place.path} is a class of your own, which no edit reaches into: change the object in Python"
            return f"there is no setting {show(short)}: at {place.path}, {_no_child(place.value, name)}"
    for place in places(tree):
        if is_part(place.value) and not parent and name in getattr(type(place.value), "lacks", {}):
            return f"there is no setting {show(short)}: {_no_child(place.value, name)}"
    return f"there is no setting {show(short)}{_nearest(tree, split(short))}"


def _nearest(tree: Any, names: tuple[str, ...]) -> str:
    """`, did you mean ...?`, from all the suffixes as long as what was written."""
    suffixes: dict[str, str] = {}
    for place in places(tree):
        suffixes.setdefault(".".join(split(_readable(tree, place.path))[-len(names) :]), place.path)
    near = difflib.get_close_matches(".".join(names)[:200], suffixes, n=3)
    return f", did you mean {' or '.join(suffixes[suffix] for suffix in near)}?" if near else ""


def _no_child(node: Any, name: str) -> str:
    """Why `node` has nothing called `name`."""
    if is_part(node):
        return f"{kind_of(node)} has no {show(name)}{lacking(type(node), name)}"
    if isinstance(node, tuple):
        return f"the list has no {show(name)}{hint(name, [kind_of(element) if is_part(element) else show(element) for element in node])}"
    if node is None:
        return "there is nothing yet (none); put a part there first"
    return f"{show(node)} has no settings"


# --- differences ---------------------------------------------------------------------------------------------------------


def diff(a: Any, b: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(path, value in a, value in b) of every difference; where the kinds differ, the parts themselves, and no path below."""
    if _same_kind(a, b):
        names = names_of(type(a))
        return [change for name in names for change in diff(getattr(a, name), getattr(b, name), join(path, name))]
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) and all(map(_same_kind, a, b)):
        return [change for i, (x, y) in enumerate(zip(a, b, strict=True)) for change in diff(x, y, join(path, i))]
    both_nan = a != a and b != b
    return [] if a == b or both_nan else [(path, a, b)]


def _same_kind(a: Any, b: Any) -> bool:
    return is_part(a) and type(a) is type(b)
