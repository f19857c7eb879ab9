from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from torchstone.study.power import noncentrality, power_of_t, quantile
from torchstone.study.statistics import Effect, holm, paired, smallest_effect, spread, unpaired


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(values))


def numbers(effect: Effect) -> list[float]:
    return [value for value in asdict(effect).values() if isinstance(value, int | float)]


def samples(seed: int, n: int, m: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(0.9, 0.02, n), generator.normal(0.91, 0.03, m or n)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_paired_is_scipys(n, confidence):
    before, after = samples(n, n)
    found = paired(by_seed(before), by_seed(after), confidence)
    theirs = stats.ttest_rel(after, before)
    interval = theirs.confidence_interval(confidence)
    assert (found.n, found.n_baseline) == (n, n)
    assert found.mean == pytest.approx((after - before).mean(), rel=1e-12) and found.difference == found.mean
    assert found.std == pytest.approx((after - before).std(ddof=1), rel=1e-12)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.interval(0.9) == pytest.approx(tuple(theirs.confidence_interval(0.9)), rel=1e-9)


@pytest.mark.parametrize("n, m", [(2, 2), (5, 5), (3, 9), (20, 4)])
def test_unpaired_is_scipys_welch(n, m):
    before, after = samples(n, m, n)
    found = unpaired(by_seed(before), {100 + seed: value for seed, value in enumerate(after)})
    theirs = stats.ttest_ind(after, before, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert (found.n, found.n_baseline) == (n, m)
    assert found.df == pytest.approx(theirs.df, rel=1e-9)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.std == pytest.approx(np.hypot(before.std(ddof=1), after.std(ddof=1)))


def efron(samples, statistic, means: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """BCa by the formulas of Efron 1987, eq. 3.8 and of Efron and Tibshirani 1993, eq. 14.15, from resampled means."""
    whole = statistic(*samples)
    bias = stats.norm.ppf((means < whole).mean() + (means == whole).mean() / 2)
    pulls = []
    for which, sample in enumerate(samples):
        left_out = [statistic(*(np.delete(x, i) if j == which else x for j, x in enumerate(samples))) for i in range(len(sample))]
        pulls.append((np.mean(left_out) - np.array(left_out)) * (len(sample) - 1) / len(sample))
    acceleration = sum((pull**3).sum() for pull in pulls) / (6 * sum((pull**2).sum() for pull in pulls) ** 1.5)
    z = bias + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    return tuple(np.quantile(means, stats.norm.cdf(bias + z / (1 - acceleration * z))))


def test_the_bootstrap_is_efrons_bca():
    before, after = samples(1, 12)
    after[:2] += 0.06  # skewed, so that BCa is not the percentiles
    generator = np.random.default_rng(3)
    resampled = [x[generator.integers(0, 12, (100_000, 12))].mean(1) for x in (after - before, before, after)]
    found, both = paired(by_seed(before), by_seed(after)), unpaired(by_seed(before), by_seed(after))
    for ours, theirs, means in (
        (found, efron((after - before,), np.mean, resampled[0]), resampled[0]),
        (both, efron((after, before), lambda x, y: x.mean() - y.mean(), resampled[2] - resampled[1]), resampled[2] - resampled[1]),
    ):
        width = theirs[1] - theirs[0]
        assert (ours.bootstrap_low, ours.bootstrap_high) == pytest.approx(theirs, abs=0.02 * width)
        assert np.abs(np.array(theirs) - np.quantile(means, [0.025, 0.975])).max() > 0.03 * width, "no skew, nothing shown"
    assert paired(by_seed(before), by_seed(after)) == found, "the same values give the same interval"


def test_where_small_is_good_the_effect_turns_and_the_difference_does_not():
    before, after = samples(2, 6)
    large, small = (paired(by_seed(before), by_seed(after), mode=mode) for mode in ("max", "min"))
    assert small.mean == -large.mean and small.difference == large.difference
    assert (small.low, small.high, small.p) == (-large.high, -large.low, large.p)


values = st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=2, max_size=12)


@given(before=values, data=st.data(), scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
@pytest.mark.parametrize("effect", [paired, unpaired])
def test_swapping_turns_the_signs_and_units_do_not_matter(effect, before, data, scale, shift):
    after = data.draw(st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=len(before), max_size=len(before)))
    one = effect(by_seed(before), by_seed(after), resamples=0)
    assume(one.std is not None and one.std > 1e-6)
    other = effect(by_seed(after), by_seed(before), resamples=0)
    assert (other.mean, other.std, other.p) == pytest.approx((-one.mean, one.std, one.p), abs=1e-9)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=1e-9)
    moved = effect(*(by_seed(scale * x + shift for x in side) for side in (before, after)), resamples=0)
    assert moved.mean == pytest.approx(scale * one.mean, rel=1e-6, abs=1e-9 * (scale + 1))
    assert (moved.low, moved.high) == pytest.approx((scale * one.low, scale * one.high), rel=1e-5, abs=1e-7 * (scale + 1))
    assert moved.p == pytest.approx(one.p, rel=1e-4, abs=1e-9)


@given(before=st.lists(st.integers(0, 270), min_size=3, max_size=8), data=st.data())
def test_nothing_is_nan_and_the_bootstrap_swaps_too(before, data):
    after = data.draw(st.lists(st.integers(0, 270), min_size=len(before), max_size=len(before)))
    shares = [by_seed(x / 270 for x in side) for side in (before, after)]
    for effect in (paired, unpaired):
        one, other = (effect(*sides, resamples=199) for sides in (shares, shares[::-1]))
        assert np.isfinite(numbers(one)).all()
        # Unpaired, the two groups are resampled in turn, so swapping them changes the draws.
        if effect is paired and one.bootstrap_low is not None and one.bootstrap_high is not None:
            assert (other.bootstrap_low, other.bootstrap_high) == pytest.approx((-one.bootstrap_high, -one.bootstrap_low), abs=1e-9)
            assert one.bootstrap_low <= one.bootstrap_high


@pytest.mark.parametrize("effect", [paired, unpaired])
def test_fewer_than_two_say_nothing_of_chance(effect):
    for one, other in (({}, {}), ({0: 0.5}, {}), ({0: 0.5}, {0: 0.7})):
        found = effect(one, other)
        assert found.std is found.low is found.high is found.p is found.smallest is found.bootstrap_low is None
    assert found.mean == pytest.approx(0.2)
    assert effect({0: 0.5, 1: 0.6}, {0: 0.7, 1: 0.9}).bootstrap_low is None, "two are too few to resample"


def test_differences_that_are_all_equal_have_no_interval_and_an_exact_p():
    grid, above = np.arange(250, 256) / 270, np.arange(253, 259) / 270
    same = paired(by_seed(grid), by_seed(above))
    assert len(set(above - grid)) > 1, "3/270 each time, but for the rounding"
    assert same.std == 0 and same.low is same.high is same.smallest is None
    assert same.p == pytest.approx(stats.binomtest(6, 6).pvalue) == 2**-5
    none = paired(by_seed(grid), by_seed(grid))
    assert (none.mean, none.p, none.low) == (0, 1, None)


def test_two_groups_without_spread_are_permuted():
    found = unpaired(by_seed([0.5] * 4), by_seed([0.6] * 3))
    theirs = stats.permutation_test(([0.6] * 3, [0.5] * 4), lambda x, y: np.mean(x) - np.mean(y), n_resamples=np.inf)
    assert found.p == pytest.approx(theirs.pvalue) == 2 / 35
    assert found.low is None and found.std == 0
    one = unpaired(by_seed([0.5] * 4), by_seed([0.6, 0.7, 0.65]))
    assert one.p == pytest.approx(stats.ttest_ind([0.6, 0.7, 0.65], [0.5] * 4, equal_var=False).pvalue), "one spread is enough"


def test_what_diverged_or_is_missing_makes_no_pair():
    before = {0: 0.5, 1: 0.6, 2: None, 3: 0.7, 4: 0.4}
    after = {0: 0.6, 1: 0.8, 2: 0.9, 3: float("nan"), 5: 0.4}
    assert paired(before, after) == paired({0: 0.5, 1: 0.6}, {0: 0.6, 1: 0.8})
    assert (unpaired(before, after).n, unpaired(before, after).n_baseline) == (4, 4)


def test_extreme_numbers_are_no_nan():
    for values in ([1e99, -1e100, 3e99], [1e-200, 3e-200, 2e-200], [1e300, 0.1, 0.2, float("inf")], [-1e-12, 1e12, 5]):
        for effect in (paired, unpaired):
            found = effect(by_seed([0.0, 1e-3, 5e-4, 7.0]), by_seed(values))
            assert np.isfinite(numbers(found)).all()
    assert paired(by_seed([0.1, 0.2, 0.3]), by_seed([1e300, 0.1, 0.2])).n == 2


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04; times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; none less than the one before: 0.02, 0.03, 0.06, 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Holland and Copenhaver, Biometrics 1987: the first p of 0.3 stops all above it, whatever they were alone.
    assert holm([0.3, 0.3, 0.3]) == pytest.approx([0.9, 0.9, 0.9])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None, 0.02, None]) == [None, 0.02, None] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_adjusted_rejects_as_the_procedure_does(p, alpha):
    adjusted = holm(p)
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)
    rejected = set()
    for step, i in enumerate(order):  # Holm 1979, p. 66: stop at the first that is not below alpha / (m - step)
        if p[i] * (len(p) - step) > alpha:
            break
        rejected.add(i)
    assert {i for i, value in enumerate(adjusted) if value <= alpha} == rejected


