"""The forest plot: effects one below the other on one scale, each as a mark with its interval, its numbers and its verdict beside it.

Cochrane's habit (Lewis and Clarke, "Forest plots: trying to see the wood and the trees", BMJ 2001): the line at zero is where nothing
changed, and an interval that crosses it has shown no direction.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torchstone.report.charts import Scale, Tick, nice
from torchstone.report.headline import SHARES, written
from torchstone.report.numbers import MINUS, NONE, number, plural
from torchstone.report.study_reading import FINISHED, Effect, Interval, Study, Variant

WIDEST = 6.0
"""Times the median reach from which an effect is not given room on the scale: an arrow points to it."""
MOST_NAMED = 8
"""Seeds that are listed by number."""


@dataclass(frozen=True, slots=True)
class Unit:
    """How a metric and its differences are written: shares in percent, their differences in points."""

    metric: str
    decimals: int

    @property
    def in_points(self) -> bool:
        return self.metric in SHARES

    @property
    def word(self) -> str:
        return "points" if self.in_points else ""

    def value(self, value: float | None) -> str:
        return written(self.metric, value)

    def change(self, value: float | None, *, signed: bool = True) -> str:
        """
        >>> Unit("accuracy", 1).change(0.0081), Unit("loss", 3).change(-0.0211), Unit("loss", 2).change(-0.0001)
        ('+0.8', '−0.021', '0.00')
        """
        if value is None:
            return NONE
        value = 100 * value if self.in_points else value
        if abs(value) >= 1e9:
            return number(value, 3)
        text = f"{abs(value):,.{self.decimals}f}"
        sign = "" if not signed or float(text.replace(",", "")) == 0 else "+" if value > 0 else MINUS
        return sign + text

    def ends(self, low: float | None, high: float | None) -> str:
        """
        >>> Unit("accuracy", 1).ends(0.003, 0.013)
        '[+0.3,\\xa0+1.3]'
        """
        return NONE if low is None or high is None else f"[{self.change(low)},\u00a0{self.change(high)}]"

    def spread(self, value: float | None) -> str:
        """A standard deviation."""
        return self.change(value, signed=False)


def unit_of(study: Study) -> Unit:
    return unit_for(study.metric, [t_of(each) for each in study.variants])


def unit_for(metric: str, differences: Iterable[Interval | None]) -> Unit:
    """Decimals so that the typical interval has two digits."""
    factor = 100 if metric in SHARES else 1
    halves = sorted(factor * (t.high - t.low) / 2 for t in differences if t and t.high is not None and t.low is not None)
    half = next((half for half in halves[len(halves) // 2 :] if half > 0), None)
    if half is None:
        return Unit(metric, 2 if factor == 100 else 4)
    return Unit(metric, min(6, max(0, 1 - math.floor(math.log10(half)))))


def t_of(variant: Variant) -> Interval | None:
    return variant.effect.t if variant.effect else None


# --- verdicts --------------------------------------------------------------------------------------------------------


def kind_of(variant: Variant) -> str:
    """helps, hurts, none, undecided, inert or withheld: what the mark's shape says."""
    effect = variant.effect
    if effect is None:
        return "withheld"
    if effect.inert or effect.verdict == "inert":
        return "inert"
    if effect.verdict.startswith("no effect"):
        return "none" if effect.t else "withheld"
    return effect.verdict if effect.verdict in ("helps", "hurts", "undecided") else "withheld"


def verdict(variant: Variant, unit: Unit, matters: float | None = None) -> str:
    """The verdict in words, in the unit of the page."""
    match kind_of(variant):
        case "inert":
            return "inert: the very same numbers as the baseline"
        case "none":
            return f"no effect larger than {bound(variant.effect, unit, matters)} shown"
        case "withheld" if not variant.finished:
            return "no result"
        case "withheld":
            return "verdict withheld"
        case kind:
            return kind


def bound(effect: Effect | None, unit: Unit, matters: float | None) -> str:
    """What was named as the smallest effect that matters, else the largest that the interval leaves room for."""
    assert effect is not None and effect.t is not None
    if matters is not None:
        return with_unit(unit.change(matters, signed=False), unit)
    ends = [abs(end) for end in (effect.t.low, effect.t.high) if end is not None]
    return with_unit(unit.change(max(ends), signed=False) if ends else "?", unit)


def with_unit(text: str, unit: Unit) -> str:
    return f"{text} {unit.word}" if unit.word else text


def clause(variant: Variant, unit: Unit, matters: float | None = None) -> str:
    """ "ema helps: +0.8 points [+0.3, +1.3] on 5 seeds" """
    effect, kind = variant.effect, kind_of(variant)
    if kind in ("withheld", "inert", "none") or effect is None:
        return f"{variant.name}: {verdict(variant, unit, matters)}"
    if effect.t is None:
        return f"{variant.name} {kind}: {(*troubles(variant), 'no difference could be measured')[0]}"
    change = with_unit(unit.change(effect.t.mean), unit)
    seeds = f" on {plural(effect.n, 'seed')}" if effect.n else ""
    said = f"{variant.name} {kind}:" if kind != "undecided" else f"{variant.name}: undecided,"
    interval = f" {unit.ends(effect.t.low, effect.t.high)}" if effect.t.low is not None else ""
    return f"{said} {change}{interval}{seeds}"


