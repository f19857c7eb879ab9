"""Several runs on one page: what differs in their trees, what came out, and their curves over each other."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchstone.core.errors import UserError
from torchstone.report.charts import Chart, Series, line_chart
from torchstone.report.classes import read_confusion
from torchstone.report.curves import Curve, Log, read_log
from torchstone.report.experiment import shown
from torchstone.report.facts import short
from torchstone.report.findings import STYLES, Findings, read_findings
from torchstone.report.headline import ENDINGS, SHARES, SMALLER_IS_BETTER, main_metric, split_sizes, title_of, written
from torchstone.report.numbers import NONE, count, duration, memory, percent, plural, scaled, wilson
from torchstone.report.reading import RunFiles, kind_of, read_run, real, table, whole, words
from torchstone.report.rendering import rendered

LOG = "log.jsonl"
MOST_RUNS = len(STYLES)
"""As many as there are lines that can be told apart without color."""
MOST_DIFFERENCES, DEEPEST = 200, 10
NOT_COMPARED = ("run.name",)
"""Settings that differ in every run and change nothing."""
MOST_METRICS, MOST_CHARTS = 16, 6


@dataclass(frozen=True, slots=True)
class Side:
    """One of the runs."""

    name: str
    files: RunFiles
    log: Log
    findings: Findings


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table: a cell for each run; `best` is the place of the best, where one is."""

    name: str
    cells: tuple[str, ...]
    hints: tuple[str, ...] = ()
    best: int | None = None


def page(folders: Sequence[Path]) -> str:
    """Two to six runs as HTML: one file, no script, nothing fetched. Raises UserError for a folder that is no run."""
    if not 2 <= len(folders) <= MOST_RUNS:
        raise UserError(f"{len(folders)} runs: two to {MOST_RUNS} can be drawn side by side; of more, make a study (`torchstone compare`)")
    if len({folder.absolute() for folder in folders}) < len(folders):
        raise UserError("the same run is named twice; each may stand there once")
    files = [read_run(folder) for folder in folders]
    names = names_of(folders)
    sides = [
        Side(name, each, read_log(each.folder / LOG), read_findings(each.folder, draw=False))
        for name, each in zip(names, files, strict=True)
    ]
    unlike, left_out = differences([side.files for side in sides])
    sections = {
        "names": names,
        "results": results(sides),
        "costs": costs(sides),
        "differences": unlike,
        "left_out": left_out,
        "charts": charts(sides),
        "findings": [(side.name, side.findings) for side in sides if side.findings.there],
        "commands": commands(folders),
    }
    problems = [
        f"{side.name}: {text}" for side in sides for text in (*side.files.problems, side.log.problem, side.findings.problem) if text
    ]
    found = (
        ("results", "Results", sections["results"]),
        ("differences", "What differs", True),
        ("curves", "Curves", sections["charts"]),
        ("findings", "Findings", sections["findings"]),
        ("use", "Use it", True),
    )
    contents = [(anchor, name) for anchor, name, there in found if there]
    return rendered("side_by_side.html", answer=answer(sides, unlike), problems=problems, contents=contents, **sections)


