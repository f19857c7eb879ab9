"""How well the probabilities rank the test samples: ROC and precision-recall curves, each class against the rest.

Fawcett, "An introduction to ROC analysis", 2006, https://doi.org/10.1016/j.patrec.2005.10.010; the areas are those of `metrics.RocAuc` and
`metrics.AveragePrecision`: equal scores are one threshold, a class that does not occur has none. Shapes: N samples, C classes.
"""

import math
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from torchstone.ops.curves import Found, average_precision, found, roc_auc
from torchstone.report.calibration import CHUNK, PREDICTIONS, classified
from torchstone.report.charts import Chart, Scale, Series, Tick, drawn
from torchstone.report.curves import Curve, Point
from torchstone.report.numbers import NARROW, percent
from torchstone.report.reading import RunFiles

WORST = 3
"""Classes that are drawn where there are many, beside the mean of all."""
MOST_ROWS = 20
"""Classes in the table."""
POINTS = 150
"""Of a drawn line at most."""
GRID = np.linspace(0.0, 1.0, POINTS)
UNIT = Scale(0.0, 1.0)
STYLES = ("main", "dash", "dots")
Line = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class OneClass:
    """A class against the rest."""

    name: str
    n: int
    """Test samples of it."""
    auc: float | None
    """Area under the ROC curve; None where no or every sample has the class."""
    ap: float | None
    """Average precision; None where no sample has the class."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """What the section shows."""

    rows: tuple[OneClass, ...]
    """The worst by average precision first; at most MOST_ROWS of them."""
    left_out: int
    """Classes that are not in `rows`."""
    classes: int
    """Classes that are ranked: one where there are two, the second."""
    auc: float | None
    """Mean over the classes in which it is defined, as in metrics.json."""
    ap: float | None
    n: int
    charts: tuple[Chart, ...]

    @property
    def about(self) -> str:
        one = f"of {self.rows[0].name}" if self.classes == 1 else "of each class against the rest"
        return (
            f"Sorted by the probability {one}, do its samples come first? An area of 100{NARROW}% says that all of them do; "
            f"chance has 50{NARROW}% under ROC, and the share of the class under precision and recall."
        )


@dataclass(slots=True)
class Drawing:
    """A class with its lines, kept while it is among those to be drawn."""

    told: OneClass
    roc: Line
    pr: Line


def read_ranking(files: RunFiles) -> tuple[Ranking | None, str]:
    """(the section, what is wrong with the file in words); both empty where a run kept no predictions of a classifier."""
    path = files.folder / PREDICTIONS
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None, f"{PREDICTIONS} is not a plain file"
        return ranked(path, files.classes(1 << 14)), ""
    except FileNotFoundError:
        return None, ""
    except (SafetensorError, OSError, ValueError, TypeError, IndexError, OverflowError, MemoryError) as error:
        return None, f"{PREDICTIONS} cannot be used: {error}"


def ranked(path: Path, names: Sequence[str]) -> Ranking | None:
    """Every class of the file; None where none of them both occurs and is absent."""
    worst: list[Drawing] = []
    told: list[OneClass] = []
    positive = np.zeros(0, dtype=bool)
    sums = {"roc": np.zeros(POINTS), "pr": np.zeros(POINTS)}
    drawn_classes = 0
    for label, scores, positive in columns(path):
        name = names[label] if label < len(names) else str(label)
        each = OneClass(name, int(positive.sum()), *(defined(area(scores, positive)) for area in (roc_auc, average_precision)))
        told.append(each)
        if each.auc is None:
            continue
        curve = found(scores, positive)
        drawing = Drawing(each, roc_line(curve), pr_line(curve))
        drawn_classes += 1
        sums["roc"] += np.interp(GRID, *last_of_each(*drawing.roc))
        sums["pr"] += precision_at(curve)
        worst = sorted([*worst, drawing], key=lambda one: one.told.ap or 0.0)[:WORST]
    if not worst:
        return None
    several = drawn_classes > WORST
    lines = [(one.told.name, thinned(one.roc), thinned(one.pr), style) for one, style in zip(worst, STYLES, strict=False)]
    auc, ap = (mean_of([getattr(one, area) for one in told]) for area in ("auc", "ap"))
    if several:
        start = (np.r_[0.0, GRID], np.r_[0.0, sums["roc"] / drawn_classes])
        lines.append((f"mean of {drawn_classes}", start, (GRID, sums["pr"] / drawn_classes), "quiet"))
    order = sorted(told, key=lambda one: (one.ap is None, one.ap or 0.0))
    charts = (
        unit_chart(f"ROC, area {percent(auc)}", "false positive rate", [(n, roc, style) for n, roc, _, style in lines], diagonal=True),
        unit_chart(f"Precision and recall, area {percent(ap)}", "recall", [(n, pr, style) for n, _, pr, style in lines]),
    )
    return Ranking(tuple(order[:MOST_ROWS]), max(0, len(order) - MOST_ROWS), len(told), auc, ap, len(positive), charts)


def defined(area: float) -> float | None:
    return None if math.isnan(area) else area


def mean_of(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


# --- lines -----------------------------------------------------------------------------------------------------------


def roc_line(curve: Found) -> Line:
    """(false positive rate, recall) from (0, 0) to (1, 1)."""
    return np.r_[0.0, curve.false_positive_rate], np.r_[0.0, curve.recall]


def pr_line(curve: Found) -> Line:
    """(recall, precision) as the steps whose area average precision is: level up to each recall, then down or up to the next precision.
    Thresholds below the one that finds all add nothing."""
    end = int(np.argmax(curve.true_positive == curve.positives)) + 1
    recall, precision = curve.recall[:end], curve.precision[:end]
    return np.repeat(np.r_[0.0, recall], 2)[1:-1], np.repeat(precision, 2)


def precision_at(curve: Found) -> np.ndarray:
    """Precision at the recalls of GRID: that of the first threshold which reaches it."""
    return curve.precision[np.searchsorted(curve.recall, GRID, "left").clip(0, len(curve.recall) - 1)]


def last_of_each(x: np.ndarray, y: np.ndarray) -> Line:
    """The highest y of each x, for a rising line with uprights in it."""
    last = np.r_[x[1:] != x[:-1], True]
    return x[last], y[last]


def thinned(line: Line) -> Line:
    """At most POINTS of the line's points, evenly along its way, both ends among them."""
    x, y = line
    if len(x) <= POINTS:
        return line
    way = np.r_[0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))]
    kept = np.unique(np.searchsorted(way, np.linspace(0.0, way[-1], POINTS)).clip(0, len(x) - 1))
    kept[-1] = len(x) - 1
    return x[kept], y[kept]


