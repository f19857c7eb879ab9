"""JSON that every parser reads: no NaN, no repeated keys; for people and other tools (`to_json`), or exact for resume (`to_exact_json`)."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from torchstone.core.errors import UserError

_FLOAT = "$float"
"""The key that stands for a float JSON has no word for: {"$float": "nan"}."""


def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as JSON; NaN and infinities become null, 0-d arrays and tensors their numbers. TypeError for anything else."""
    return json.dumps(_plain(value, lambda _: None), indent=indent, allow_nan=False)


def to_exact_json(value: Any, indent: int | None = None) -> str:
    """As `to_json`, but `from_exact_json` gives equal values back, NaN and infinities included (tuples come back as lists)."""
    return json.dumps(_plain(value, lambda number: {_FLOAT: repr(number)}), indent=indent, allow_nan=False)


def from_json(text: str | bytes, source: str) -> Any:
    """Parses strictly. UserError naming `source` for bad JSON, a repeated key, NaN, nesting too deep or a number too long."""
    return _parse(text, source, _unique)


def from_exact_json(text: str | bytes, source: str) -> Any:
    """The inverse of `to_exact_json`; errors as `from_json`."""
    return _parse(text, source, _unique_or_float)


def _parse(text: str | bytes, source: str, pairs: Callable[[list[tuple[str, Any]]], Any]) -> Any:
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=_no_constant)
    except RecursionError:
        raise UserError(f"{source}: not JSON that is read here (nested too deep)") from None
    except ValueError as error:
        raise UserError(f"{source}: not JSON that is read here ({error})") from None


def _plain(value: Any, non_finite: Callable[[float], Any]) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else non_finite(float(value))
    if isinstance(value, Mapping):
        return {_name(key): _plain(inner, non_finite) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, non_finite) for inner in value]
    if hasattr(value, "item"):
        return _plain(value.item(), non_finite)
    raise TypeError(f"JSON has no word for {type(value).__name__}")


def _name(key: Any) -> str:
    if not isinstance(key, str) or key == _FLOAT:
        raise TypeError(f"a JSON object's keys are strings other than {_FLOAT!r}, got {key!r}")
    return key


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key twice in one object")
    return made


def _unique_or_float(pairs: list[tuple[str, Any]]) -> Any:
    if len(pairs) == 1 and pairs[0][0] == _FLOAT:
        return float(pairs[0][1])
    return _unique(pairs)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")
