"""Does one change depend on another? The difference of differences, in a study that trained every combination (`--grid`).

For the levels a of factor A and b of factor B, beside the levels a0 and b0 that the baseline has:

    (y[a, b] - y[a0, b]) - (y[a, b0] - y[a0, b0])

averaged over the levels of all other factors, and turned so that positive is: together they bring more than each alone adds up to.
Fisher, "The Design of Experiments", 1935, chapter 6. Paired, this is one number a seed and Student's t of those; unpaired, every
combination has a mean of its own and the degrees of freedom are Satterthwaite's. Holm's correction over all that are reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import sqrt
from typing import Any

import numpy as np
from scipy import special

from torchstone.study.power import quantile
from torchstone.study.statistics import Mode, Values, constant, finite, holm, rounding, turned, welch

Levels = tuple[str, ...]
Contrast = dict[Levels, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interaction:
    """Of one pair of levels."""

    factors: tuple[str, str]
    levels: tuple[str, str]
    n: int
    """Seeds at which every combination it needs has a value; unpaired, the fewest values of any."""
    mean: float | None
    std: float | None
    """Of one seed's number; unpaired, of single runs."""
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None

    def document(self) -> dict[str, Any]:
        """As in results.json."""
        rest = {name: getattr(self, name) for name in ("n", "mean", "std", "low", "high", "p", "p_holm")}
        return {"factors": list(self.factors), "levels": list(self.levels), **rest}


def interactions(
    cells: Mapping[Levels, Values],
    factors: Mapping[str, Sequence[str]],
    *,
    mode: Mode = "max",
    confidence: float = 0.95,
    paired: bool = True,
) -> list[Interaction]:
    """All pairs of factors and of their levels that are not the first, which is the baseline's.

    `cells`: the values by seed of every combination, the levels in the order of `factors`. As everywhere in a study: diverged runs
    have no difference, fewer than two values give no interval, and where all are equal p is exact (2^(1-n), or 1 if they are 0;
    unpaired there is no such test) and there is no interval.

    >>> y = {("0", "0"): [0.0, 0.0], ("1", "0"): [1.0, 1.1], ("0", "1"): [2.0, 2.0], ("1", "1"): [4.0, 4.3]}
    >>> found = interactions({cell: dict(enumerate(values)) for cell, values in y.items()}, {"a": "01", "b": "01"})
    >>> found[0].levels, round(found[0].mean, 3)
    (('1', '1'), 1.1)
    """
    names = list(factors)
    found: list[tuple[tuple[str, str], tuple[str, str], Measured]] = []
    for a, b in combinations(range(len(names)), 2):
        for level_a, level_b in product(factors[names[a]][1:], factors[names[b]][1:]):
            weights = contrast(factors, a, level_a, b, level_b)
            measure = over_seeds if paired else over_means
            found.append(((names[a], names[b]), (level_a, level_b), measure(cells, weights, mode, confidence)))
    adjusted = holm([measured.p for *_, measured in found])
    return [
        Interaction(
            factors=pair,
            levels=levels,
            n=it.n,
            mean=it.mean,
            std=it.std,
            low=None if it.reach is None or it.mean is None else it.mean - it.reach,
            high=None if it.reach is None or it.mean is None else it.mean + it.reach,
            p=it.p,
            p_holm=p_holm,
        )
        for (pair, levels, it), p_holm in zip(found, adjusted, strict=True)
    ]


def contrast(factors: Mapping[str, Sequence[str]], a: int, level_a: str, b: int, level_b: str) -> Contrast:
    """What every combination counts: +-1 over the number of combinations of the other factors."""
    others = [levels for i, levels in enumerate(factors.values()) if i not in (a, b)]
    first_a, first_b = (list(factors.values())[i][0] for i in (a, b))
    share = 1 / np.prod([len(levels) for levels in others], initial=1.0)
    weights: Contrast = {}
    for rest in product(*others):
        for (at_a, sign_a), (at_b, sign_b) in product(((level_a, 1), (first_a, -1)), ((level_b, 1), (first_b, -1))):
            cell = list(rest)
            for i, level in sorted(((a, at_a), (b, at_b))):
                cell.insert(i, level)
            weights[tuple(cell)] = float(sign_a * sign_b * share)
    return weights


@dataclass(frozen=True, slots=True)
class Measured:
    n: int
    mean: float | None = None
    std: float | None = None
    reach: float | None = None
    p: float | None = None


def over_seeds(cells: Mapping[Levels, Values], weights: Contrast, mode: Mode, confidence: float) -> Measured:
    """Paired: the contrast of every seed, then Student's t."""
    values = {cell: finite(cells.get(cell, {})) for cell in weights}
    seeds = sorted(set.intersection(*(set(found) for found in values.values())))
    n = len(seeds)
    if n == 0:
        return Measured(0)
    table = np.array([[found[seed] for seed in seeds] for found in values.values()])
    x = turned(np.array(list(weights.values())) @ table, mode)
    mean = float(x.mean())
    if n < 2:
        return Measured(n, mean)
    scale = len(weights) * float(np.abs(table).max())
    if constant(x, scale):
        nothing = abs(mean) <= rounding(scale)
        return Measured(n, 0.0 if nothing else mean, 0.0, None, 1.0 if nothing else 2.0 ** (1 - n))
    std = float(x.std(ddof=1))
    return by_t(n, mean, std, std / sqrt(n), n - 1, confidence)


def over_means(cells: Mapping[Levels, Values], weights: Contrast, mode: Mode, confidence: float) -> Measured:
    """Unpaired: the contrast of the means, whose variances add."""
    values = {cell: np.array([value for _, value in sorted(finite(cells.get(cell, {})).items())]) for cell in weights}
    n = min(map(len, values.values()))
    if n == 0:
        return Measured(0)
    mean = float(turned(sum(weight * values[cell].mean() for cell, weight in weights.items()), mode))
    if n < 2:
        return Measured(n, mean)
    variances = [weight**2 * float(values[cell].var(ddof=1)) for cell, weight in weights.items()]
    if all(constant(x, float(np.abs(x).max())) for x in values.values()):
        return Measured(n, mean, 0.0)
    error, df = welch(variances, [len(values[cell]) for cell in weights])
    return by_t(n, mean, sqrt(sum(variances)), error, df, confidence)


def by_t(n: int, mean: float, std: float, error: float, df: float, confidence: float) -> Measured:
    return Measured(n, mean, std, quantile(df, confidence) * error, float(2 * special.stdtr(df, -abs(mean) / error)))
