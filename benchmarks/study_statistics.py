"""How far a study's statistics can be trusted, and what they cost: coverage, false positives, saving of `--until decided`, pairing.

python benchmarks/study_statistics.py [STUDIES]

Studies are resampled from stored real runs of `digits-mini` (`study_runs.py`): A/A studies take all their runs from the baseline, no
run twice; studies of an effect take seeds that the variant and the baseline have in common.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from study.resampling import mode_of, runs, upper_bound, with_effect, without_effect
from torchstone.study.calibration import bound
from torchstone.study.sequential import Plan
from torchstone.study.statistics import paired, unpaired
from torchstone.study.verdicts import compared

METRICS = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss")
VARIANTS = ("labels_10", "smoothing_01", "ema", "lr_1e-3")
REAL = (*((variant, "validation_accuracy") for variant in VARIANTS), ("labels_10", "test_accuracy"), ("ema", "validation_loss"))
MOST = 20
FIRST = 3
POWER = 0.9
DRAWS = 4000
DEVIATIONS = (0.75, 1.0, 1.5, 2.0, 3.0)


def coverage(studies: int) -> dict[str, Any]:
    """Share of the unpaired 95 % intervals of A/A studies that contain zero."""
    found: dict[str, Any] = {}
    for metric in METRICS:
        for seeds in (5, 10, 40):
            effects = [unpaired(*study, resamples=0) for study in without_effect(metric, studies, seeds)]
            found.setdefault(metric, {})[f"{seeds} seeds"] = share([each.low is None or each.low <= 0 <= each.high for each in effects])
    return found


def false_positives(studies: int, variants: int) -> dict[str, Any]:
    """Of the sequential rule: A/A studies in which any look decides for help or hurt on any variant."""
    found = {}
    for metric in METRICS:
        plan, false = Plan(seeds=tuple(range(MOST)), mode=mode_of(metric)), 0  # type: ignore[arg-type]
        for baseline, *others in without_effect(metric, studies, MOST, variants):
            judged = plan.compared(baseline, {f"v{i}": values for i, values in enumerate(others)})
            false += any(each.verdict in ("helps", "hurts") for each in judged.values())
        found[metric] = {
            "false": false,
            "studies": studies,
            "rate": round(false / studies, 4),
            "upper_99": round(upper_bound(false, studies), 4),
        }
    return found


def saving(differences: np.ndarray) -> dict[str, Any]:
    """Of the rule that looks after every seed, in differences [studies, seeds] of an effect that is there.

    `power_90`: both plans are the smallest with that power: the fixed number of seeds, and the most seeds of the rule, which it seldom
    takes. `at_most_20`: what a plan of 20 seeds comes to, against the fixed number of that power, and against 20.
    """
    p = looks(differences)
    fixed = least(lambda n: (p[:, n - 1] <= 0.05).mean() >= POWER, 2, p.shape[1])
    most = least(lambda n: stops(p, n)[0] >= POWER, max(fixed, 3), p.shape[1])
    seeds = stops(p, most)[1]
    power_20, seeds_20 = stops(p, MOST)
    same = least(lambda n: (p[:, n - 1] <= 0.05).mean() >= power_20, 2, p.shape[1])
    return {
        "effect_in_deviations": round(abs(float(differences.mean() / differences.std())), 2),
        "power_90": {"fixed_seeds": fixed, "most_seeds": most, "seeds_mean": round(seeds, 1), "saved": round(1 - seeds / fixed, 3)},
        "at_most_20": {
            "power": round(power_20, 3),
            "seeds_mean": round(seeds_20, 1),
            "fixed_seeds_of_that_power": same,
            "saved": round(1 - seeds_20 / same, 3),
            "saved_of_20": round(1 - seeds_20 / MOST, 3),
        },
    }


def stops(p: np.ndarray, most: int) -> tuple[float, float]:
    """Power and mean seeds of the rule, from the p of every look."""
    crossed = p[:, FIRST - 1 : most] <= bound(0.05, FIRST, most)
    some = crossed.any(axis=1)
    return float(some.mean()), float(np.where(some, FIRST + crossed.argmax(axis=1), most).mean())


def mixture(differences: np.ndarray, variance: float = 1.0) -> dict[str, Any]:
    """The rule that was not taken: the t test that is valid at any time, a mixture over effects ~ N(0, variance) in deviations.

    Its Bayes factor is a martingale under the null (Lai, 1976; Wang and Ramdas, 2024), stopped at 1 / 0.05 or 20 seeds.
    """
    x = differences[:, :MOST]
    n = np.arange(1, MOST + 1)
    total, squares = x.cumsum(axis=1), (x**2).cumsum(axis=1)
    explained, wide = total**2 / (n * squares), 1 + n * variance
    # (1 + t^2 / (n-1)) / (1 + t^2 / ((n-1) wide)), in the share r of the squares that the mean explains: 1 / (1 - r (1 - 1 / wide)).
    crossed = -np.log(wide) / 2 - n / 2 * np.log1p(-explained * (1 - 1 / wide)) >= np.log(20)
    some = crossed.any(axis=1)
    seeds, power = float(np.where(some, 1 + crossed.argmax(axis=1), MOST).mean()), float(some.mean())
    fixed = least(lambda n: n > MOST or (looks(differences[:, :n])[:, -1] <= 0.05).mean() >= power, 2, MOST + 1)
    return {
        "power": round(power, 3),
        "seeds_mean": round(seeds, 1),
        "fixed_seeds_of_that_power": fixed if fixed <= MOST else "more than 20",
    }


def looks(differences: np.ndarray) -> np.ndarray:
    """p of the paired t test of the first 1, 2, … differences of each study, as `paired` has it: exact where all are equal."""
    p = np.ones(differences.shape)
    for n in range(2, differences.shape[1] + 1):
        d = differences[:, :n]
        equal = np.ptp(d, axis=1) < 1e-12
        p[~equal, n - 1] = stats.ttest_1samp(d[~equal], 0, axis=1).pvalue
        p[equal & (np.abs(d[:, 0]) > 1e-12), n - 1] = 2.0 ** (1 - n)
    return p


def least(enough: Callable[[int], Any], low: int, high: int) -> int:
    return next(n for n in range(low, high + 1) if enough(n))


def real_differences(variant: str, metric: str) -> np.ndarray:
    """The 50 paired differences in many orders."""
    changed = runs(variant, metric)
    generator = np.random.default_rng(1)
    return np.array([generator.permutation(changed - runs("baseline", metric)[: len(changed)]) for _ in range(DRAWS)])


def normal_differences(effect: float, seeds: int = 40) -> np.ndarray:
    return np.random.default_rng(2).normal(effect, 1.0, (DRAWS, seeds))


def pairing(studies: int) -> dict[str, Any]:
    """Mean length of the unpaired interval over that of the paired one, on the same runs, and the correlation that makes it."""
    found = {}
    for variant in VARIANTS:
        for metric in ("validation_accuracy", "validation_loss"):
            changed = runs(variant, metric)
            one: dict[str, Any] = {"correlation": round(float(np.corrcoef(changed, runs("baseline", metric)[: len(changed)])[0, 1]), 3)}
            for seeds in (5, 10):
                lengths = []
                for study in with_effect(variant, metric, studies, seeds):
                    both = [effect(*study, resamples=0) for effect in (paired, unpaired)]
                    if all(each.low is not None for each in both):
                        lengths.append([each.high - each.low for each in both])  # type: ignore[operator]
                by_pairs, by_groups = np.mean(lengths, axis=0)
                one[f"{seeds} seeds"] = round(float(by_groups / by_pairs), 2)
            found.setdefault(variant, {})[metric] = one
    return found


def planted(studies: int, seeds: int = 10) -> dict[str, Any]:
    """Studies of 10 seeds of the shuffled labels: how often they are found, and how often the interval has the mean of all 50."""
    found = {}
    for metric in ("validation_accuracy", "validation_loss"):
        mode = mode_of(metric)
        whole = paired(*(dict(enumerate(runs(name, metric)[:50])) for name in ("baseline", "labels_10")), mode=mode, resamples=0)  # type: ignore[arg-type]
        effects = [paired(*study, mode=mode, resamples=0) for study in with_effect("labels_10", metric, studies, seeds)]  # type: ignore[arg-type]
        found[metric] = {
            "mean_of_50_seeds": round(whole.mean, 5),  # type: ignore[arg-type]
            "interval_of_50_seeds": [round(whole.low, 5), round(whole.high, 5)],  # type: ignore[arg-type]
            "found": share([each.high is not None and each.high < 0 for each in effects]),
            "covered": share([each.low is not None and each.low <= whole.mean <= each.high for each in effects]),
        }
    return found


def milliseconds() -> dict[str, float]:
    """Of judging four variants over 10 seeds, once what is made once a process is made."""
    values = {name: dict(enumerate(runs(name, "validation_accuracy")[:10].tolist())) for name in ("baseline", *VARIANTS)}
    baseline = values.pop("baseline")
    plan = Plan(seeds=tuple(range(10)))
    started = time.perf_counter()
    plan.compared(baseline, values)
    first = time.perf_counter() - started
    return {
        "fixed": round(1e3 * machine.best(lambda: compared(baseline, values), 5), 2),
        "sequential": round(1e3 * machine.best(lambda: plan.compared(baseline, values), 5), 2),
        "sequential_first_call": round(1e3 * first, 1),
    }


def share(hits: list[bool]) -> float:
    return round(float(np.mean(hits)), 4)


def main(studies: int) -> None:
    facts = machine.facts()
    one, three = false_positives(studies, 1), false_positives(studies, 3)
    worst = max(each["upper_99"] for each in one.values())
    savings = {f"{variant} by {metric}": saving(real_differences(variant, metric)) for variant, metric in REAL}
    machine.write(
        "study_statistics",
        {
            "what": f"statistics of a study on {studies} studies resampled from stored runs of digits-mini",
            "machine": facts,
            "studies": studies,
            "unpaired_coverage_of_zero": coverage(studies),
            "sequential": {
                "most_seeds": MOST,
                "false_positives": one,
                "false_positives_upper_99_worst": worst,
                "false_positives_of_three_variants": three,
                "saving_on_real_effects": savings,
                "saving_on_normal_differences": {f"{d:g} deviations": saving(normal_differences(d)) for d in DEVIATIONS},
            },
            "mixture_t_test_on_normal_differences": {f"{d:g} deviations": mixture(normal_differences(d)) for d in DEVIATIONS},
            "unpaired_interval_over_paired": pairing(min(studies, 1000)),
            "planted_effect_10_seeds": planted(min(studies, 1000)),
            "milliseconds": milliseconds(),
        },
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
