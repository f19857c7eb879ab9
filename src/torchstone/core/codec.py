"""The tree as plain values (dicts, lists, numbers, text) and back, strictly: what a file or an edit can say, and nothing else.

A part is a dict with its `kind`; None is "none"; a tuple is a list. No name is ever imported: a kind is looked up in the
annotation of its seat.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .errors import UserError
from .parts import CUSTOM, Slot, hint, is_part, join, kind_of, lacking, needed, show, slots_of

T = TypeVar("T")

NONE = "none"
TEXT_LIMIT = 1_000_000
"""Characters of one text, and bytes of one document."""
DEPTH_LIMIT = 64
LIST_LIMIT = 1 << 15
"""Elements of one list: room for the 21,843 class names of ImageNet-21k, not for a model that takes minutes to build."""
_UNBOUNDED = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}
"""JSON has no such numbers, so they are written as text there."""
_PLAIN = bool | int | float | str | tuple | list | None


# --- encode --------------------------------------------------------------------------------------------------------------


def encode(tree: Any) -> dict[str, Any]:
    """The tree as plain values, every default written out and file paths made absolute. The root says no kind.

    UserError where a value is not what its annotation says: dataclasses do not check that themselves.
    """
    return _encode_fields(tree, "")


def _encode_fields(part: Any, where: str) -> dict[str, Any]:
    return {name: encode_value(slot, getattr(part, name), join(where, name)) for name, slot in slots_of(type(part)).items()}


def encode_value(slot: Slot, value: Any, where: str) -> Any:
    """One place of the tree as plain values."""
    if value is None and slot.empty:
        return NONE
    if is_part(value) or (slot.custom and not isinstance(value, _PLAIN)):
        return _encode_part(slot, value, where)
    if isinstance(value, tuple):
        return [encode_value(element, item, join(where, i)) for i, (element, item) in enumerate(_elements(slot, value, where))]
    if isinstance(value, list):
        raise UserError(f"{where} must be {slot}: in Python a tuple, got a list")
    if value == NONE and slot.empty:
        raise UserError(f'{where} is the text "none", which cannot be told from no value at all; choose another')
    scalar = _scalar(slot, value, where)
    return absolute(scalar, Path.cwd()) if slot.file and isinstance(scalar, str) else scalar


def _encode_part(slot: Slot, value: Any, where: str) -> dict[str, Any]:
    kind = kind_of(value)
    if slot.parts.get(kind) is type(value):
        return {"kind": kind, **_encode_fields(value, where)}
    if not slot.custom:
        raise UserError(
            f"{where} has no kind {show(kind)}{hint(kind, slot.parts)}" if slot.parts else f"{where} must be {slot}, got {kind}"
        )
    cls = type(value)
    settings = {"settings": repr(value)} if is_part(value) else {}
    return {"kind": CUSTOM, "class": f"{cls.__module__}:{cls.__qualname__}", **settings}


# --- decode --------------------------------------------------------------------------------------------------------------


def decode(cls: type[T], mapping: Mapping[str, Any], where: str = "", *, folder: Path | None = None) -> T:
    """The part that plain values describe. Relative file paths start at `folder` (default: the working directory).

    UserError, naming the path, what was found and what it may be, for anything the annotations do not allow.
    """
    check_depth(mapping, where)
    part = decode_value(Slot(parts={kind_of(cls): cls}), mapping, where, folder or Path.cwd())
    assert isinstance(part, cls)
    return part


def decode_value(slot: Slot, value: Any, where: str, folder: Path) -> Any:
    """What plain values mean in one place of the tree. A kind alone stands for that part with its defaults."""
    if value == NONE and slot.empty:
        return None
    if isinstance(value, Mapping):
        return _decode_part(slot, value, where, folder)
    if isinstance(value, list):
        items = enumerate(_elements(slot, value, where))
        return tuple(decode_value(element, item, join(where, i), folder) for i, (element, item) in items)
    if isinstance(value, str) and (slot.parts or slot.custom) and str not in slot.scalars and value not in slot.words:
        return _decode_part(slot, {"kind": value}, where, folder)
    if isinstance(value, str) and value in _UNBOUNDED and float in slot.scalars and str not in slot.scalars:
        return _UNBOUNDED[value]
    scalar = _scalar(slot, value, where)
    return absolute(scalar, folder) if slot.file and isinstance(scalar, str) else scalar


def _decode_part(slot: Slot, table: Mapping[str, Any], where: str, folder: Path) -> Any:
    if not (slot.parts or slot.custom):
        raise UserError(f"{where} must be {slot}, got a table")
    cls = _class(slot, table, where)
    slots = slots_of(cls)
    values = {}
    for name, value in table.items():
        if name == "kind":
            continue
        if name not in slots:
            raise UserError(f"{_subject(where)} has no setting {show(name)}{lacking(cls, name)}")
        values[name] = decode_value(slots[name], value, join(where, name), folder)
    return build(cls, values, where)


def _class(slot: Slot, table: Mapping[str, Any], where: str) -> type:
    """The class a table's kind names; the only one there is where no kind is said."""
    kind = table.get("kind")
    if kind is None and len(slot.parts) == 1 and not slot.custom:
        return next(iter(slot.parts.values()))
    if kind is None:
        raise UserError(f"{_subject(where)} needs a kind{hint('', slot.parts)}")
    if not isinstance(kind, str):
        raise UserError(f"{join(where, 'kind')} must be text, got {show(kind)}")
    if kind == CUSTOM and slot.custom:
        name = f" ({table['class']})" if isinstance(table.get("class"), str) else ""
        raise UserError(f"{where} is a class of your own{name}, which no file and no edit can build: pass the object from Python")
    if kind not in slot.parts:
        raise UserError(f"{_subject(where)} has no kind {show(kind)}{hint(kind, slot.parts)}")
    return slot.parts[kind]


