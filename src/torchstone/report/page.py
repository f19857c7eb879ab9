"""All sections of a run's report, and the page they make."""

from pathlib import Path
from typing import Any

from torchstone.report.calibration import read_calibration
from torchstone.report.charts import Chart, Series, line_chart
from torchstone.report.classes import class_table, matrix, most_confused, read_confusion
from torchstone.report.curves import Curve, Log, read_log
from torchstone.report.experiment import read_tree
from torchstone.report.facts import commands, data_facts, environment, speed
from torchstone.report.findings import Findings, read_findings
from torchstone.report.headline import headline, main_metric, title_of
from torchstone.report.pictures import Pictures, read_pictures
from torchstone.report.ranking import read_ranking
from torchstone.report.reading import RunFiles, read_run, share, table, whole, words
from torchstone.report.rendering import rendered

LOG = "log.jsonl"
MOST_OTHERS = 3
"""Charts of metrics that are no RATES."""
RATES = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "macro_f1": "macro F1", "top_5_accuracy": "top-5"}
"""Metrics that share one chart, and what they are called there: all are shares, and more is better."""


def page(run: Path) -> str:
    """The report of a run folder as HTML: one file, no script, nothing fetched, a few MB at most whatever the run holds.

    What is missing is left out, what cannot be read is said on the page. Raises UserError for a folder that is no run.
    """
    files = read_run(run)
    log = read_log(run / LOG)
    calibration, unread = read_calibration(run)
    ranking, unranked = read_ranking(files)
    pictures, findings = read_pictures(run), read_findings(run)
    confusion = read_confusion(files)
    threshold = share(table(files.artifact.get("task")).get("threshold"))
    predicted = (calibration.right, calibration.total) if calibration else None
    head = headline(files, confusion, predicted)
    problems = [
        *files.problems,
        log.problem,
        words(unread, 240),
        words(unranked, 240) if unranked != unread else "",
        pictures.problem,
        findings.problem,
    ]
    sections = {
        "findings": findings,
        "charts": charts(files, log),
        "not_finite": log.not_finite,
        "matrix": matrix(confusion) if confusion else (),
        "pairs": most_confused(confusion) if confusion else [],
        "errors": confusion.total - confusion.right if confusion and threshold is None else None,
        "threshold": (threshold, *files.classes(2)[1:]) if threshold is not None and files.class_count == 2 else None,
        "class_count": len(confusion.names) if confusion else 0,
        "classes": class_table(files, confusion),
        "pictures": pictures,
        "ranking": ranking,
        "calibration": calibration,
        "data": data_facts(files),
        "tree": read_tree(files),
        "speed": speed(files),
        "environment": environment(files),
        "commands": commands(files),
    }
    said = [problem for problem in problems if problem]
    return rendered("page.html", head=head, problems=said, contents=contents(sections), **sections)


def contents(sections: dict[str, Any]) -> list[tuple[str, str]]:
    """(anchor, name) of each section that is there, in order."""
    pictures: Pictures = sections["pictures"]
    findings: Findings = sections["findings"]
    found = (
        ("findings", "Findings", findings.there),
        ("curves", "Curves", sections["charts"]),
        ("confusion", "Confusion", sections["matrix"] or sections["pairs"]),
        ("classes", "Classes", sections["classes"]),
        ("mistakes", "Mistakes", pictures.mistakes),
        ("augmentation", "Augmentation", pictures.pairs or pictures.augmented),
        ("ranking", "Ranking", sections["ranking"]),
        ("calibration", "Calibration", sections["calibration"]),
        ("data", "Data", sections["data"]),
        ("experiment", "Experiment", sections["tree"]),
        ("speed", "Speed", sections["speed"]),
        ("environment", "Environment", sections["environment"]),
        ("use", "Use it", sections["commands"]),
    )
    return [(anchor, name) for anchor, name, there in found if there]


# --- curves ----------------------------------------------------------------------------------------------------------


def charts(run: RunFiles, log: Log) -> list[Chart]:
    """Loss, the metrics (the one the run was selected by first), the learning rate and the gradient's norm."""
    best = table(run.metrics.get("best"))
    step, chosen = whole(best.get("step")), main_metric(run) or words(best.get("selected_by"))
    mark = (step, "best") if step is not None else None
    # The table of a chart goes by its first line: of few evaluations and many updates, by the evaluations.
    losses = [Series("validation", log.evaluations.get("loss", Curve())), Series("training", log.updates["loss"], "quiet")]
    made = [
        line_chart("Loss", losses, mark=mark),
        *metric_charts(log.evaluations, chosen, mark),
        line_chart("Learning rate", [Series("rate", log.updates["lr"], "quiet")], linear=True),
        line_chart("Norm of the gradient", [Series("norm", log.updates["norm"], "quiet")]),
    ]
    return [chart for chart in made if chart is not None]


def metric_charts(validation: dict[str, Curve], chosen: str, mark: tuple[int, str] | None) -> list[Chart | None]:
    """One chart of all RATES, one of each other metric; `chosen` comes first, as a line and as a chart."""
    rates = sorted((name for name in RATES if name in validation), key=lambda name: name != chosen)
    lines = [Series(RATES[name], validation[name], style) for name, style in zip(rates, ("main", "quiet", "dash", "dots"), strict=False)]
    title = capitalized(title_of(rates[0])) if len(rates) == 1 else "Validation"
    together = line_chart(title, lines, as_percent=all(in_unit(line.curve) for line in lines), mark=mark)
    # The error of calibration has a section of its own.
    others = [name for name in validation if name not in (*RATES, "loss", "calibration_error")]
    others = sorted(others, key=lambda name: name != chosen)[:MOST_OTHERS]
    alone = [line_chart(capitalized(title_of(name)), [Series(title_of(name), validation[name])], mark=mark) for name in others]
    return [*alone, together] if chosen in others else [together, *alone]


def in_unit(curve: Curve) -> bool:
    return all(0 <= point.low and point.high <= 1 for point in curve.points)


def capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
