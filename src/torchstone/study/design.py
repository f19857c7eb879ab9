"""From factors to variants: which combinations of values are trained.

one      the baseline, and every other value of each factor by itself (one factor at a time)
grid     every combination
without  the baseline has everything on; each factor is set to its first value in turn (leave one out)
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torchstone.core.errors import UserError
from torchstone.study.factors import Factor, edits_of

Design = Literal["one", "grid", "without"]
BASELINE = "baseline"
MOST_VARIANTS = 500
REPEATED = re.compile(r"(?<![\w.])([\w.]+)(?:,\1){3,}(?![\w.])")


@dataclass(frozen=True, slots=True)
class Variant:
    """One experiment of the study, to be trained with every seed."""

    name: str
    """Of its folder."""
    levels: tuple[str, ...]
    """The value of each factor, as written."""
    edits: tuple[str, ...]
    """What makes it of the baseline; empty for the baseline itself."""


def variants_of(factors: Sequence[Factor], design: Design) -> tuple[Variant, ...]:
    """The baseline first. Raises UserError for more variants than anybody means."""
    base = tuple(factor.baseline for factor in factors)
    match design:
        case "one":
            rows = [base] + [
                _with(base, n, value) for n, factor in enumerate(factors) for value in factor.values if value != factor.baseline
            ]
        case "without":
            rows = [base] + [_with(base, n, factor.values[0]) for n, factor in enumerate(factors)]
        case "grid":
            count = 1
            for factor in factors:
                count *= len(factor.values)
            if count > MOST_VARIANTS:
                raise UserError(f"--grid makes {count} variants of {len(factors)} factors; at most {MOST_VARIANTS}: leave values out")
            others = [(factor.baseline, *(value for value in factor.values if value != factor.baseline)) for factor in factors]
            rows = list(itertools.product(*others))
    if len(rows) > MOST_VARIANTS:
        raise UserError(f"{len(rows)} variants; at most {MOST_VARIANTS}")
    taken: set[str] = set()
    return tuple(_variant(row, factors, taken) for row in rows)


def _with(base: tuple[str, ...], number: int, value: str) -> tuple[str, ...]:
    return (*base[:number], value, *base[number + 1 :])


def _variant(levels: tuple[str, ...], factors: Sequence[Factor], taken: set[str]) -> Variant:
    changed = [(factor, value) for factor, value in zip(factors, levels, strict=True) if value != factor.baseline]
    name = folder_name(f"{factor.name}={value}" for factor, value in changed) if changed else BASELINE
    if name.casefold() in taken:  # two factors of one name, or values that differ in punctuation alone
        name = next(f"{name}-{n}" for n in itertools.count(2) if f"{name}-{n}".casefold() not in taken)
    taken.add(name.casefold())
    by_path = {factor.path: value for factor, value in zip(factors, levels, strict=True)}
    return Variant(name, levels, tuple(edits_of(factors, by_path, [factor for factor, _ in changed])))


def folder_name(parts: Iterable[str]) -> str:
    """Readable, of at most 80 letters, and a plain folder name everywhere. A list that says one thing four times or more is counted.

    >>> folder_name(["averaging={kind=ema, decay=0.9}", "lr=1e-3"])
    'averaging=kind=ema,decay=0.9+lr=1e-3'
    >>> folder_name(["hidden=[64,64,64,64,10]"])
    'hidden=64x4,10'
    """
    name = "+".join(REPEATED.sub(counted, re.sub(r"[^\w.=,+-]+", "", part)) for part in parts)
    return name[:80].strip(".-+,=") or "variant"


def counted(found: re.Match[str]) -> str:
    """`64,64,64,64` as `64x4`."""
    return f"{found[1]}x{found[0].count(',') + 1}"
