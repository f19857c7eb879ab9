"""Studies drawn from stored real runs (`benchmarks/study_runs.py` made them), so that the rules are tried on what they will meet."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from scipy import stats

RUNS = Path(__file__).resolve().parent / "digits_mini_runs.json"
Study = tuple[dict[int, float], dict[int, float]]
"""Values by seed of the baseline and of a variant."""


@cache
def runs(variant: str, metric: str) -> np.ndarray:
    """By seed."""
    return np.array(json.loads(RUNS.read_text())["variants"][variant][metric])


def mode_of(metric: str) -> str:
    return "min" if metric.endswith("loss") else "max"


def without_effect(metric: str, studies: int, seeds: int, variants: int = 1, seed: int = 0) -> Iterator[list[dict[int, float]]]:
    """Baseline and variants of A/A studies: all are runs of the baseline, none of them twice in a study."""
    generator, pool = np.random.default_rng(seed), runs("baseline", metric)
    for _ in range(studies):
        drawn = pool[generator.permutation(len(pool))[: seeds * (1 + variants)]].reshape(1 + variants, seeds)
        yield [dict(enumerate(row.tolist())) for row in drawn]


def with_effect(variant: str, metric: str, studies: int, seeds: int, seed: int = 0) -> Iterator[Study]:
    """Studies of some of the seeds that the variant and the baseline have in common, in any order."""
    generator, changed = np.random.default_rng(seed), runs(variant, metric)
    base = runs("baseline", metric)[: len(changed)]
    for _ in range(studies):
        drawn = generator.permutation(len(changed))[:seeds]
        yield dict(enumerate(base[drawn].tolist())), dict(enumerate(changed[drawn].tolist()))


def upper_bound(count: int, of: int, confidence: float = 0.99) -> float:
    """One-sided, of a share (Clopper and Pearson, Biometrika 1934)."""
    return float(stats.beta.ppf(confidence, count + 1, of - count)) if count < of else 1.0
