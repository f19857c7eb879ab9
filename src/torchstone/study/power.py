"""What a t test can see: its power by the noncentral t distribution, and the effect at which it has a given power.

Lehmann and Romano, "Testing Statistical Hypotheses", 3rd edition, 2005, section 5.2.
"""

from functools import cache, lru_cache

import numpy as np
from scipy import optimize, special

POWER = 0.8


@lru_cache(maxsize=1024)
def noncentrality(df: float, confidence: float = 0.95, power: float = POWER) -> float:
    """How many standard errors a true effect must be for a two-sided t test to reject with this power: of the noncentral t."""
    high = quantile(df, confidence)
    while power_of_t(high, df, confidence) < power:
        high *= 2
    return float(optimize.brentq(lambda shift: power_of_t(shift, df, confidence) - power, 0.0, high, xtol=1e-10))  # type: ignore[arg-type]


def power_of_t(shift: float, df: float, confidence: float) -> float:
    """How likely a two-sided t test rejects when the true effect is `shift` standard errors: P(|Z + shift| > q chi / sqrt df).

    Integrated over the quantiles of chi, by Gauss and Legendre: SciPy's noncentral t gives NaN in the far tail.
    """
    limit, weights = limits(df, confidence)
    return float(weights @ (special.ndtr(shift - limit) + special.ndtr(-shift - limit)))


@lru_cache(maxsize=1024)
def limits(df: float, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Where a t test rejects at each of 100 quantiles of the estimated deviation over the true one, and their weights."""
    nodes, weights = legendre()
    return quantile(df, confidence) * np.sqrt(special.chdtri(df, (1 + nodes) / 2) / df), weights / 2


@cache
def legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(100)


def quantile(df: float, confidence: float) -> float:
    """Where the two-sided t interval of this confidence ends, in standard errors."""
    return float(special.stdtrit(df, (1 + confidence) / 2))