@pytest.mark.parametrize("df", [1, 2, 4, 4.5, 9, 40])
@pytest.mark.parametrize("shift", [0.0, 0.7, 2.0, 4.0])
def test_power_is_that_of_the_noncentral_t(df, shift):
    for confidence in (0.9, 0.95, 0.99):
        critical = quantile(df, confidence)
        theirs = stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift)
        assert power_of_t(shift, df, confidence) == pytest.approx(theirs, abs=2e-5)


@pytest.mark.parametrize("n, confidence", [(2, 0.95), (3, 0.95), (5, 0.95), (10, 0.99)])
def test_the_smallest_effect_is_found_four_times_in_five(n, confidence):
    effect = smallest_effect(0.03, n, confidence)
    x = np.random.default_rng(n).normal(effect, 0.03, (40_000, n))
    found = stats.ttest_1samp(x, 0, axis=1).pvalue <= 1 - confidence
    assert found.mean() == pytest.approx(0.8, abs=0.01)
    assert smallest_effect(0.06, n, confidence) == pytest.approx(2 * effect)


def test_more_seeds_show_smaller_effects():
    sizes = [smallest_effect(1.0, n) for n in range(2, 30)]
    assert sizes == sorted(sizes, reverse=True) and smallest_effect(1.0, 1) is None
    assert paired(by_seed([1, 2, 4]), by_seed([2, 4, 5])).smallest == pytest.approx(smallest_effect(3**-0.5, 3))
    assert noncentrality(10_000.0) == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), rel=1e-3)


def test_the_spread_of_measurements():
    x = [1.0, 2.0, 4.0, 4.5]
    found = spread(x, 0.9)
    low, high = stats.t.interval(0.9, 3, np.mean(x), stats.sem(x))
    assert (found.mean, found.std) == pytest.approx((np.mean(x), np.std(x, ddof=1)))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert spread([]).mean is None and spread([3.0]).low is None and spread([3.0, 3.0]).low is None
