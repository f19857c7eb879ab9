from itertools import product

import numpy as np
import pytest
from scipy import signal

from torchstone.study.divergence import diverged, fisher
from torchstone.study.statistics import holm
from torchstone.study.verdicts import NO_LARGER, compared

BASE = {0: 0.90, 1: 0.92, 2: 0.91, 3: 0.93, 4: 0.90}
NOISE = (0.001, -0.002, 0.002, 0.0, -0.001)


def moved(by: float, noise=NOISE) -> dict[int, float | None]:
    return {seed: value + by + noise[seed] for seed, value in BASE.items()}


def one(variant, baseline=BASE, **options):
    return compared(baseline, {"variant": variant}, **options)["variant"]


def test_helps_and_hurts_by_the_mode():
    for by, mode, verdict, word in (
        (0.03, "max", "helps", "Better by 0.03"),
        (-0.03, "max", "hurts", "Worse by 0.03"),
        (0.03, "min", "hurts", "Worse by 0.03"),
        (-0.03, "min", "helps", "Better by 0.03"),
    ):
        found = one(moved(by), mode=mode)
        assert found.verdict == verdict and found.sentence.startswith(word)
        document = found.document()
        assert document["difference"] == pytest.approx(by) and document["mean"] == pytest.approx(by if mode == "max" else -by)
        assert document["verdict"] == verdict and document["diverged"] == 0


def test_every_sentence_carries_n_and_the_interval():
    found = one(moved(0.03))
    low, high = found.effect.low, found.effect.high
    assert found.sentence == f"Better by 0.03 on average: 95 % interval {low:+.3g} to {high:+.3g} over 5 seeds, p = {found.effect.p:.2g}."
    turned = one(moved(0.03), mode="min")
    assert f"Worse by 0.03 on average: 95 % interval {low:+.3g} to {high:+.3g}" in turned.sentence, "as the metric has it"
    assert "90 % interval" in one(moved(0.03), confidence=0.9).sentence
    open_ = one(moved(0.0005, noise=[0.01, -0.02, 0.02, 0, -0.01]))
    assert open_.verdict == "undecided"
    widest = max(-open_.effect.low, open_.effect.high)
    assert f"still allows an effect of {widest:.3g}" in open_.sentence and f"effect of {open_.effect.smallest:.3g}" in open_.sentence
    other = one({seed: 0.95 - 0.001 * seed for seed in range(9)}, paired=False)
    assert "over 9 and 5 seeds" in other.sentence


def test_no_larger_effect_needs_a_size_and_the_interval_inside_it():
    noise = moved(0.0002)
    assert one(noise).verdict == "undecided", "nobody said what matters"
    widest = max(map(abs, one(noise).effect.interval(0.95)))
    assert one(noise, matters=widest * 1.01).verdict == NO_LARGER
    assert one(noise, matters=widest * 0.99).verdict == "undecided"
    found = one(noise, matters=widest * 1.01)
    assert f"No effect larger than {widest * 1.01:.3g} shown" in found.sentence and "over 5 seeds" in found.sentence
    two = compared(BASE, {"a": noise, "b": moved(0.5)}, matters=widest * 1.01)
    assert two["a"].verdict == "undecided", "two variants together need a wider interval"
    widest = max(map(abs, two["a"].effect.interval(0.975)))
    two = compared(BASE, {"a": noise, "b": moved(0.5)}, matters=widest * 1.01)
    assert two["a"].verdict == NO_LARGER and "for all comparisons together" in two["a"].sentence
    small = one(moved(0.03), matters=0.1)
    assert small.verdict == "helps" and small.sentence.endswith("less than the 0.1 that matters.")


@pytest.mark.parametrize("true", [0.0, 0.01])
def test_no_larger_effect_is_seldom_said_of_an_effect_that_large(true):
    generator, size, said = np.random.default_rng(0), 0.01, 0
    for _ in range(1000):
        before = generator.normal(0.9, 0.01, 12)
        after = before + generator.normal(true, 0.008, 12)
        said += one(dict(enumerate(after)), dict(enumerate(before)), matters=size, resamples=0).verdict == NO_LARGER
    assert said / 1000 <= 0.04 if true else said / 1000 > 0.8


def test_holm_over_the_variants_can_withhold_help():
    weak = moved(0.004, noise=[0.002, -0.003, 0.003, 0.001, -0.002])
    alone = one(weak)
    assert alone.verdict == "helps" and 0.01 < alone.effect.p < 0.05
    noise = {f"noise {i}": moved(0, noise=np.roll([0.01, -0.02, 0.02, 0, -0.01], i)) for i in range(5)}
    beside = compared(BASE, {"weak": weak, **noise})
    assert [each.p_holm for each in beside.values()] == pytest.approx(holm([each.effect.p for each in beside.values()]))
    assert beside["weak"].verdict == "undecided" and "not beside the other tests" in beside["weak"].sentence


