"""Cost against gain: what every variant takes more of than the baseline, beside what it brings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torchstone.report.charts import Scale, Tick, nice
from torchstone.report.forest import WIDEST, Unit, t_of, ticked
from torchstone.report.numbers import MINUS, NARROW, NONE, count, duration, memory, scaled
from torchstone.report.study_reading import Cost, Interval, Study, Variant

MOST_MARKS = 40
NEAR_X, NEAR_Y = 5.0, 7.0
"""Percent of the chart's sides within which two labels would touch."""
PLACES = ((2.6, -5.0), (-2.6, -5.0), (2.6, 6.0), (-2.6, 6.0), (5.2, 0.0), (-5.2, 0.0), (0.0, -9.0), (0.0, 10.0))
"""Where a label may stand beside its mark, the first that is free."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A variant in the chart; places in percent from the left and the top."""

    label: str
    name: str
    x: float
    y: float
    left: float
    right: float
    low: float
    high: float
    label_x: float
    label_y: float


@dataclass(frozen=True, slots=True)
class Scatter:
    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    zero_x: float
    zero_y: float
    unit: str
    summary: str
    left_out: int


@dataclass(frozen=True, slots=True)
class CostRow:
    """A line of the table; `label` is the number of its mark."""

    label: str
    name: str
    gain: str
    ends: str
    seconds: str
    more_seconds: str
    more_seconds_ends: str
    memory: str
    more_memory: str
    more_memory_ends: str
    n: str
    macs: str
    parameters: str


def scatter(study: Study, unit: Unit) -> Scatter | None:
    """Seconds more than the baseline, in percent of its own, against the gain; None where nothing has both."""
    base = study.baseline.costs.get("seconds") if study.baseline else None
    if base is None or base.value.mean <= 0:
        return None
    found = [(label, each) for label, each in labels(study).items() if point_of(each, base, study) is not None]
    near_by = within([point for _, each in found if (point := point_of(each, base, study))])
    points = [(label, each, point) for label, each in found if (point := point_of(each, base, study)) in near_by and point][:MOST_MARKS]
    if not points:
        return None
    x = padded([end for _, _, point in points for end in point[:3]])
    y = padded([end for _, _, point in points for end in point[3:]])
    places = [(100 * x(point[0]), 100 - 100 * y(point[3])) for _, _, point in points]
    marks = []
    for (label, each, point), at, beside in zip(points, places, beside_all(places), strict=True):
        ends = (100 * x(point[1]), 100 * x(point[2]), 100 - 100 * y(point[4]), 100 - 100 * y(point[5]))
        marks.append(Mark(label, each.name, *at, *ends, *beside))
    across, up = nice(x.low, x.high, 4), nice(y.low, y.high, 4)
    said = ", ".join(f"{each.name} {signed_percent(point[0])} time for {unit.change(point[3])}" for _, each, point in points[:12])
    return Scatter(
        marks=tuple(marks),
        x_ticks=tuple(Tick(100 * x(value), signed_percent(value)) for value in across),
        y_ticks=tuple(Tick(100 - 100 * y(value), ticked(value, up, unit)) for value in up),
        zero_x=100 * x(0.0),
        zero_y=100 - 100 * y(0.0),
        unit=unit.word,
        summary=f"Cost against gain: {said}",
        left_out=len(found) - len(points),
    )


def labels(study: Study) -> dict[str, Variant]:
    """Number of the mark -> variant, in the study's order."""
    return {str(i): each for i, each in enumerate(study.variants, 1)}


Place = tuple[float, float, float, float, float, float]


def point_of(variant: Variant, base: Cost, study: Study) -> Place | None:
    """(cost, its low and high, gain, its low and high); the ends are the middle where there is no interval."""
    t, cost = t_of(variant), variant.costs.get("seconds")
    more = cost.more if cost else None
    if t is None or more is None:
        return None
    low, high = (t.mean if t.low is None else t.low), (t.mean if t.high is None else t.high)
    gain = (-t.mean, -high, -low) if study.smaller else (t.mean, low, high)
    cheap, dear = (more.mean if more.low is None else more.low), (more.mean if more.high is None else more.high)
    return (more.mean / base.value.mean, cheap / base.value.mean, dear / base.value.mean, *gain)


