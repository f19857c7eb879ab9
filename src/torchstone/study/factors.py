"""What a study varies: places in the tree, and the values each takes in turn, written in the language of edits.

`method.averaging=none,ema` names a place and two values; commas inside brackets, braces and quotes belong to the value
(`method.batch_transforms=[],[flip],[{kind=mixup,alpha=0.2}]`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchstone.core import tree
from torchstone.core.errors import UserError

MOST_VALUES = 50
_OPEN, _CLOSE = "[{", "]}"


@dataclass(frozen=True, slots=True)
class Factor:
    """One place and the values it takes."""

    path: str
    """The full path in the baseline's tree, list elements by index."""
    values: tuple[str, ...]
    """As written; the texts of edits."""
    baseline: str
    """Which of them the baseline has."""
    written: str = ""
    """The path as the user wrote it."""

    @property
    def name(self) -> str:
        """The last name of the path that is one: `averaging`, `lr`."""
        return [part for part in (self.written or self.path).split(".") if not part.isdecimal()][-1]

    def edit(self, value: str) -> str:
        return f"{self.written or self.path}={value}"

    def is_inside(self, other: "Factor") -> bool:
        """Whether the other one replaces the part that this one changes a setting of."""
        return self.path.startswith(f"{other.path}.")


def parse(text: str) -> tuple[str, tuple[str, ...]]:
    """(path, values) of `PATH=A,B`. Raises UserError for what is none.

    >>> parse("optimizer.betas=[0.9,0.99],[0.9,0.999]")
    ('optimizer.betas', ('[0.9,0.99]', '[0.9,0.999]'))
    """
    path, equals, rest = text.partition("=")
    path = path.strip()
    if not equals or not re.fullmatch(r"[\w.]+", path):
        raise UserError(f"--vary {text}: it is written PATH=A,B[,C], as method.averaging=none,ema")
    values = split_values(rest, text)
    if len(values) < 2:
        raise UserError(f"--vary {text}: at least two values are compared, PATH=A,B; for one value write the edit {text} in both")
    if len(values) > MOST_VALUES:
        raise UserError(f"--vary {path}: {len(values)} values; at most {MOST_VALUES}")
    return path, values


def split_values(text: str, whole: str) -> tuple[str, ...]:
    """The text cut at the commas that are inside nothing. Raises UserError for an empty value and for what is not closed.

    >>> split_values("none, ema,{kind=ema,decay=0.9},'a,b'", "")
    ('none', 'ema', '{kind=ema,decay=0.9}', "'a,b'")
    """
    pieces, start, inside, quote, escaped = list[str](), 0, list[str](), "", False
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote and not escaped else quote
            escaped = letter == "\\" and quote == '"' and not escaped
        elif letter in "\"'":
            quote = letter
        elif letter in _OPEN:
            inside.append(_CLOSE[_OPEN.index(letter)])
        elif letter in _CLOSE:
            if not inside or inside.pop() != letter:
                raise UserError(f"--vary {whole}: {letter} closes nothing")
        elif letter == "," and not inside:
            pieces.append(text[start:position])
            start = position + 1
    if quote or inside:
        raise UserError(f"--vary {whole}: {quote or inside[-1]} is missing at the end")
    pieces = [piece.strip() for piece in (*pieces, text[start:])]
    if "" in pieces:
        raise UserError(f"--vary {whole}: there is an empty value; none empties a seat")
    return tuple(pieces)


def factors_of(start: Any, texts: Sequence[str], *, last: bool = False, nested: bool = False) -> tuple[list[Factor], Any]:
    """The factors over an experiment, and its baseline: in each place the value that is there if it is listed, else the first listed one
    (`last`: the last one, everything on). `nested`: a factor may be a setting of what another one replaces, as a grid can have it
    (optimizer=adamw,sgd with optimizer.lr=1e-3,1e-2): every level of the one needs the setting.

    Raises UserError for a path that is none, a value that does not fit, two values that are one, and two factors on one place.
    """
    if not texts:
        raise UserError("nothing is varied; --vary PATH=A,B says what, as --vary method.averaging=none,ema")
    factors = list[Factor]()
    for text in texts:
        written, values = parse(text)
        path = resolved(start, written, text)
        meant = [_value(start, written, value, path) for value in values]
        for number, value in enumerate(meant):
            if value in meant[:number]:
                same = values[meant.index(value)]
                raise UserError(f"--vary {text}: {values[number]} changes nothing, it is the same as {same}")
        there = tree.get(start, path)
        chosen = values[-1] if last else values[meant.index(there)] if there in meant else values[0]
        factors.append(Factor(path, values, chosen, written))
    refuse_overlap(factors, nested)
    moved = [each for each in factors if _value(start, each.written, each.baseline, each.path) != tree.get(start, each.path)]
    return factors, tree.edit(start, edits_of(factors, {each.path: each.baseline for each in factors}, moved))


def edits_of(factors: Sequence[Factor], levels: Mapping[str, str], moved: Sequence[Factor]) -> list[str]:
    """The edits that give the `moved` ones their levels: a part before its settings, all of which it needs again."""
    needed = [each for each in factors if each in moved or any(each.is_inside(other) for other in moved)]
    return [each.edit(levels[each.path]) for each in sorted(needed, key=lambda each: sum(map(each.is_inside, factors)))]


def resolved(start: Any, written: str, text: str) -> str:
    """The full path. Raises UserError where there is none, and for what a study sets itself."""
    try:
        path = tree.resolve_path(start, written)
    except UserError as error:
        raise UserError(f"--vary {text}: {error}") from None
    if path in ("run.seed", "run.name", "run.trackers"):
        raise UserError(f"--vary {text}: {'--seeds says over which seeds' if path == 'run.seed' else f'{path} cannot be varied'}")
    return path


def refuse_overlap(factors: Sequence[Factor], nested: bool) -> None:
    """Raises UserError where one factor would set what another one sets."""
    for number, one in enumerate(factors):
        for other in factors[:number]:
            if one.path == other.path:
                raise UserError(f"--vary {one.written} and --vary {other.written} both set {one.path}; list all its values once")
            outer, inner = sorted((one, other), key=lambda each: len(each.path))
            if inner.is_inside(outer) and not nested:
                raise UserError(
                    f"--vary {outer.written} replaces {outer.path}, in which --vary {inner.written} changes a setting; "
                    f"try them together by --grid, or write whole parts as values, as {outer.written}={{kind=…, {inner.name}=…}}"
                )


def _value(start: Any, written: str, value: str, path: str) -> Any:
    """What the value is in the tree."""
    try:
        return tree.get(tree.edit(start, [f"{written}={value}"]), path)
    except UserError as error:
        raise UserError(f"--vary {error}") from None
