"""What a variant changes against the baseline, over seeds: the mean difference, its intervals, its p, and what could have been seen.

Student, "The probable error of a mean", Biometrika 1908 (paired); Welch, "The generalization of Student's problem when several
different population variances are involved", Biometrika 1947 (unpaired); Efron, "Better bootstrap confidence intervals", JASA 1987
(BCa); Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 1979.

Every difference is turned so that positive is better, whether the metric is to be large ("max") or small ("min"). A number that the
values cannot give is None, never NaN:

    fewer than two pairs                     no spread, no interval, no p
    fewer than three (of either, unpaired)   no bootstrap interval
    all differences equal                    the spread is not known (that of a metric which counts is not 0), so no interval; p of an exact
                                             test instead of t: all 0, 1; all the same otherwise, 2^(1-n), the sign test's

Shapes: n pairs; unpaired, n values of the variant and m of the baseline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from typing import Literal

import numpy as np
from jaxtyping import Float64
from scipy import special, stats

from torchstone.core import random
from torchstone.study.power import POWER, noncentrality, quantile

Mode = Literal["max", "min"]
Values = Mapping[int, float | None]
"""What a run came to, by its seed. None, not finite or beyond `LARGEST`: it diverged."""
LARGEST = 1e100
"""The cubes of larger numbers overflow."""
RESAMPLES = 9999
BOOTSTRAP_SEED = 1987
"""Of the resampling: the same values give the same interval, in every process."""
LEAST_TO_RESAMPLE = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """A mean difference, positive = better, and how sure it is."""

    n: int
    """Pairs; unpaired, values of the variant."""
    n_baseline: int
    mean: float | None
    difference: float | None
    """Variant minus baseline as the metric has it: -mean where small is good."""
    std: float | None
    """Standard deviation of one difference; unpaired, of a difference of two single runs."""
    low: float | None
    high: float | None
    """The t interval."""
    bootstrap_low: float | None
    bootstrap_high: float | None
    """The BCa interval of the mean. Narrow for few seeds, whatever the data: it stands beside the t interval, which decides."""
    p: float | None
    """Two-sided."""
    smallest: float | None
    """The smallest effect that these seeds would have shown four times in five."""
    df: float | None
    confidence: float
    mode: Mode

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """The t interval at another confidence."""
        if self.mean is None or self.low is None or self.high is None or self.df is None:
            return None
        scale = quantile(self.df, confidence) / quantile(self.df, self.confidence)
        return self.mean - (self.mean - self.low) * scale, self.mean + (self.high - self.mean) * scale


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A mean of measurements and its t interval."""

    n: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None


def paired(baseline: Values, variant: Values, confidence: float = 0.95, *, mode: Mode = "max", resamples: int = RESAMPLES) -> Effect:
    """The effect over the seeds at which both have a value: t = mean / (std / sqrt n) with n - 1 degrees of freedom.

    `resamples` 0 leaves the bootstrap out.

    >>> effect = paired({0: 0.90, 1: 0.92, 2: 0.91}, {0: 0.93, 1: 0.94, 2: 0.95})
    >>> round(effect.mean, 4), round(effect.low, 4), round(effect.high, 4), round(effect.p, 4)
    (0.03, 0.0052, 0.0548, 0.0351)
    """
    seeds = sorted(finite(baseline).keys() & finite(variant).keys())
    before, after = values_at(baseline, seeds), values_at(variant, seeds)
    d = turned(after - before, mode)
    n = len(d)
    if n < 2:
        return unknown(n, n, mean_of(d), mode, confidence)
    if constant(d, np.abs([before, after]).max()):
        return without_spread(n, n, float(d.mean()), float(np.abs([before, after]).max()), 2.0 ** (1 - n), mode, confidence)
    std = float(d.std(ddof=1))
    ends = bca((d,), confidence, resamples)
    return measured(n, n, float(d.mean()), std, std / sqrt(n), n - 1, ends, mode, confidence)


def unpaired(baseline: Values, variant: Values, confidence: float = 0.95, *, mode: Mode = "max", resamples: int = RESAMPLES) -> Effect:
    """The effect where the seeds of the two have nothing in common: Welch's t, whose two variances may differ.

    Where neither has a spread, p is that of the exact permutation test: 2 / C(n + m, n) if they differ.

    >>> effect = unpaired({0: 0.90, 1: 0.92, 2: 0.91}, {3: 0.93, 4: 0.94, 5: 0.95})
    >>> round(effect.mean, 4), round(effect.low, 4), round(effect.high, 4), round(effect.p, 4)
    (0.03, 0.0073, 0.0527, 0.0213)
    """
    before, after = (values_at(values, sorted(finite(values))) for values in (baseline, variant))
    n, m = len(after), len(before)
    mean = float(turned(after.mean() - before.mean(), mode)) if n and m else None
    if mean is None or n < 2 or m < 2:
        return unknown(n, m, mean, mode, confidence)
    scale = float(np.abs(np.concatenate((before, after))).max())
    if constant(before, scale) and constant(after, scale):
        return without_spread(n, m, mean, scale, 2 / comb(n + m, n), mode, confidence)
    variances = float(after.var(ddof=1)), float(before.var(ddof=1))
    error, df = welch(variances, (n, m))
    ends = bca((turned(after, mode), turned(before, mode)), confidence, resamples)
    return measured(n, m, mean, sqrt(sum(variances)), error, df, ends, mode, confidence)