def within(points: Sequence[Place]) -> list[Place]:
    """Those that do not press all the others together, in cost or in gain."""
    typical = (
        [sorted(max(map(abs, point[k : k + 3])) for point in points)[(len(points) - 1) // 2] for k in (0, 3)] if points else [0.0, 0.0]
    )
    return [point for point in points if all(abs(point[3 * i]) <= WIDEST * typical[i] or typical[i] == 0 for i in (0, 1))]


def padded(values: Sequence[float]) -> Scale:
    """Around zero and all values."""
    low, high = min(0.0, *values), max(0.0, *values)
    reach = (high - low) * 0.08 or 1e-3
    return Scale(low - reach, high + reach)


def beside_all(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A place for each label where it covers neither a mark nor another label, as far as there is one."""
    taken: list[tuple[float, float]] = []
    for x, y in places:
        others = [place for place in places if place != (x, y)]
        free = [(x + dx, y + dy) for dx, dy in PLACES if not any(near((x + dx, y + dy), other) for other in (*taken, *others))]
        inside = [(a, b) for a, b in free if 1 <= a <= 99 and 1 <= b <= 99]
        taken.append((inside or free or [(x + PLACES[0][0], y + PLACES[0][1])])[0])
    return [(round(a, 2), round(b, 2)) for a, b in taken]


def near(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return abs(a[0] - b[0]) < NEAR_X and abs(a[1] - b[1]) < NEAR_Y


def signed_percent(share: float) -> str:
    """
    >>> signed_percent(0.125), signed_percent(-0.5), signed_percent(0.0)
    ('+12.5\\u202f%', '−50\\u202f%', '0\\u202f%')
    """
    if abs(share) >= 1e4:
        return f"{'+' if share > 0 else MINUS}{scaled(100 * abs(share))}{NARROW}%"
    text = f"{100 * abs(share):.1f}".removesuffix(".0")
    sign = "" if text == "0" else "+" if share > 0 else MINUS
    return f"{sign}{text}{NARROW}%"


# --- the table -------------------------------------------------------------------------------------------------------


def cost_rows(study: Study, unit: Unit) -> list[CostRow]:
    """The baseline first; empty where nobody measured anything."""
    numbered = {each.name: label for label, each in labels(study).items()}
    found = [cost_row(numbered.get(each.name, ""), each, unit) for each in study.all]
    known = any(each.costs or each.macs is not None or each.parameters is not None for each in study.all)
    return found if known else []


def cost_row(label: str, variant: Variant, unit: Unit) -> CostRow:
    t, seconds, peak = t_of(variant), variant.costs.get("seconds"), variant.costs.get("peak_memory_mb")
    time_more, memory_more = (cost.more if cost and label else None for cost in (seconds, peak))
    ns = sorted({cost.value.n for cost in variant.costs.values() if cost.value.n is not None})
    return CostRow(
        label=label,
        name=variant.name,
        gain=unit.change(t.mean) if t else NONE,
        ends=unit.ends(t.low, t.high) if t and t.low is not None else "",
        seconds=duration(seconds.value.mean) if seconds else NONE,
        more_seconds=signed(time_more.mean, duration) if time_more else NONE,
        more_seconds_ends=ends(time_more, duration),
        memory=memory(peak.value.mean) if peak else NONE,
        more_memory=signed(memory_more.mean, memory) if memory_more else NONE,
        more_memory_ends=ends(memory_more, memory),
        n=", ".join(map(str, ns)) or NONE,
        macs=scaled(variant.macs),
        parameters=count(variant.parameters),
    )


def signed(value: float, text: Callable[[float], str]) -> str:
    """A difference with its sign, written by `text`."""
    return f"{'+' if value > 0 else MINUS if value < 0 else ''}{text(abs(value))}"


def ends(more: Interval | None, text: Callable[[float], str]) -> str:
    if more is None or more.low is None or more.high is None:
        return ""
    return f"[{signed(more.low, text)}, {signed(more.high, text)}]"
