"""The edit language: `path=value`, `path+=element`, `path-=element`, applied left to right.

A value is TOML with bare words: `augment=true`, `activation=gelu`, `widths=[32,64]`, `batch_transforms=[flip,{kind="mixup",alpha=0.3}]`.
`seat=kind` installs that kind with its defaults, nothing carried over; `none` empties a seat. Two things are refused because
they would be lost in silence: an edit inside a part that a later edit replaces, and a short path that means another place in the end.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from .codec import NONE, check_depth, decode_value, validated
from .errors import UserError
from .parts import Slot, hint, is_part, join, kind_of, show
from .paths import Place, find, put

T = TypeVar("T")

_EDIT = re.compile(r"\s*([\w.]+)\s*(\+=|-=|=)(.*)", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<string>"{3}.*?"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\])*"|'[^']*')"""
    r"""|(?P<key>[\w.-]+)(?=\s*=)"""
    r"""|(?P<word>[^\s,\[\]{}="']+)""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit as written."""

    text: str
    path: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Done:
    """An edit that has been applied, and the full path of the place it changed."""

    edit: Edit
    path: str


def edit(tree: T, edits: Sequence[str]) -> T:
    """The tree with the edits applied. UserError, the edit in front, for one that cannot be.

    Each part is validated once, with its final values, so that two settings which only fit together may come in any order.
    """
    done: list[Done] = []
    for text in edits:
        try:
            tree, done = _apply(tree, parse(text), done)
        except UserError as error:
            raise UserError(f"{text}: {error}") from error
    _check_places(tree, done)
    try:
        return validated(tree)
    except UserError as error:
        raise UserError(f"{_culprits(str(error), done)}{error}") from error


# --- reading -------------------------------------------------------------------------------------------------------------


def parse(text: str) -> Edit:
    """Takes an edit apart."""
    match = _EDIT.fullmatch(text)
    if match is None:
        meant = f"; for the data that is data.path={text}" if text.strip() and Path(text).exists() else ""
        raise UserError(f"an edit is path=value, path+=element or path-=element{meant}")
    path, operator, value = match.groups()
    if not value.strip():
        raise UserError("there is no value; none empties a seat")
    return Edit(text, path, operator, value.strip())


def parse_value(text: str) -> Any:
    """TOML with bare words as plain values.

    >>> parse_value("1e-3"), parse_value("gelu"), parse_value("[flip, {kind=mixup, alpha=0.3}]")
    (0.001, 'gelu', ['flip', {'kind': 'mixup', 'alpha': 0.3}])
    """
    if text[0] not in "[{\"'":
        return _word(text)
    try:
        value = tomllib.loads("value = " + _TOKEN.sub(_quote, text).replace("\n", " "))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the value is not TOML: {re.sub(r' [(]at .*', '', str(error))}") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"the value cannot be read: {error}") from None
    if len(value) > 1:
        raise UserError("there is more than one value")
    check_depth(value["value"], "the value")
    return value["value"]


def _quote(token: re.Match[str]) -> str:
    """A token of a list or table, quoted if it is a bare word."""
    word = token["word"]
    return json.dumps(word, ensure_ascii=False) if word and isinstance(_word(word), str) else token[0]


def _word(text: str) -> bool | int | float | str:
    """A number or a truth value where TOML reads the text as one, else the text itself."""
    if "\n" in text or "#" in text:
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text


def _meaning(slot: Slot, text: str, path: str) -> Any:
    """What the text means in a place: where only text may stand, `2024` and `1.10` are text."""
    plain = text if slot.text_only and text[0] not in "\"'" else parse_value(text)
    if plain == NONE and not slot.empty and slot.many is not None and str not in slot.scalars:
        return ()
    return decode_value(slot, plain, path, Path.cwd())


# --- applying ------------------------------------------------------------------------------------------------------------