def troubles(variant: Variant) -> list[str]:
    """What went wrong with its runs, with the seeds."""
    found = []
    for status in dict.fromkeys(run.status for run in variant.runs if run.status not in FINISHED):
        seeds = variant.seeds(status)
        found.append(f"{status or 'no status'} on {len(seeds)} of {plural(len(variant.runs), 'seed')} ({listed(seeds)})")
    if variant.effect and variant.effect.p_diverged is not None:
        p = variant.effect.p_diverged
        found.append(f"that is more often than the baseline with p {'< 0.0001' if p < 1e-4 else number(p, 2)} (Holm)")
    if variant.status == "partial":
        found.append(f"not finished: {plural(len(variant.runs), 'run')} so far")
    return found


def listed(seeds: Sequence[int]) -> str:
    """
    >>> listed([0, 1, 2, 3]), listed([1, 4, 5])
    ('0 to 3', '1, 4, 5')
    """
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    more = f", … {len(seeds)} in all" if len(seeds) > MOST_NAMED else ""
    return ", ".join(map(str, seeds[:MOST_NAMED])) + more


# --- the plot --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Strip:
    """Places in percent of the width."""

    at: float
    low: float | None
    high: float | None
    boot_low: float | None
    boot_high: float | None
    beyond: str
    """left or right: the mark is outside, and an arrow stands for it."""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    kind: str
    verdict: str
    strip: Strip | None
    change: str
    ends: str
    n: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Forest:
    title: str
    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    zero: float
    left: str
    right: str
    cut: bool
    """Some effect is beyond the scale."""
    unit: str
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a row is made of."""

    name: str
    kind: str
    verdict: str
    mean: float | None
    low: float | None
    high: float | None
    n: int | None
    bootstrap: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def effects_forest(study: Study, unit: Unit) -> Forest | None:
    """All variants, the largest gain first, those without a number last."""
    sign = -1 if study.smaller else 1
    order = sorted(study.variants, key=lambda each: -sign * t.mean if (t := t_of(each)) else math.inf)
    found = [measured(each, unit, study.matters) for each in order]
    return forest("Difference to the baseline", found, unit, study.smaller) if found else None


def measured(variant: Variant, unit: Unit, matters: float | None) -> Measured:
    effect, t = variant.effect, t_of(variant)
    n = effect.n if effect else None
    bootstrap = effect.bootstrap if effect else None
    parts = (t.mean, t.low, t.high) if t else (None, None, None)
    return Measured(variant.name, kind_of(variant), verdict(variant, unit, matters), *parts, n, bootstrap, tuple(troubles(variant)))


def forest(title: str, found: Sequence[Measured], unit: Unit, smaller: bool = False, left_out: int = 0) -> Forest:
    """The rows in the order of `found`, on a scale around them."""
    low, high, cut = scale_ends(found)
    x = Scale(low, high)
    values = nice(low, high, 4)
    texts = [ticked(value, values, unit) for value in values]
    return Forest(
        title=title,
        rows=tuple(
            Row(
                e.name,
                e.kind,
                e.verdict,
                strip(e, x),
                unit.change(e.mean),
                unit.ends(e.low, e.high),
                NONE if e.n is None else str(e.n),
                e.notes,
            )
            for e in found
        ),
        ticks=tuple(Tick(100 * x(value), text) for value, text in zip(values, texts, strict=True)),
        zero=100 * x(0.0),
        left="better" if smaller else "worse",
        right="worse" if smaller else "better",
        cut=cut,
        unit=unit.word,
        left_out=left_out,
    )


def scale_ends(found: Sequence[Measured]) -> tuple[float, float, bool]:
    """Ends around zero and every interval; one that would press all the others together is left outside (True)."""
    reaches = sorted(reach(each) for each in found if each.mean is not None)
    if not reaches or reaches[-1] <= 0:
        return -1e-3, 1e-3, False
    typical = next((r for r in reaches[(len(reaches) - 1) // 2 :] if r > 0), reaches[-1])
    inside = [each for each in found if each.mean is not None and reach(each) <= WIDEST * typical]
    ends = [end for each in inside for end in (each.mean, each.low, each.high, *(each.bootstrap or ())) if end is not None]
    ends = [end for end in ends if abs(end) <= WIDEST * typical]
    low, high = min(0.0, *ends), max(0.0, *ends)
    pad = 0.06 * (high - low)
    return low - pad, high + pad, len(inside) < len(reaches)


def reach(each: Measured) -> float:
    return max(abs(end) for end in (each.mean, each.low, each.high) if end is not None)


def strip(each: Measured, x: Scale) -> Strip | None:
    if each.mean is None:
        return None
    beyond = "left" if each.mean < x.low else "right" if each.mean > x.high else ""
    boot = each.bootstrap or (None, None)

    def place(value: float | None) -> float | None:
        return None if value is None else 100 * x(value)

    return Strip(100 * x(each.mean), place(each.low), place(each.high), place(boot[0]), place(boot[1]), beyond)


def ticked(value: float, values: Sequence[float], unit: Unit) -> str:
    """A tick of an axis of differences, with the decimals that the step between ticks needs.

    >>> [ticked(value, (-0.02, 0.0, 0.02), Unit("accuracy", 3)) for value in (-0.02, 0.0, 0.02)]
    ['−2', '0', '+2']
    """
    factor = 100 if unit.in_points else 1
    gap = factor * (values[1] - values[0]) if len(values) > 1 else factor * abs(value)
    if not 1e-9 < gap < 1e9:
        return number(factor * value, 2)
    decimals = next(d for d in range(12) if abs(gap - round(gap, d)) < gap * 1e-6)
    return Unit(unit.metric, decimals).change(value)
