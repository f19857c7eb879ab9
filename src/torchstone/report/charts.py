"""Line charts as data for the template: paths in a square of 1000 x 1000 that the page stretches, and where each label stands.

The page draws the square with strokes that do not stretch and puts the labels over it as text, so a chart is as sharp and as
readable on a phone as on paper.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torchstone.report.curves import Curve, Point
from torchstone.report.numbers import NARROW, number, percent, scaled

SIDE = 1000.0
LOG_FROM = 40.0
"""Highest over lowest from which a scale is logarithmic."""
TABLE_ROWS = 20
NARROWEST = 0.004
"""Range of shares that is still drawn as wide as the chart; two decimals of a percent tell its ticks apart."""
LABEL_GAP = 8.5
"""Percent of the chart's height that a label takes."""


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    """Percent of the side, from the left or from the top."""
    text: str


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to 0 … 1."""

    low: float
    high: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            value, low, high = math.log10(max(value, self.low)), math.log10(self.low), math.log10(self.high)
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low)))


@dataclass(frozen=True, slots=True)
class Series:
    """One line to draw: `style` is main (the one to look at), quiet, dash, dots, mixed or long."""

    name: str
    curve: Curve
    style: str = "main"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A line as the template draws it."""

    name: str
    style: str
    path: str
    band: str
    """The area between the lowest and the highest of each point; empty where a point is one record."""
    markers: str
    label_at: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything about one chart, its numbers as text included."""

    title: str
    note: str
    lines: tuple[Drawn, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    mark: Tick | None
    """A step that matters, with its name."""
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] = field(repr=False)
    summary: str = ""
    """What the chart shows, for who cannot see it."""


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    as_percent: bool = False,
    linear: bool = False,
    mark: tuple[int, str] | None = None,
    x_name: str = "step",
    around: Sequence[Point] = (),
    also: str = "",
) -> Chart | None:
    """A chart of values over steps (or what `x_name` says); None where there is nothing to draw.

    `mark`: a step and its name. Wide ranges are drawn on a logarithmic scale unless `linear`. Charts that are to be compared get all
    their points as `around`. `also` ends the note.
    """
    series = [each for each in series if each.curve.points]
    if not series:
        return None
    points = [point for each in series for point in each.curve.points]
    first, last = min(0.0, *(point.step for point in points)), max(point.step for point in points)
    x = Scale(first, last if last > first else first + 1.0)
    y, values = y_scale([*points, *around], as_percent, linear or as_percent)
    written = percent if as_percent else number
    lines = [drawn(each, x, y) for each in series]
    notes = [f"{each.name} {written(each.curve.last)}" for each in series]
    over = f"over {number(last, 6)} steps" if x_name == "step" else f"by {x_name}"
    return Chart(
        title=title,
        note=" · ".join([*notes, *filter(None, ["logarithmic" if y.log else "", also])]),
        lines=tuple(apart(lines)),
        x_ticks=tuple(Tick(100 * x(step), axis(step)) for step in nice(first, last, 4) if first <= step <= last),
        y_ticks=tuple(Tick(100 - 100 * y(value), text) for value, text in labeled(values, as_percent)),
        mark=Tick(100 * x(mark[0]), mark[1]) if mark and first <= mark[0] <= last else None,
        header=(x_name, *(each.name for each in series)),
        rows=tuple(text_rows(series, written)),
        summary=f"{title} {over}, at the end: " + ", ".join(notes),
    )


def drawn(series: Series, x: Scale, y: Scale) -> Drawn:
    points = series.curve.points
    across = [SIDE * x(point.step) for point in points]
    middle = [SIDE - SIDE * y(point.mean) for point in points]
    band = ""
    if series.curve.each > 1:
        top = [SIDE - SIDE * y(point.high) for point in points]
        bottom = [SIDE - SIDE * y(point.low) for point in points]
        band = path([*zip(across, top, strict=True), *reversed(list(zip(across, bottom, strict=True)))]) + "Z"
    few = len(points) <= 24
    return Drawn(
        name=series.name,
        style=series.style,
        path=path(list(zip(across, middle, strict=True))),
        band=band,
        # A point of no length with a round cap is a dot that stays round when the square is stretched.
        markers="".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(across, middle, strict=True)) if few else "",
        label_at=middle[-1] / SIDE * 100,
    )


def path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


def apart(lines: Sequence[Drawn]) -> list[Drawn]:
    """The same lines with their labels moved so that none covers another, all inside the chart."""
    order = sorted(range(len(lines)), key=lambda i: lines[i].label_at)
    places = [lines[i].label_at for i in order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + LABEL_GAP)
    overhang = max(0.0, places[-1] - 100)
    places = [place - overhang for place in places]
    for i in reversed(range(len(places) - 1)):
        places[i] = min(places[i], places[i + 1] - LABEL_GAP)
    moved = dict(zip(order, places, strict=True))
    return [Drawn(e.name, e.style, e.path, e.band, e.markers, round(moved[i], 2)) for i, e in enumerate(lines)]


def text_rows(series: Sequence[Series], written: Callable[[float], str]) -> list[tuple[str, ...]]:
    """The first line's points, thinned, and what the others were then."""
    steps = [point.step for point in series[0].curve.points]
    chosen = steps[:: -(-len(steps) // TABLE_ROWS)]
    if chosen[-1] != steps[-1]:
        chosen.append(steps[-1])
    return [(step_text(step), *(written_at(each.curve, step, written) for each in series)) for step in chosen]


def step_text(step: float) -> str:
    return f"{step:,.0f}" if 100 <= step < 1e15 or step in range(100) else number(step)


def written_at(curve: Curve, step: float, written: Callable[[float], str]) -> str:
    before = [point.mean for point in curve.points if point.step <= step]
    return written(before[-1]) if before else ""


# --- scales ----------------------------------------------------------------------------------------------------------


def y_scale(points: Sequence[Point], as_percent: bool, linear: bool) -> tuple[Scale, list[float]]:
    """A scale around all points, and the values of its ticks."""
    low, high = min(point.low for point in points), max(point.high for point in points)
    if low > 0 and high / low > LOG_FROM and not linear:
        ticks = decades(low, high)
        return Scale(min(low, ticks[0]), max(high, ticks[-1]), log=True), ticks
    if as_percent and high - low < NARROWEST:
        low, high = max(0.0, low - NARROWEST), min(1.0, high + NARROWEST)
    elif not low < high or (high - low) < 1e-9 * max(abs(low), abs(high)):
        reach = max(abs(high) * 0.05, 1e-6)
        low, high = low - reach, high + reach
    ticks = nice(low, high, 4)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    low = ticks[0] if ticks[0] <= low else ticks[0] - step
    high = ticks[-1] if ticks[-1] >= high else ticks[-1] + step
    if as_percent:
        low, high = max(low, 0.0), min(high, 1.0)
    ticks = [value for value in nice(low, high, 4) if low - step / 1e6 <= value <= high + step / 1e6]
    return Scale(low, high), ticks


def nice(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round values inside [low, high]: multiples of 1, 2, 2.5 or 5 times a power of ten.

    >>> nice(0, 240, 4), nice(0.97, 0.996, 4)
    ([0.0, 50.0, 100.0, 150.0, 200.0], [0.97, 0.98, 0.99])
    """
    rough = (high - low) / wanted
    if not rough > 1e-290:  # nothing between them that a float could count
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, last + 1)] or [low]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten inside, thinned to at most six."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = -(-(last - first) // 5)
    return [10.0**power for power in range(first, last + 1, every)]


def labeled(values: Sequence[float], as_percent: bool) -> list[tuple[float, str]]:
    """Each tick with its text, all with as many decimals as the closest two need."""
    if not as_percent:
        return [(value, axis(value)) for value in values]
    gap = min((b - a for a, b in pairwise(values)), default=1.0)
    decimals = 0 if gap >= 0.0099 else 1 if gap >= 0.00099 else 2
    return [(value, f"{100 * value:.{decimals}f}{NARROW}%") for value in values]


def axis(value: float) -> str:
    """A round number beside an axis.

    >>> axis(1500.0), axis(20000.0), axis(0.25)
    ('1,500', '20 k', '0.25')
    """
    return scaled(value) if abs(value) >= 10_000 else number(value)