def _apply(tree: T, new: Edit, done: list[Done]) -> tuple[T, list[Done]]:
    """The tree after one more edit, and what has been done so far, paths as they are now."""
    place = find(tree, new.path)
    if new.operator == "=":
        _refuse_loss(new, [old for old in done if old.path.startswith(f"{place.path}.")])
        value = _meaning(place.slot, new.value, place.path)
    elif place.slot.many is None or not isinstance(place.value, tuple):
        raise UserError(f"{new.operator} is for lists, {place.path} is {show(place.value)} ({place.slot})")
    elif new.operator == "+=":
        element = _meaning(place.slot.many, new.value, join(place.path, len(place.value)))
        index = _position(place.value, element)
        value = (*place.value[:index], element, *place.value[index:])
        done = [replace(old, path=_shifted(old.path, place.path, index, +1)) for old in done]
    else:
        index = _index_of(place, new.value)
        _refuse_loss(new, [old for old in done if f"{old.path}.".startswith(f"{place.path}.{index}.")])
        value = place.value[:index] + place.value[index + 1 :]
        done = [replace(old, path=_shifted(old.path, place.path, index, -1)) for old in done]
    return put(tree, place.path, value), [*done, Done(new, place.path)]


def _refuse_loss(new: Edit, lost: Sequence[Done]) -> None:
    """UserError if an earlier edit changed something that the new one throws away."""
    if lost:
        raise UserError(f"this would undo the earlier edit {lost[0].edit.text}; put {new.text} before it, or leave one out")


def _index_of(place: Place, text: str) -> int:
    """The position of the element that `-=` names: a part by kind or index, anything else by value."""
    names = [kind_of(element) if is_part(element) else element for element in place.value]
    of_parts = any(is_part(element) for element in place.value)
    if of_parts and text.isdecimal() and int(text) < len(names):
        return int(text)
    wanted = text if of_parts or not names else _meaning(place.slot.many or place.slot, text, place.path)
    found = [i for i, name in enumerate(names) if name == wanted]
    if not found:
        raise UserError(f"{place.path} has no {show(wanted)}{hint(str(wanted), map(str, names)) or ', it is empty'}")
    if len(found) > 1:
        raise UserError(f"{place.path} has {len(found)} {show(wanted)}, use the index ({', '.join(map(str, found))})")
    return found[0]


def _position(elements: Sequence[Any], new: Any) -> int:
    """Where `+=` puts an element: at the end, or before what its class says it must come before (`before`, a tuple of kinds)."""
    later = [i for i, element in enumerate(elements) if is_part(element) and kind_of(element) in getattr(type(new), "before", ())]
    return later[0] if later else len(elements)


def _shifted(path: str, seat: str, changed: int, by: int) -> str:
    """Where a path leads after element `changed` of the list at `seat` has gone (by -1) or come (by +1)."""
    if not path.startswith(seat + "."):
        return path
    index, dot, rest = path[len(seat) + 1 :].partition(".")
    return f"{seat}.{int(index) + by * (int(index) >= changed)}{dot}{rest}"


# --- checking ------------------------------------------------------------------------------------------------------------


def _check_places(tree: Any, done: Sequence[Done]) -> None:
    """UserError if a path, read on the final tree, no longer means what it meant when it was applied."""
    for old in done:
        try:
            now = find(tree, old.edit.path).path
        except UserError as error:
            raise UserError(f"{old.edit.text}: after all edits, {error}") from error
        if now != old.path:
            meant = f"{show(old.edit.path)} meant {old.path} and means {now} after all edits"
            raise UserError(f"{old.edit.text}: {meant}; write the full path, or the edits in another order")


def _culprits(message: str, done: Sequence[Done]) -> str:
    """The edits that an error of validation is about: of the very setting, else of the part it is in."""
    where = re.split(r"[\s:]", message, maxsplit=1)[0]
    exact = [old.edit.text for old in done if old.path == where]
    near = [old.edit.text for old in done if old.path.startswith(where + ".") or where.startswith(old.path + ".")]
    texts = exact[-1:] or near
    return f"{', '.join(texts)}: " if texts else ""
