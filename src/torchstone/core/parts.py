"""What the tree is made of: parts (frozen dataclasses), their kinds, and what each of their fields may hold.

Everything is read from the annotations, so a part says once what it takes. A `Slot` is one annotation, taken apart.
"""

import ast
import dataclasses
import difflib
import inspect
import itertools
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

FILE_PATH = "file path"
FilePath = Annotated[str, FILE_PATH]
"""Text that names a file or folder: the reader makes it absolute."""

ONE_WORD = {"AdamW": "adamw", "MuP": "mup"}
"""Names that everybody writes as one word, whatever their capitals say."""

CUSTOM = "custom"
"""The kind written for a class of the user's own, which only Python can build."""

SCALARS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


@dataclass(frozen=True, slots=True)
class Slot:
    """What may stand in one place of the tree: any of the things named here."""

    scalars: tuple[type, ...] = ()
    """Some of bool, int, float, str."""
    words: tuple[str | int | bool, ...] = ()
    """The values of a Literal."""
    parts: Mapping[str, type] = dataclasses.field(default_factory=dict)
    """Kind -> class."""
    many: "Slot | None" = None
    """What each element of a list of any length is (`tuple[T, ...]`)."""
    row: "tuple[Slot, ...] | None" = None
    """What the elements of a list of fixed length are (`tuple[A, B]`)."""
    empty: bool = False
    """True when None may stand here."""
    custom: bool = False
    """True when a class of the user's own may stand here (the annotation names a Protocol)."""
    file: bool = False
    """True when the text is a path on disk."""

    @property
    def text_only(self) -> bool:
        """True when whatever is written here can only mean text."""
        others = self.parts or self.many or self.row or self.custom or set(self.scalars) - {str}
        return not others and (str in self.scalars or all(isinstance(word, str) for word in self.words))

    def __str__(self) -> str:
        """In words: "a number or none"."""
        names = ["a file path" if self.file and scalar is str else SCALARS[scalar] for scalar in self.scalars]
        names += [show(word) if isinstance(word, str) else str(word).lower() for word in self.words]
        names += list(self.parts)
        if self.many is not None:
            names.append(f"a list of ({self.many})")
        if self.row is not None:
            names.append(f"a list of {len(self.row)} ({', '.join(str(slot) for slot in self.row)})")
        if self.custom:
            names.append("a class of your own (in Python)")
        if self.empty:
            names.append("none")
        return " or ".join(names)


class FieldFacts(NamedTuple):
    """One field of a part. `default` is `dataclasses.MISSING` where the field must be given; `doc` is the text below it."""

    annotation: Any
    default: Any
    doc: str


# --- kinds ---------------------------------------------------------------------------------------------------------------


def kind_of(part: Any) -> str:
    """The kind of a part or of its class: the class name in snake case, a trailing `Config` dropped.

    >>> kind_of(type("CrossEntropy", (), {})), kind_of(type("AdamW", (), {})), kind_of(type("GPTConfig", (), {}))
    ('cross_entropy', 'adamw', 'gpt')
    >>> kind_of(type("SmoothL1", (), {})), kind_of(type("TopK", (), {})), kind_of(type("KLDiv", (), {}))
    ('smooth_l1', 'top_k', 'kl_div')
    """
    cls = part if isinstance(part, type) else type(part)
    return _snake(cls.__name__)


@cache
def _snake(name: str) -> str:
    stem = name.removesuffix("Config") or name
    return ONE_WORD.get(stem) or re.sub(r"(?<=[a-z])(?=[A-Z])|(?<!^)(?<!_)(?=[A-Z][a-z])", "_", stem).lower()


def is_part(value: Any) -> bool:
    """True for an instance of a dataclass."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def choices(annotation: Any) -> dict[str, type]:
    """The parts an annotation allows, by kind; those inside `tuple[..., ...]` as well."""
    slot = slot_of(annotation)
    return dict((slot.many or slot).parts)


# --- annotations ---------------------------------------------------------------------------------------------------------


@cache
def slot_of(annotation: Any) -> Slot:
    """Takes an annotation apart. TypeError for one that the tree cannot hold."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _union([slot_of(argument) for argument in arguments], annotation)
    if origin is Annotated:
        slot = slot_of(arguments[0])
        return dataclasses.replace(slot, file=True) if FILE_PATH in arguments[1:] else slot
    if origin is Literal:
        return Slot(words=arguments)
    if origin is tuple:
        return _tuple(arguments)
    if annotation is None or annotation is types.NoneType:
        return Slot(empty=True)
    if annotation in SCALARS:
        return Slot(scalars=(annotation,))
    if annotation is Any or getattr(annotation, "_is_protocol", False):
        return Slot(custom=True)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return Slot(parts={kind_of(annotation): annotation})
    raise TypeError(f"{annotation} is not a type the tree can hold")


