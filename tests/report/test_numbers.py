"""How numbers are written, and the interval against SciPy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from torchstone.report.numbers import duration, number, percent, plural, scaled, wilson


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_scipys(counted: tuple[int, int]) -> None:
    right, n = counted
    expected = binomtest(right, n).proportion_ci(confidence_level=0.95, method="wilson")
    low, high = wilson(right, n)
    assert low == pytest.approx(expected.low, abs=1e-9) and high == pytest.approx(expected.high, abs=1e-9)
    assert 0 <= low <= right / n <= high <= 1


@given(st.floats(0, 1), st.integers(0, 2))
def test_percent_never_claims_all_or_nothing(share: float, decimals: int) -> None:
    text = percent(share, decimals)
    assert text.endswith("\u202f%")
    value = float(text.removesuffix("\u202f%"))
    assert abs(value - 100 * share) <= 0.5 * 10**-decimals + 1e-9
    if 1e-7 < share < 1 - 1e-7:
        assert 0 < value < 100


@given(st.floats(-1e300, 1e300))
def test_every_number_reads_back(value: float) -> None:
    text = number(value).replace("\u2212", "-").replace(",", "")
    assert float(text) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(None), "\u2013"),
        (number(0.0), "0"),
        (number(1e-7), "1e\u22127"),
        (scaled(999_999), "1 M"),
        (scaled(0), "0"),
        (duration(0.0), "0.0\u202fs"),
        (duration(59.99), "60.0\u202fs"),
        (duration(60.4), "1\u202fmin 0\u202fs"),
        (duration(3599.9), "1\u202fh 0\u202fmin"),
        (duration(None), "\u2013"),
        (plural(0, "image"), "0 images"),
        (percent(None), "\u2013"),
        (percent(0.0), "0\u202f%"),
    ],
)
def test_at_the_edges(written: str, expected: str) -> None:
    assert written == expected


def test_the_interval_of_nothing_wrong_is_not_a_point() -> None:
    low, high = wilson(20, 20)
    assert high == 1 and math.isclose(low, 20 / (20 + 1.959963984540054**2))
