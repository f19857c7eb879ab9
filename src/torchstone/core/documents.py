"""The tree as text: TOML for people, JSON for programs, a SHA-256 for telling trees apart."""

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from .codec import DEPTH_LIMIT, TEXT_LIMIT, check_depth, decode, encode
from .errors import UserError
from .parts import show

T = TypeVar("T")

LINE_WIDTH = 120
_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TEXT = re.compile(r""""{3}.*?"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*""", re.DOTALL)
"""A string or a comment."""
_CHAIN = re.compile(rf"""(?<![\w"-])(?:[\w"-]++[ \t]*+\.[ \t]*+){{{DEPTH_LIMIT}}}""")
"""A dotted key of so many names (text taken out): tomllib takes quadratic time over it."""


# --- TOML ----------------------------------------------------------------------------------------------------------------


def to_toml(tree: Any) -> str:
    """The whole tree, every default written out: a section a part, a list of parts as an array of tables."""
    return "\n\n".join("\n".join(section) for section in _sections("", encode(tree))) + "\n"


def _sections(header: str, table: dict[str, Any]) -> Iterator[list[str]]:
    """The lines of each section: first the plain settings of `table`, then its tables, in the order of the fields."""
    lines = [header] if header else []
    lines += [_line(name, value) for name, value in table.items() if not _is_section(value)]
    if lines:
        yield lines
    for name, value in table.items():
        path = f"{header.strip('[]')}.{name}".lstrip(".")
        if isinstance(value, dict):
            yield from _sections(f"[{path}]", value)
        elif _is_section(value):
            for element in value:
                yield from _sections(f"[[{path}]]", element)


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and value != [] and all(isinstance(item, dict) for item in value))


def _line(name: str, value: Any) -> str:
    """`name = value`, a short list on one line (tomli_w gives each element its own)."""
    text = tomli_w.dumps({name: value}).rstrip("\n")
    if not isinstance(value, list) or any(isinstance(item, list | dict) for item in value):
        return text
    items = [tomli_w.dumps({"": item}).removeprefix('"" = ').rstrip("\n") for item in value]
    line = f"{name} = [{', '.join(items)}]"
    return line if len(line) <= LINE_WIDTH else text


def from_toml(cls: type[T], text: str, source: str | Path) -> T:
    """The tree that a TOML document describes. `source` (the file) names it in errors; relative paths start at its folder.

    UserError for broken TOML (with line and column), and for all that `decode` refuses.
    """
    return _read(cls, text, source, _parse_toml)


def _parse_toml(text: str, source: str | Path) -> Any:
    if _CHAIN.search(_TEXT.sub('""', text)):
        raise UserError(f"{source}: a key is nested more than {DEPTH_LIMIT} deep")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        position = _POSITION.search(message)
        if position is None:
            raise UserError(f"{source}: {message}") from None
        line, column = position.groups()
        if line is None:
            line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
        raise UserError(f"{source}, line {line}, column {column}: {message[: position.start()]}") from None


# --- JSON ----------------------------------------------------------------------------------------------------------------


def to_json(tree: Any) -> str:
    """The same as `to_toml`, as JSON; infinities and NaN are the texts "inf", "-inf" and "nan"."""
    return json.dumps(_finite(encode(tree)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(cls: type[T], text: str, source: str | Path = "JSON") -> T:
    """The tree that a JSON document describes; errors as `from_toml`."""
    return _read(cls, text, source, _parse_json)


def _parse_json(text: str, source: str | Path) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        raise UserError(f"{source}, line {error.lineno}, column {error.colno}: {error.msg}") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"{show(name)} is given twice")
        table[name] = value
    return table


def _finite(value: Any) -> Any:
    """The same plain values, numbers that JSON has no spelling for as text."""
    match value:
        case dict():
            return {name: _finite(child) for name, child in value.items()}
        case list():
            return [_finite(child) for child in value]
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


# --- both ----------------------------------------------------------------------------------------------------------------


def _read(cls: type[T], text: str, source: str | Path, parse: Callable[[str, str | Path], Any]) -> T:
    size = len(text.encode(errors="replace"))
    if size > TEXT_LIMIT:
        raise UserError(f"{source} must be at most {TEXT_LIMIT} bytes, got {size}")
    try:
        document = parse(text, source)
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{source} is nested more than {DEPTH_LIMIT} deep") from None
    except ValueError as error:  # an integer of thousands of digits, a key given twice
        raise UserError(f"{source}: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"{source} must hold a table, got {type(document).__name__}")
    try:
        check_depth(document, "")
        return decode(cls, document, folder=Path(source).absolute().parent)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def digest(tree: Any) -> str:
    """SHA-256, in hex, of the tree's canonical JSON: equal trees have equal ones, whatever order a file was written in."""
    text = json.dumps(_finite(encode(tree)), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