def _tuple(arguments: tuple[Any, ...]) -> Slot:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return Slot(many=slot_of(arguments[0]))
    return Slot(row=tuple(slot_of(argument) for argument in arguments))


def _union(slots: list[Slot], annotation: Any) -> Slot:
    parts = {kind: cls for slot in slots for kind, cls in slot.parts.items()}
    if len(parts) != sum(len(slot.parts) for slot in slots):
        raise TypeError(f"two parts of {annotation} have one kind")
    lists = [slot for slot in slots if slot.many is not None or slot.row is not None]
    if len(lists) > 1:
        raise TypeError(f"{annotation} allows two sorts of list")
    return Slot(
        scalars=tuple(scalar for slot in slots for scalar in slot.scalars),
        words=tuple(word for slot in slots for word in slot.words),
        parts=parts,
        many=lists[0].many if lists else None,
        row=lists[0].row if lists else None,
        empty=any(slot.empty for slot in slots),
        custom=any(slot.custom for slot in slots),
        file=any(slot.file for slot in slots),
    )


# --- fields --------------------------------------------------------------------------------------------------------------


@cache
def names_of(cls: type) -> tuple[str, ...]:
    """The fields of a part, in order."""
    return tuple(field.name for field in dataclasses.fields(cls))


@cache
def slots_of(cls: type) -> dict[str, Slot]:
    """What each field of a part may hold. TypeError, naming the field, where an annotation cannot be in the tree."""
    hints = typing.get_type_hints(cls, include_extras=True)
    slots = {}
    for name in names_of(cls):
        if name == "kind":
            raise TypeError(f"{cls.__name__}.kind: no field may be called kind, that is the part's own name")
        try:
            slots[name] = slot_of(hints[name])
        except TypeError as error:
            raise TypeError(f"{cls.__name__}.{name}: {error}") from None
    return slots


@cache
def needed(cls: type) -> tuple[str, ...]:
    """The fields without a default."""
    missing = dataclasses.MISSING
    return tuple(field.name for field in dataclasses.fields(cls) if field.default is missing and field.default_factory is missing)


@cache
def fields_of(cls: type) -> dict[str, FieldFacts]:
    """Name -> (annotation, default, doc) of each field, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    docs = _docs(cls)
    return {field.name: FieldFacts(hints[field.name], _default(field), docs.get(field.name, "")) for field in dataclasses.fields(cls)}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _docs(cls: type) -> dict[str, str]:
    """The string literal below each field, an inherited field's from the class that defines it."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            docs.update(_own_docs(base))
    return docs


def _own_docs(cls: type) -> dict[str, str]:
    try:
        body = _class_body(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):  # made in a session or by exec: there is no source to read
        return {}
    docs = {}
    for statement, below in itertools.pairwise(body):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                docs[name] = inspect.cleandoc(doc)
    return docs


def _class_body(source: str) -> list[ast.stmt]:
    statement = ast.parse(source).body[0]
    return statement.body if isinstance(statement, ast.ClassDef) else []


# --- words for errors ----------------------------------------------------------------------------------------------------


def join(where: str, name: str | int) -> str:
    """The path of a child."""
    return f"{where}.{name}" if where else str(name)


def show(value: Any) -> str:
    """A value as an error message shows it: short, on one line, in TOML's spelling."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value if len(value) <= 60 else value[:57] + "...", ensure_ascii=False)
        case int() if value.bit_length() > 64:
            return f"an integer of {value.bit_length()} bits"
        case int() | float():
            return repr(value)
        case list() | tuple():
            return f"a list of {len(value)}"
        case Mapping():
            return "a table"
        case _:
            return kind_of(value) if is_part(value) else f"a {type(value).__name__}"


def lacking(cls: type, name: str) -> str:
    """What to say of a field that a part has not: its own reason (class attribute `lacks`), else the names that it has."""
    reason = getattr(cls, "lacks", {}).get(name)
    return f": {reason}" if reason else hint(name, names_of(cls))


def hint(found: str, known: Iterable[str]) -> str:
    """`, did you mean "focal"? (cross_entropy, focal, mse)`: the nearest name if one is near, then all of them."""
    known = list(known)
    near = difflib.get_close_matches(found[:100], known, n=1)
    guess = f', did you mean "{near[0]}"?' if near else ""
    return f"{guess} ({', '.join(known)})" if known else guess
