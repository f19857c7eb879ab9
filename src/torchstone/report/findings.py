"""The doctor's findings of a run: what was found, against which threshold, why, on what evidence, and what to do about it.

Every value of findings.json is checked before it is believed: a finding that is none is left out, evidence that cannot be drawn costs
its drawing.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchstone.core.errors import UserError
from torchstone.core.files import read_text
from torchstone.core.json_text import from_json
from torchstone.report.charts import Chart, Series, line_chart
from torchstone.report.curves import Curve, Point
from torchstone.report.facts import Bar
from torchstone.report.numbers import NONE, number
from torchstone.report.pictures import FOLDER, Picture, Shelf
from torchstone.report.reading import real, rows, table, words

FILE = "findings.json"
LARGEST = 1 << 24
SEVERITIES = {"error": 0, "warning": 1, "note": 2}
MOST_FINDINGS, MOST_CHECKS, MOST_EDITS = 40, 200, 12
MOST_ROWS, MOST_COLUMNS, MOST_BARS, MOST_IMAGES, MOST_POINTS = 24, 8, 40, 24, 800
STYLES = ("main", "quiet", "dash", "dots", "mixed", "long")
"""Of the lines of one chart, told apart by their dashes and by the names at their ends."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One of the four is there."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    left_out: int = 0
    """Rows or bars that are not shown."""
    chart: Chart | None = None
    bars: tuple[Bar, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    severity: str
    summary: str
    value: float | None
    threshold: float | None
    because: str
    evidence: Evidence | None
    remedy: str
    """Edits to paste, with a space between them."""
    advice: str

    @property
    def name(self) -> str:
        return self.check.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    outcome: str
    value: str
    threshold: str
    why: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What findings.json says; `there`: the doctor looked at this run."""

    findings: tuple[Finding, ...] = ()
    checks: tuple[Check, ...] = ()
    there: bool = False
    problem: str = ""

    @property
    def passed(self) -> int:
        return sum(check.outcome == "passed" for check in self.checks)


def read_findings(run: Path, *, draw: bool = True) -> Findings:
    """The findings of a run folder, the gravest first; nothing where no doctor looked. Without `draw` no evidence is made."""
    try:
        document = from_json(read_text(run / FILE, LARGEST), FILE)
    except FileNotFoundError:
        return Findings()
    except (OSError, UserError) as error:
        return Findings(problem=words(f"{FILE} cannot be read: {error}".replace(f"{run}/", ""), 200))
    if table(document).get("kind") != "findings":
        return Findings(problem=f"{FILE}: not the findings of a doctor")
    shelf = Shelf(run / FOLDER)
    found = [finding(entry, shelf if draw else None) for entry in map(table, rows(document.get("findings"))[:MOST_FINDINGS])]
    kept = sorted((each for each in found if each is not None), key=lambda each: SEVERITIES[each.severity])
    checks = [check(entry) for entry in map(table, rows(document.get("checks"))[:MOST_CHECKS]) if words(entry.get("check"))]
    return Findings(tuple(kept), tuple(checks), there=True, problem=shelf.problem)


def finding(entry: dict[str, Any], shelf: Shelf | None) -> Finding | None:
    severity, summary = words(entry.get("severity"), 20), words(entry.get("summary"), 600)
    if severity not in SEVERITIES or not summary:
        return None
    return Finding(
        check=words(entry.get("check"), 60),
        severity=severity,
        summary=summary,
        value=real(entry.get("value")),
        threshold=real(entry.get("threshold")),
        because=words(entry.get("because"), 600),
        evidence=evidence(table(entry.get("evidence")), shelf) if shelf is not None else None,
        remedy=" ".join(filter(None, (words(edit, 1000) for edit in rows(entry.get("remedy"))[:MOST_EDITS]))),
        advice=words(entry.get("advice"), 600),
    )


def check(entry: dict[str, Any]) -> Check:
    return Check(
        name=words(entry.get("check"), 60).replace("_", " "),
        outcome=words(entry.get("outcome"), 20),
        value=number(real(entry.get("value"))),
        threshold=number(real(entry.get("threshold"))),
        why=words(entry.get("why"), 300),
    )


# --- evidence --------------------------------------------------------------------------------------------------------


def evidence(document: dict[str, Any], shelf: Shelf) -> Evidence | None:
    match document.get("kind"):
        case "table":
            return table_of(document)
        case "curve":
            chart = chart_of(document)
            return Evidence(chart=chart) if chart else None
        case "bars":
            return bars_of(document)
        case "images":
            return images_of(document, shelf)
        case _:
            return None


def table_of(document: dict[str, Any]) -> Evidence | None:
    columns = tuple(words(name, 60) for name in rows(document.get("columns"))[:MOST_COLUMNS])
    found = [row for row in rows(document.get("rows")) if isinstance(row, list)]
    shown = tuple(tuple(cell(value) for value in (*row[: len(columns)], *[""] * (len(columns) - len(row)))) for row in found[:MOST_ROWS])
    return Evidence(columns=columns, rows=shown, left_out=max(0, len(found) - MOST_ROWS)) if columns and shown else None


def cell(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return number(real(value))
        case None:
            return NONE
        case _:
            return words(value, 160)


def chart_of(document: dict[str, Any]) -> Chart | None:
    """At most six lines, drawn over their own x axis from the left to the right."""
    lines = []
    for entry, style in zip(map(table, rows(document.get("lines"))), STYLES, strict=False):
        pairs = zip(map(real, rows(entry.get("x"))), map(real, rows(entry.get("y"))), strict=False)
        points = sorted({x: y for x, y in pairs if x is not None and y is not None}.items())
        every = -(-len(points) // MOST_POINTS) or 1
        curve = Curve(points=[Point(x, y, y, y) for x, y in points[::every]], last=points[-1][1] if points else None)
        lines.append(Series(words(entry.get("name"), 40) or "value", curve, style))
    across = words(document.get("x"), 40) or "step"
    chart = line_chart(words(document.get("y"), 60) or "value", lines, x_name=across)
    # Where the lines end says little here; what they run over does.
    return replace(chart, note=f"by {across}" + (", logarithmic" if "logarithmic" in chart.note else "")) if chart else None


def bars_of(document: dict[str, Any]) -> Evidence | None:
    pairs = list(zip(rows(document.get("labels")), map(real, rows(document.get("values"))), strict=False))
    most = max((abs(value) for _, value in pairs if value is not None), default=0.0) or 1.0
    shown = [Bar(cell(label) or "?", number(value), 100 * abs(value or 0.0) / most) for label, value in pairs[:MOST_BARS]]
    return Evidence(bars=tuple(shown), left_out=max(0, len(pairs) - MOST_BARS)) if shown else None


def images_of(document: dict[str, Any], shelf: Shelf) -> Evidence | None:
    """Pictures of the run's own folder of pictures."""
    captions = [*rows(document.get("captions")), *[""] * MOST_IMAGES]
    entries = [
        {"file": file.removeprefix(f"{FOLDER}/") if isinstance(file, str) else file, "label": caption}
        for file, caption in zip(rows(document.get("files"))[:MOST_IMAGES], captions, strict=False)
    ]
    pictures = tuple(picture for picture in shelf.take(entries, MOST_IMAGES) if picture)
    return Evidence(pictures=pictures, left_out=max(0, len(rows(document.get("files"))) - MOST_IMAGES)) if pictures else None
