"""Charts stay inside their square and their labels apart, whatever is drawn."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchstone.report.charts import LABEL_GAP, Chart, Series, decades, labeled, line_chart, nice
from torchstone.report.curves import Curve

FINITE = st.floats(-1e300, 1e300)
VALUES = st.lists(FINITE, min_size=1, max_size=40)


def curve(values: list[float]) -> Curve:
    made = Curve()
    for step, value in enumerate(values):
        made.add(step, value)
    return made


def numbers_of(path: str) -> list[float]:
    return [float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", path)]


def chart(values: list[float], **options: bool) -> Chart:
    made = line_chart("Loss", [Series("training", curve(values))], **options)
    assert made is not None
    return made


@given(st.lists(VALUES, min_size=1, max_size=4), st.booleans())
def test_everything_is_inside_the_square(lines: list[list[float]], linear: bool) -> None:
    made = line_chart("Loss", [Series(str(i), curve(values)) for i, values in enumerate(lines)], linear=linear)
    assert made is not None
    for line in made.lines:
        assert all(-0.01 <= value <= 1000.01 for value in numbers_of(line.path))
    assert all(-1e-6 <= tick.at <= 100 + 1e-6 for tick in (*made.x_ticks, *made.y_ticks))
    places = sorted(line.label_at for line in made.lines)
    assert all(b - a >= LABEL_GAP - 0.02 for a, b in pairwise(places))
    assert len(made.y_ticks) <= 12 and len(made.rows) <= 22 and all(len(row) == len(lines) + 1 for row in made.rows)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_shares_stay_between_0_and_100_percent(values: list[float]) -> None:
    made = chart(values, as_percent=True)
    shown = [float(tick.text.removesuffix("\u202f%")) for tick in made.y_ticks]
    assert all(0 <= value <= 100 for value in shown) and len(set(shown)) == len(shown)


def test_a_line_is_where_its_numbers_are() -> None:
    made = chart([0.0, 1.0, 2.0, 4.0])
    assert numbers_of(made.lines[0].path) == pytest.approx([0, 1000, 333.3, 750, 666.7, 500, 1000, 0], abs=0.1)
    assert [(tick.at, tick.text) for tick in made.y_ticks] == [(100, "0"), (75, "1"), (50, "2"), (25, "3"), (0, "4")]
    assert made.rows[-1] == ("3", "4") and "at the end: training 4" in made.summary


def test_a_wide_range_is_logarithmic_unless_asked() -> None:
    wide = [1000.0, 10.0, 1.0]
    assert "logarithmic" in chart(wide).note and "logarithmic" not in chart(wide, linear=True).note
    assert [tick.text for tick in chart(wide).y_ticks] == ["1", "10", "100", "1,000"]
    assert numbers_of(chart(wide).lines[0].path)[3] == pytest.approx(666.7, abs=0.1)


def test_nothing_to_draw() -> None:
    assert line_chart("Loss", [Series("training", Curve())]) is None


def test_a_mark_outside_is_left_out() -> None:
    series = [Series("training", curve([1.0, 2.0]))]
    inside, outside = (line_chart("Loss", series, mark=(step, "best")) for step in (1, 7))
    assert inside and inside.mark and inside.mark.at == 100
    assert outside and outside.mark is None


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6), st.integers(2, 6))
def test_ticks_are_round_and_inside(low: float, width: float, wanted: int) -> None:
    ticks = nice(low, low + width, wanted)
    assert all(low - width * 1e-6 <= tick <= low + width * (1 + 1e-6) for tick in ticks)
    assert 1 <= len(ticks) <= 2.6 * wanted + 1


def test_decades_are_thinned() -> None:
    assert decades(1e-3, 1e3) == [1e-3, 1e-1, 1e1, 1e3]
    assert len(decades(1e-300, 1e300)) <= 6


def test_texts_of_ticks_differ() -> None:
    assert [text for _, text in labeled([0.991, 0.992, 0.993], True)] == ["99.1\u202f%", "99.2\u202f%", "99.3\u202f%"]
