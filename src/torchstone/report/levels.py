"""A grid's means: one line of a panel for each level of a factor, over the levels of another, a panel for each combination of the rest.

Which factor goes across is read off the levels: the one with the most numbers in a row, so that a sweep is a curve.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torchstone.report.headline import SHARES
from torchstone.report.study_reading import Study, Variant

MOST_PANELS, MOST_LINES = 6, 6


@dataclass(frozen=True, slots=True)
class Place:
    """One variant in a panel."""

    mean: float | None
    """None: no run of it has a value."""
    low: float | None
    high: float | None
    lost: int
    """Runs without a value: diverged or failed."""
    runs: int


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    places: tuple[Place | None, ...]
    """Over the columns; None where the study has no such variant."""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    across: str
    """The factor of the columns."""
    down: str
    """The factor of the rows."""
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    low: float
    high: float
    """The same in all panels of a study."""


def panels(study: Study) -> tuple[Panel, ...]:
    """Of a grid of two or more factors, or of one whose levels are tables ({kind=adam,lr=0.1}): their keys are factors too. None where
    that would be more than a reader can take in."""
    found = [(each, expanded(each.levels)) for each in study.all]
    paths = list(found[0][1]) if found else []
    if len(paths) < 2 or any(list(levels) != paths for _, levels in found) or (study.design != "grid" and len(study.factors) > 1):
        return ()
    seen = {path: in_order([levels[path] for _, levels in found]) for path in paths}
    paths = [path for path in paths if len(seen[path]) > 1]
    if len(paths) < 2:
        return ()
    across = max(paths, key=lambda path: (is_sweep(seen[path]), len(seen[path])))
    down, *rest = sorted((path for path in paths if path != across), key=lambda path: -len(seen[path]))
    combinations = list(itertools.product(*(seen[path] for path in rest)))
    if len(combinations) > MOST_PANELS or len(seen[down]) > MOST_LINES:
        return ()
    variants = {tuple(levels[path] for path in paths): each for each, levels in found}
    names = named(paths)
    columns = seen[across]
    made = []
    for combination in combinations:
        fixed = dict(zip(rest, combination, strict=True))
        grid = [
            [place(variants.get(tuple((fixed | {down: level, across: column})[path] for path in paths))) for column in columns]
            for level in seen[down]
        ]
        # A column or a row that this combination has nothing of is left out.
        there = [number for number in range(len(columns)) if any(row[number] for row in grid)]
        rows = tuple(Row(level, tuple(row[i] for i in there)) for level, row in zip(seen[down], grid, strict=True) if any(row))
        title = ", ".join(f"{names[path]} = {level}" for path, level in fixed.items())
        made.append((title, tuple(columns[i] for i in there), rows))
    low, high = ends([each for _, _, rows in made for row in rows for each in row.places if each])
    if study.metric in SHARES:
        low, high = max(low, 0.0), min(high, 1.0)
    return tuple(Panel(title, names[across], names[down], shown, rows, low, high) for title, shown, rows in made if rows)


def expanded(levels: Mapping[str, str]) -> dict[str, str]:
    """The levels, those that are tables key by key.

    >>> expanded({"optimizer": "{kind=adam,lr=0.1}", "model.norm": "none"})
    {'optimizer.kind': 'adam', 'optimizer.lr': '0.1', 'model.norm': 'none'}
    """
    made = {}
    for path, level in levels.items():
        if re.fullmatch(r"\{\w+=[^{}\[\]=,]+(,\w+=[^{}\[\]=,]+)*\}", level):
            made |= {f"{path}.{key.strip()}": value for key, value in (pair.split("=") for pair in level[1:-1].split(","))}
        else:
            made[path] = level
    return made


def in_order(levels: Sequence[str]) -> list[str]:
    """Each once: numbers by size, words as they come."""
    once = list(dict.fromkeys(levels))
    return sorted(once, key=float) if is_sweep(once) else once


def is_sweep(levels: Sequence[str]) -> bool:
    """Whether all levels are numbers."""
    try:
        return all(math.isfinite(float(level)) for level in levels)
    except ValueError:
        return False


def named(paths: Sequence[str]) -> dict[str, str]:
    """The shortest ends of the paths that tell them apart.

    >>> named(["method.optimizer.lr", "method.optimizer"]), named(["method.averaging.decay", "method.optimizer.decay"])
    ({'method.optimizer.lr': 'lr', 'method.optimizer': 'optimizer'}, \
{'method.averaging.decay': 'averaging.decay', 'method.optimizer.decay': 'optimizer.decay'})
    """
    made = {}
    for path in paths:
        words = path.split(".")
        ends = (".".join(words[-n:]) for n in range(1, len(words) + 1))
        made[path] = next(
            (end for end in ends if not any(other != path and (other == end or other.endswith("." + end)) for other in paths)), path
        )
    return made


def place(variant: Variant | None) -> Place | None:
    if variant is None or not variant.runs:
        return None
    low, high = variant.ends or (None, None)
    return Place(variant.mean, low, high, len(variant.runs) - len(variant.finished), len(variant.runs))


def ends(places: Sequence[Place]) -> tuple[float, float]:
    """Around all means, and around the intervals as far as they do not press the means together."""
    means = [each.mean for each in places if each.mean is not None]
    if not means:
        return 0.0, 1.0
    low, high = min(means), max(means)
    reach = max(high - low, 1e-3 * max(abs(high), abs(low)), 1e-9)
    bounds = [end for each in places for end in (each.low, each.high) if end is not None and low - reach / 2 <= end <= high + reach / 2]
    return min([low, *bounds]), max([high, *bounds])
