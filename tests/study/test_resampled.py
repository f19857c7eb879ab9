"""What a study says, tried on stored real runs: how often it is wrong, and what pairing is worth."""

import numpy as np
import pytest

from study.resampling import mode_of, runs, upper_bound, with_effect, without_effect
from torchstone.study.sequential import Plan
from torchstone.study.statistics import paired, unpaired
from torchstone.study.verdicts import compared

METRICS = ("validation_accuracy", "validation_loss")


def first(variant: str, metric: str, n: int) -> dict[int, float]:
    return dict(enumerate(runs(variant, metric)[:n].tolist()))


@pytest.mark.parametrize(
    "metric, seeds", [("validation_accuracy", 5), ("validation_accuracy", 10), ("validation_loss", 10), ("validation_loss", 40)]
)
def test_unpaired_intervals_of_studies_without_effect_cover_zero(metric, seeds):
    """Of five normal values each Welch's interval covers in 95.6 %, of five of these losses, which are skewed, in 96.0 %."""
    covered = 0
    for baseline, variant in without_effect(metric, 2000, seeds):
        effect = unpaired(baseline, variant, mode=mode_of(metric), resamples=0)
        covered += effect.low is None or effect.low <= 0 <= effect.high
    assert 0.935 <= covered / 2000 <= 0.965


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_the_sequential_rule_seldom_decides_what_is_not_there(metric):
    """A study is wrong if any look decides; `compared` at the end knows, for its p is that of the smallest look."""
    plan, false = Plan(seeds=tuple(range(20)), mode=mode_of(metric)), 0
    for baseline, variant in without_effect(metric, 2000, 20):
        false += plan.compared(baseline, {"v": variant})["v"].verdict in ("helps", "hurts")
    assert upper_bound(false, 2000) <= 0.06
    assert false >= 40, "a rule that never decides would pass, too"


@pytest.mark.parametrize("metric", METRICS)
def test_shuffled_labels_are_found_and_the_interval_covers_what_50_seeds_measured(metric):
    mode = mode_of(metric)
    everything = paired(first("baseline", metric, 50), first("labels_10", metric, 50), mode=mode, resamples=0)
    assert everything.high < 0
    ten = compared(first("baseline", metric, 10), {"labels_10": first("labels_10", metric, 10)}, mode=mode)["labels_10"]
    assert ten.verdict == "hurts" and ten.effect.low < everything.mean < ten.effect.high
    studies = [paired(*study, mode=mode, resamples=0) for study in with_effect("labels_10", metric, 1000, 10)]
    # Drawn from those 50 without replacement, so they cover their mean a little more often than 95 %.
    assert np.mean([each.low <= everything.mean <= each.high for each in studies]) >= 0.94
    assert np.mean([each.high < 0 for each in studies]) >= 0.7


def test_paired_intervals_are_shorter():
    """Here the seeds share initial weights and order; how much that is worth is in benchmarks/results/study_statistics.json."""
    for variant in ("labels_10", "smoothing_01", "ema", "lr_1e-3"):
        widths = []
        for study in with_effect(variant, "validation_accuracy", 200, 10):
            ends = [effect(*study, resamples=0) for effect in (paired, unpaired)]
            widths.append([each.high - each.low for each in ends])
        by_pairs, by_groups = np.mean(widths, axis=0)
        assert by_groups / by_pairs > 1.15


def test_the_rule_stops_early_on_a_real_effect():
    plan = Plan(seeds=tuple(range(20)))
    baseline, variant = first("baseline", "validation_accuracy", 20), first("lr_1e-3", "validation_accuracy", 20)
    n = next(n for n in range(3, 21) if not plan.next_seeds({s: baseline[s] for s in range(n)}, {"v": {s: variant[s] for s in range(n)}}))
    assert n <= 8