def names_of(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart, without what all end in."""
    parts = [folder.absolute().parts for folder in folders]
    while min(map(len, parts)) > 1 and len({each[-1] for each in parts}) == 1:
        parts = [each[:-1] for each in parts]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return [words(name, 80) or "run" for name in names]
    return [words(str(folder), 80) or "run" for folder in folders]


def answer(sides: Sequence[Side], unlike: Sequence[Line]) -> str:
    """The result of each in one sentence, by the metric that the first was selected by."""
    metric = next((name for side in sides if (name := main_metric(side.files))), "")
    values = [real(side.files.final.get(metric)) if metric else None for side in sides]
    settings = plural(len(unlike), "setting") + (" differs" if len(unlike) == 1 else " differ")
    if not any(value is not None for value in values):
        return f"No run has a result yet; {settings}."
    said = ", ".join(
        f"{side.name} {written(metric, value) if value is not None else NONE}" for side, value in zip(sides, values, strict=True)
    )
    return f"{said} ({title_of(metric)}, test split); {settings}."


# --- tables ----------------------------------------------------------------------------------------------------------


def differences(files: Sequence[RunFiles]) -> tuple[list[Line], int]:
    """(a line for each setting that is not the same in all, how many more there are)."""
    lines = [line for line in differing([each.experiment for each in files]) if line.name not in NOT_COMPARED]
    return lines[:MOST_DIFFERENCES], max(0, len(lines) - MOST_DIFFERENCES)


def differing(values: Sequence[Any], place: str = "", depth: int = 0) -> Iterator[Line]:
    """Parts of one kind are compared setting by setting; where the kinds differ, the whole parts stand side by side."""
    if all(value == values[0] for value in values):
        return
    tables = [each for value in values if (each := as_table(value)) is not None]
    if len(tables) < len(values) or len({kind_of(each) for each in tables}) > 1 or depth > DEEPEST:
        yield Line(place, tuple(in_short(value) for value in values))
        return
    for name in dict.fromkeys(name for each in tables for name in each):
        inner = f"{place}.{words(name, 60)}" if place else words(name, 60)
        yield from differing([each.get(name) for each in tables], inner, depth + 1)


def as_table(value: Any) -> dict[str, Any] | None:
    """A part, or a list of parts by their kinds (with a number where two have the same); None for a plain value."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return None
    found: dict[str, Any] = {}
    for item in value:
        kind, number = kind_of(item) or "?", 2
        name = kind
        while name in found:
            name, number = f"{kind} {number}", number + 1
        found[name] = item
    return found


def in_short(value: Any) -> str:
    """A value in a cell: a part as its kind and its settings."""
    if value is None:
        return NONE
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return words(", ".join(in_short(item) for item in value[:8]), 300)
    if not isinstance(value, dict):
        return shown(value)
    inside = ", ".join(f"{name} {in_short(inner)}" for name, inner in list(value.items())[:12] if name != "kind")
    return words(f"{kind_of(value) or 'part'}" + (f" ({inside})" if inside else ""), 300)


def results(sides: Sequence[Side]) -> list[Line]:
    """Every final number that any of them has; an accuracy with its interval and its n."""
    names = list(dict.fromkeys(name for side in sides for name, value in side.files.final.items() if real(value) is not None))
    chosen = next((name for side in sides if (name := main_metric(side.files))), "")
    names.sort(key=lambda name: name != chosen)
    lines = [Line("status", tuple(ENDINGS.get(words(side.files.metrics.get("status")), "not finished") for side in sides))]
    for name in names[:MOST_METRICS]:
        values = [real(side.files.final.get(name)) for side in sides]
        hints = tuple(interval(side, value) if name == "accuracy" else "" for side, value in zip(sides, values, strict=True))
        cells = tuple(written(name, value) if value is not None else NONE for value in values)
        lines.append(Line(title_of(name), cells, hints, best_of(name, values)))
    return lines


def interval(side: Side, accuracy: float | None) -> str:
    """The 95 % interval of an accuracy, and how many test samples it is over; none of a text, whose tokens hang together."""
    confusion = read_confusion(side.files)
    tested = dict(split_sizes(side.files)).get("test")
    if confusion:
        right, total = confusion.right, confusion.total
    elif tested and accuracy is not None and 0 <= accuracy <= 1 and side.files.task != "language":
        right, total = round(accuracy * tested), tested
    else:
        return ""
    low, high = wilson(right, total)
    return f"[{percent(low)}, {percent(high)}]\u2002n\u202f{count(total)}"


def best_of(name: str, values: Sequence[float | None]) -> int | None:
    """The place of the best of at least two different numbers, where it is known what is better."""
    known = {place: value for place, value in enumerate(values) if value is not None}
    if len(set(known.values())) < 2 or name not in (*SHARES, *SMALLER_IS_BETTER):
        return None
    choose = min if name in SMALLER_IS_BETTER else max
    return choose(known, key=lambda place: known[place])


def costs(sides: Sequence[Side]) -> list[Line]:
    found = [table(side.files.metrics.get("cost")) for side in sides]
    lines = [
        Line("training time", tuple(duration(real(each.get("seconds"))) for each in found)),
        Line("samples a second", tuple(count(round(speed)) if (speed := real(each.get("samples_per_s"))) else NONE for each in found)),
        Line("peak memory", tuple(memory(real(each.get("peak_memory_mb"))) for each in found)),
        Line("parameters", tuple(count(whole(each.get("parameters"))) for each in found)),
        Line("MACs", tuple(scaled(whole(each.get("macs"))) for each in found)),
        Line("steps", tuple(count(whole(side.files.metrics.get("steps"))) for side in sides)),
    ]
    return [line for line in lines if set(line.cells) != {NONE}]


# --- curves ----------------------------------------------------------------------------------------------------------


def charts(sides: Sequence[Side]) -> list[Chart]:
    """The training loss, and each metric of the evaluations, the main one first."""
    chosen = next((name for side in sides if (name := main_metric(side.files))), "")
    names = list(dict.fromkeys(name for side in sides for name in side.log.evaluations))
    names.sort(key=lambda name: (name != chosen, name != "loss"))
    drawn = [chart_of(sides, name) for name in names[: MOST_CHARTS - 1]]
    lines = [Series(side.name, side.log.updates["loss"], style) for side, style in zip(sides, STYLES, strict=False)]
    training = line_chart("Training loss", lines)
    return [chart for chart in (*drawn[:2], training, *drawn[2:]) if chart is not None]


def chart_of(sides: Sequence[Side], name: str) -> Chart | None:
    lines = [Series(side.name, side.log.evaluations.get(name, Curve()), style) for side, style in zip(sides, STYLES, strict=False)]
    inside = all(0 <= point.low and point.high <= 1 for line in lines for point in line.curve.points)
    title = title_of(name)
    return line_chart(f"{title[:1].upper()}{title[1:]} on the validation split", lines, as_percent=name in SHARES and inside)


def commands(folders: Sequence[Path]) -> list[tuple[str, str]]:
    places = " ".join(shlex.quote(short(folder)) for folder in folders)
    return [
        ("Make this page again", f"torchstone report {places}"),
        ("What one of them holds", f"torchstone report {shlex.quote(short(folders[0]))}"),
        ("Whether a difference is more than chance needs seeds", "torchstone compare RECIPE --vary PATH=A,B --seeds 5"),
    ]
