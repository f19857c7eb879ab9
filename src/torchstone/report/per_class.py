"""What a variant does to each class: the difference of recall to the baseline, with an interval over the seeds.

Paired seeds: Student's t of the differences. Unpaired: Welch, "The generalization of 'Student's' problem when several different
population variances are involved", Biometrika 1947.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from torchstone.report.forest import Forest, Measured, Unit, forest, kind_of
from torchstone.report.study_reading import Study, Variant

MOST_FORESTS, MOST_ROWS = 6, 24
FEWEST = 1e-12
"""Spread below which every seed gave the same."""


def class_forests(study: Study) -> list[Forest]:
    """One of each variant that changed anything, the largest change first; nothing where the runs kept no recall by class."""
    if study.baseline is None:
        return []
    found = [(each, differences(study.baseline, each, study)) for each in study.variants if kind_of(each) != "inert"]
    found = [(each, rows) for each, rows in found if rows]
    found.sort(key=lambda pair: -max(abs(row.mean or 0.0) for row in pair[1]))
    shown = [(each, worst(rows)) for each, rows in found[:MOST_FORESTS]]
    unit = Unit("accuracy", 1)
    counts = {each.name: len(rows) for each, rows in found}
    return [forest(each.name, rows, unit, left_out=counts[each.name] - len(rows)) for each, rows in shown]


def worst(rows: list[Measured]) -> list[Measured]:
    """The classes that changed most, in order of their change."""
    kept = sorted(rows, key=lambda row: -abs(row.mean or 0.0))[:MOST_ROWS]
    return sorted(kept, key=lambda row: -(row.mean or 0.0))


def differences(baseline: Variant, variant: Variant, study: Study) -> list[Measured]:
    """The difference of each class that both have."""
    count = max((len(run.recall) for run in (*baseline.finished, *variant.finished)), default=0)
    found = []
    for place in range(count):
        before, after = by_seed(baseline, place), by_seed(variant, place)
        if study.paired:
            shared = sorted(before.keys() & after.keys())
            mean, low, high, n = paired([after[seed] - before[seed] for seed in shared], study.confidence)
        else:
            mean, low, high, n = welch(list(after.values()), list(before.values()), study.confidence)
        if mean is None:
            continue
        sure = low is not None and high is not None and (low > 0 or high < 0)
        kind = ("helps" if mean > 0 else "hurts") if sure else "undecided"
        name = study.classes[place] if len(study.classes) == count else str(place)
        found.append(Measured(name, kind, "", mean, low, high, n))
    return found


def by_seed(variant: Variant, place: int) -> dict[int, float]:
    pairs = ((run.pair, run.recall[place]) for run in variant.finished if place < len(run.recall))
    return {seed: value for seed, value in pairs if value is not None}


def paired(values: Sequence[float], confidence: float) -> tuple[float | None, float | None, float | None, int]:
    """(mean, low, high, n) of differences; no interval of fewer than two, nor where all are equal: their spread is not known."""
    n = len(values)
    mean, spread = (float(np.mean(values)) if n else None), float(np.std(values, ddof=1)) if n > 1 else 0.0
    if mean is None or spread < FEWEST:
        return mean, None, None, n
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * spread / math.sqrt(n)
    return mean, mean - half, mean + half, n


def welch(after: Sequence[float], before: Sequence[float], confidence: float) -> tuple[float | None, float | None, float | None, int]:
    """(difference of means, low, high, the smaller n)."""
    n = min(len(after), len(before))
    if n == 0:
        return None, None, None, 0
    mean = float(np.mean(after) - np.mean(before))
    if n < 2:
        return mean, None, None, n
    shares = [float(np.var(values, ddof=1)) / len(values) for values in (after, before)]
    error = sum(shares)
    if error < FEWEST**2:
        return mean, None, None, n
    freedom = error**2 / sum(part**2 / (len(values) - 1) for part, values in zip(shares, (after, before), strict=True))
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(error)
    return mean, mean - half, mean + half, n