def welch(variances: Sequence[float], sizes: Sequence[int]) -> tuple[float, float]:
    """Standard error of a sum or difference of independent means, and its degrees of freedom (Satterthwaite, Biometrics 1946)."""
    shares = [variance / n for variance, n in zip(variances, sizes, strict=True)]
    whole = sum(shares)
    return sqrt(whole), 1 / sum((share / whole) ** 2 / (n - 1) for share, n in zip(shares, sizes, strict=True))


def spread(values: Sequence[float], confidence: float = 0.95) -> Spread:
    """Mean and t interval of measurements, of times and memory say; no interval of fewer than two, or where all are equal.

    >>> round(spread([1.0, 2.0, 3.0]).high, 4)
    4.4841
    """
    x = np.asarray(values, np.float64)
    n, mean = len(x), mean_of(x)
    if mean is None or n < 2:
        return Spread(n=n, mean=mean, std=None, low=None, high=None)
    if constant(x, float(np.abs(x).max())):
        return Spread(n=n, mean=mean, std=0.0, low=None, high=None)
    std = float(x.std(ddof=1))
    reach = quantile(n - 1, confidence) * std / sqrt(n)
    return Spread(n=n, mean=mean, std=std, low=mean - reach, high=mean + reach)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p: the smallest of m is multiplied by m, the next by m - 1 …, none is less than the one before, none above 1.

    Rejecting where it is at most alpha makes a false rejection among all of them at most alpha likely, however they depend on
    each other. None is no test and does not count.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    tested = sorted((value, i) for i, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    least = 0.0
    for done, (value, i) in enumerate(tested):
        least = max(least, min(1.0, value * (len(tested) - done)))
        adjusted[i] = least
    return adjusted


def smallest_effect(std: float, n: int, confidence: float = 0.95, power: float = POWER) -> float | None:
    """The true mean difference at which a paired t test of n pairs rejects with this power; `std` 1 gives it in deviations.

    >>> round(smallest_effect(1.0, 5), 3), smallest_effect(1.0, 1)
    (1.682, None)
    """
    return std / sqrt(n) * noncentrality(n - 1, confidence, power) if n > 1 else None


def finite(values: Values) -> dict[int, float]:
    """Those that did not diverge."""
    return {seed: value for seed, value in values.items() if value is not None and abs(value) <= LARGEST}


def values_at(values: Values, seeds: Sequence[int]) -> Float64[np.ndarray, " n"]:
    return np.array([values[seed] for seed in seeds], np.float64)


def turned(difference, mode: Mode):
    """Positive = better."""
    return difference if mode == "max" else -difference


def mean_of(x: Float64[np.ndarray, " n"]) -> float | None:
    return float(x.mean()) if len(x) else None


def constant(x: Float64[np.ndarray, " n"], scale: float) -> bool:
    """All equal, but for the rounding of numbers as large as `scale`."""
    return bool(np.ptp(x) <= rounding(scale))


def rounding(scale: float) -> float:
    # The floor: a difference whose cube is 0 has no spread either.
    return max(8 * float(np.finfo(np.float64).eps) * scale, 1 / LARGEST)


def bca(samples: tuple[np.ndarray, ...], confidence: float, resamples: int) -> tuple[float | None, float | None]:
    """Ends of the BCa interval of the mean of one sample, or of the difference of the means of two."""
    if not resamples or min(map(len, samples)) < LEAST_TO_RESAMPLE:
        return None, None

    def statistic(x, y=None, axis=-1):
        return np.mean(x, axis=axis) - (0 if y is None else np.mean(y, axis=axis))

    generator = random.generator(BOOTSTRAP_SEED)
    found = stats.bootstrap(
        samples, statistic, n_resamples=resamples, confidence_level=confidence, method="BCa", vectorized=True, rng=generator
    ).confidence_interval
    return (float(found.low), float(found.high)) if np.isfinite(found).all() else (None, None)


def measured(
    n: int,
    n_baseline: int,
    mean: float,
    std: float,
    error: float,
    df: float,
    bootstrap: tuple[float | None, float | None],
    mode: Mode,
    confidence: float,
) -> Effect:
    """From the standard error of the mean difference and its degrees of freedom."""
    reach = quantile(df, confidence) * error
    return Effect(
        n=n,
        n_baseline=n_baseline,
        mean=mean,
        difference=turned(mean, mode),
        std=std,
        low=mean - reach,
        high=mean + reach,
        bootstrap_low=bootstrap[0],
        bootstrap_high=bootstrap[1],
        p=float(2 * special.stdtr(df, -abs(mean) / error)),
        smallest=error * noncentrality(df, confidence),
        df=df,
        confidence=confidence,
        mode=mode,
    )


def without_spread(n: int, n_baseline: int, mean: float, scale: float, p: float, mode: Mode, confidence: float) -> Effect:
    """All differences are equal: the mean and an exact p, and nothing that needs the spread."""
    if abs(mean) <= rounding(scale):
        mean, p = 0.0, 1.0
    return unknown(n, n_baseline, mean, mode, confidence, std=0.0, p=p)


def unknown(
    n: int, n_baseline: int, mean: float | None, mode: Mode, confidence: float, std: float | None = None, p: float | None = None
) -> Effect:
    return Effect(
        n=n,
        n_baseline=n_baseline,
        mean=mean,
        difference=None if mean is None else turned(mean, mode),
        std=std,
        low=None,
        high=None,
        bootstrap_low=None,
        bootstrap_high=None,
        p=p,
        smallest=None,
        df=None,
        confidence=confidence,
        mode=mode,
    )