def build(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """`cls(**values)`; what `__post_init__` refuses becomes a UserError with the setting's path in front."""
    for name in needed(cls):
        if name not in values:
            kind, field = kind_of(cls), slots_of(cls)[name]
            raise UserError(f"{join(where, name)} must be given: {kind} has no default for it ({field}); {{kind={show(kind)}, {name}=...}}")
    try:
        return cls(**values)
    except ValueError as error:
        raise UserError(_placed(str(error), cls, where)) from error


def _placed(message: str, cls: type, where: str) -> str:
    """`Focal.gamma must be ...` as `method.loss.gamma must be ...`."""
    own = f"{cls.__name__}."
    if message.startswith(own):
        return join(where, message.removeprefix(own))
    return f"{where}: {message}" if where else message


def validated(tree: T, where: str = "") -> T:
    """The tree built anew from the leaves up, so that every `__post_init__` has seen the final values."""
    values = {name: _validated_value(slot, getattr(tree, name), join(where, name)) for name, slot in slots_of(type(tree)).items()}
    return build(type(tree), values, where)


def _validated_value(slot: Slot, value: Any, where: str) -> Any:
    if isinstance(value, tuple):
        items = enumerate(_elements(slot, value, where))
        return tuple(_validated_value(element, item, join(where, i)) for i, (element, item) in items)
    return validated(value, where) if owns(slot, value) else value


# --- the smallest pieces -------------------------------------------------------------------------------------------------


def owns(slot: Slot, value: Any) -> bool:
    """True when `value` is a part of the slot's closed union, so that the tree knows its fields."""
    return is_part(value) and slot.parts.get(kind_of(value)) is type(value)


def absolute(path: str, folder: Path) -> str:
    """An absolute path, relative ones taken from `folder` and `~` from the home; the empty text (no file) stays."""
    return os.path.abspath(os.path.join(folder, os.path.expanduser(path))) if path else path


def check_depth(value: Any, where: str, depth: int = 0) -> None:
    """UserError for plain values nested more than `DEPTH_LIMIT` deep."""
    if depth > DEPTH_LIMIT:
        raise UserError(f"{_subject(where)} is nested more than {DEPTH_LIMIT} deep")
    if isinstance(value, Mapping):
        for child in value.values():
            check_depth(child, where, depth + 1)
    elif isinstance(value, list):
        for child in value:
            check_depth(child, where, depth + 1)


def _elements(slot: Slot, values: Sequence[Any], where: str) -> list[tuple[Slot, Any]]:
    """Each element of a list beside what it may be."""
    if len(values) > LIST_LIMIT:
        raise UserError(f"{where} must have at most {LIST_LIMIT} elements, got {len(values)}")
    if slot.many is not None:
        return [(slot.many, value) for value in values]
    if slot.row is not None and len(slot.row) == len(values):
        return list(zip(slot.row, values, strict=True))
    raise UserError(f"{where} must be {slot}, got {show(values)}")


def _scalar(slot: Slot, value: Any, where: str) -> bool | int | float | str:
    """A bool, int, float or str that the slot allows. An int stands for a float; a bool is no number."""
    for word in slot.words:
        if type(word) is type(value) and word == value:
            return word
    if isinstance(value, bool) and bool in slot.scalars:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and (int in slot.scalars or float in slot.scalars):
        return _number(slot, value, where)
    if isinstance(value, float) and float in slot.scalars:
        return float(value)
    if isinstance(value, str) and str in slot.scalars:
        return _text(value, where)
    if isinstance(value, str) and slot.words:
        raise UserError(f"{where} has no value {show(value)}{hint(value, [str(word) for word in slot.words])}")
    raise UserError(f"{where} must be {slot}, got {show(value)}")


def _number(slot: Slot, value: int, where: str) -> int | float:
    if not -(2**63) <= value < 2**63:
        raise UserError(f"{where} must fit in 64 bits, got {show(value)}")
    return int(value) if int in slot.scalars else float(value)


def _text(value: str, where: str) -> str:
    if len(value) > TEXT_LIMIT:
        raise UserError(f"{where} must be text of at most {TEXT_LIMIT} characters, got {len(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f"{where} must be valid Unicode, got {value.encode(errors='backslashreplace').decode()[:60]!r}")
    return str(value)


def _subject(where: str) -> str:
    return where or "the experiment"