def test_inert_is_said_by_the_caller_and_costs_the_others_nothing():
    found = compared(BASE, {"note": dict(BASE), "real": moved(0.03)}, inert={"note"})
    assert found["note"].verdict == "inert" and found["note"].document()["inert"] and found["note"].p_holm is None
    assert found["real"].p_holm == found["real"].effect.p
    assert one(dict(BASE)).verdict == "undecided", "equal numbers are not yet equal runs"


def test_fewer_than_two_pairs_are_withheld():
    found = one({0: 0.95}, {0: 0.90})
    assert found.verdict == "withheld" and "1 seed" in found.sentence and "0.05" in found.sentence
    assert one({}, BASE).verdict == one({0: 0.5, 1: None}, {0: None, 1: 0.4}).verdict == "withheld"


def test_equal_differences_are_told():
    found = one(moved(0.01, noise=[0] * 5))
    assert found.verdict == "undecided" and found.effect.p == 2**-4 and "spread is not known" in found.sentence
    six = {seed: 0.5 for seed in range(6)}
    assert one({seed: 0.6 for seed in range(6)}, six).verdict == "helps", "6 of 6: 2^-5 by the sign test"


# --- divergence -----------------------------------------------------------------------------------------------------------


def lose(values, *seeds):
    return {seed: None if seed in seeds else value for seed, value in values.items()}


def test_always_diverging_hurts_and_never_diverging_where_the_baseline_does_helps():
    found = one(lose(BASE, *range(5)))
    assert found.verdict == "hurts" and found.divergence.p == pytest.approx(2 / 252)
    assert found.sentence.startswith("It diverged at 5 of 5 seeds (0, 1, 2, 3, 4), the baseline at none of 5 (p = 0.0079).")
    assert found.document()["diverged"] == 5 and found.document()["diverged_seeds"] == [0, 1, 2, 3, 4]
    cured = one(dict(BASE), lose(BASE, *range(5)))
    assert cured.verdict == "helps" and cured.document()["diverged_seeds_baseline"] == [0, 1, 2, 3, 4]


def test_a_better_mean_of_the_survivors_is_not_help():
    found = one(lose(moved(0.03), 1, 4))
    assert found.effect.n == 3 and found.effect.p < 0.05
    assert found.verdict == "undecided"
    assert "It diverged at 2 of 5 seeds (1, 4), the baseline at none of 5, which speaks against that mean." in found.sentence
    assert one(lose(moved(-0.03), 1, 4)).verdict == "hurts", "what is lost agrees"
    assert one(moved(0.03), lose(BASE, 1)).verdict == "helps"
    assert one(moved(-0.03), lose(BASE, 1)).verdict == "undecided"
    assert one(lose(moved(0.03), 1), lose(BASE, 1)).verdict == "helps", "where both diverged nothing is lost"
    assert one(lose(moved(0), 1), matters=1.0).verdict == "undecided"
    assert one(lose(moved(0), 1), lose(BASE, 1), matters=1.0).verdict == NO_LARGER


def test_diverging_is_tested_in_the_same_family():
    found = compared(BASE, {"bad": lose(BASE, *range(5)), "fine": moved(0.03)})
    assert found["bad"].p_diverged_holm == pytest.approx(2 / 252) and found["fine"].p_holm == pytest.approx(2 * found["fine"].effect.p)
    assert found["fine"].divergence.p is None
    rare = one(lose(BASE, 2))
    assert rare.divergence.p is None, "1 of 5 could not be significant, so it is no test"


def test_divergence_counts_only_what_both_came_to():
    found = diverged({0: 0.5, 1: 0.5, 2: None}, {1: None, 2: None, 3: None}, paired=True, alpha=0.05)
    assert (found.variant, found.n, found.baseline, found.n_baseline) == ((1, 2), 2, (2,), 2)
    found = diverged({0: 0.5, 1: float("inf")}, {5: None}, paired=False, alpha=0.05)
    assert (found.variant, found.n, found.baseline, found.n_baseline, found.more) == ((5,), 1, (1,), 2, True)


@pytest.mark.parametrize("n", [3, 5, 8, 12])
def test_fishers_test_keeps_its_level_where_seeds_fail_together(n):
    """Exact size, over all outcomes: with probability `together` a seed's fate is one and the same for both."""
    rejected = np.array([[fisher(k, n, l, n) <= 0.05 for l in range(n + 1)] for k in range(n + 1)])
    sizes = {}
    for together, share in product((0, 0.3, 0.7, 1), np.linspace(0.05, 0.95, 19)):
        alone = (1 - together) * share * (1 - share)
        seed = np.array([[1 - share - alone, alone], [alone, share - alone]])  # of one seed: does the baseline fail, does the variant
        outcomes = np.ones((1, 1))
        for _ in range(n):
            outcomes = signal.convolve2d(outcomes, seed)
        assert outcomes.sum() == pytest.approx(1)
        sizes[together, share] = outcomes[rejected].sum()
    assert max(sizes.values()) <= 0.05
    assert all(sizes[1, share] == 0 for together, share in sizes if together == 1)