# --- the chart -------------------------------------------------------------------------------------------------------


def unit_chart(title: str, x_name: str, lines: Sequence[tuple[str, Line, str]], *, diagonal: bool = False) -> Chart:
    """Lines in the unit square, both axes from 0 to 100 %. `diagonal`: what chance does, without a label."""
    series = [Series(name, as_curve(line), style) for name, line, style in lines]
    made = [drawn(each, UNIT, UNIT) for each in series]
    chance = [drawn(Series("", as_curve((GRID, GRID)), "chance"), UNIT, UNIT)] if diagonal else []
    ticks = [(place, f"{100 * place:.0f}{NARROW}%") for place in (0.0, 0.25, 0.5, 0.75, 1.0)]
    at = np.linspace(0.0, 1.0, 11)
    return Chart(
        title=title,
        note=f"by {x_name}",
        lines=(*made, *chance),
        x_ticks=tuple(Tick(100 * place, text) for place, text in ticks),
        y_ticks=tuple(Tick(100 - 100 * place, text) for place, text in ticks),
        mark=None,
        header=(x_name, *(name for name, _, _ in lines)),
        rows=tuple((percent(float(x), 0), *(percent(value_at(line, float(x))) for _, line, _ in lines)) for x in at),
        summary=f"{title}, by {x_name}: " + ", ".join(name for name, _, _ in lines),
    )


def value_at(line: Line, x: float) -> float:
    """The highest value that the line has at or before x."""
    return float(line[1][max(0, int(np.searchsorted(line[0], x, "right")) - 1)])


def as_curve(line: Line) -> Curve:
    points = [Point(float(x), float(y), float(y), float(y)) for x, y in zip(*line, strict=True)]
    return Curve(points=points, last=points[-1].mean)


# --- the file --------------------------------------------------------------------------------------------------------


def columns(path: Path) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(class, its probability float64 [N], whether each sample has it bool [N]); of two classes the second alone.

    Rows that are not finite are left out. Raises ValueError for a file that holds no predictions of classes.
    """
    with safe_open(path, framework="numpy") as file:
        outputs, target, (samples, classes) = classified(file)
        largest, total, fine = np.zeros(samples), np.zeros(samples), np.zeros(samples, dtype=bool)
        rows = max(1, CHUNK // classes)
        for start in range(0, samples, rows):
            part = slice(start, min(start + rows, samples))
            logits_NC = outputs[part.start : part.stop].astype(np.float64)
            fine[part] = np.isfinite(logits_NC).all(axis=1)
            logits_NC[~fine[part]] = 0
            largest[part] = logits_NC.max(axis=1)
            total[part] = np.exp(logits_NC - largest[part, None]).sum(axis=1)
        truth, largest, total = target[:][fine], largest[fine], total[fine]
        wide = max(1, CHUNK // max(samples, 1))
        for first in range(1 if classes == 2 else 0, classes, wide):
            logits_NC = outputs[:, first : min(first + wide, classes)][fine].astype(np.float64)
            for place in range(logits_NC.shape[1]):
                yield first + place, np.exp(logits_NC[:, place] - largest) / total, truth == first + place
