"""The plain tables of the report: the data, the speed trial, the environment, and the commands that use the model."""

import shlex
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torchstone.report.headline import samples, split_sizes
from torchstone.report.numbers import NONE, TIMES, count, duration, percent
from torchstone.report.reading import RunFiles, kind_of, real, rows, table, whole, words

MOST_CLASSES = 60
MOST_NOTES = 30
MOST_TRIALS = 40
MOST_PACKAGES = 40


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    text: str
    share: float
    """Percent of the full width."""


@dataclass(frozen=True, slots=True)
class DataFacts:
    source: str
    where: str
    sample: str
    splits: tuple[Bar, ...]
    rule: str
    classes: tuple[Bar, ...]
    classes_left_out: int
    notes: tuple[tuple[str, str], ...]
    fingerprint: str


def data_facts(run: RunFiles) -> DataFacts | None:
    if not run.facts:
        return None
    sizes = split_sizes(run)
    total = sum(n for _, n in sizes)
    data = table(run.experiment.get("data"))
    return DataFacts(
        source=kind_of(data),
        where=words(data.get("path"), 200),
        sample=samples(run, 1),
        splits=tuple(
            Bar(name, f"{count(n)} ({percent(n / total)})" if total else count(n), 100 * n / total if total else 0) for name, n in sizes
        ),
        rule=words(run.facts.get("split_rule"), 400),
        classes=class_bars(run),
        classes_left_out=max(0, run.class_count - MOST_CLASSES),
        notes=tuple(notes(run)),
        fingerprint=words(run.facts.get("fingerprint"), 64),
    )


def class_bars(run: RunFiles) -> tuple[Bar, ...]:
    """Training samples of the first classes; nothing where the counts are not one a class."""
    counts = [whole(n) for n in rows(run.facts.get("class_counts"))]
    if not counts or len(counts) != run.class_count:
        return ()
    most = max(n or 0 for n in counts) or 1
    return tuple(Bar(name, count(n), 100 * (n or 0) / most) for name, n in zip(run.classes(MOST_CLASSES), counts, strict=False))


def notes(run: RunFiles) -> list[tuple[str, str]]:
    """(what was counted, how often) while the data were read."""
    found = rows(run.facts.get("notes")) or rows(run.environment.get("notes"))
    pairs = [pair for pair in found[:MOST_NOTES] if isinstance(pair, list) and len(pair) == 2]
    return [(words(name), count(whole(n))) for name, n in pairs if words(name)]


# --- the speed trial -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trial:
    """One way of running the step, and what it took."""

    settings: tuple[str, ...]
    time: str
    ratio: str
    """Times faster than the slowest."""
    share: float
    chosen: bool


@dataclass(frozen=True, slots=True)
class Speed:
    header: tuple[str, ...]
    trials: tuple[Trial, ...]
    took: str


def speed(run: RunFiles) -> Speed | None:
    """The table of run.speed=auto; None where the run had none."""
    document = table(run.environment.get("speed"))
    found = [row for row in map(table, rows(document.get("rows"))[:MOST_TRIALS]) if row]
    if not found:
        return None
    times = [real(row.get("seconds_per_step")) for row in found]
    slowest = max((time for time in times if time), default=None)
    names = ("precision", "memory_format", "compile", "threads")
    trials = [trial(row, time, slowest, names) for row, time in zip(found, times, strict=True)]
    return Speed(tuple(name.replace("_", " ") for name in names), tuple(trials), duration(real(document.get("seconds"))))


def trial(row: dict[str, Any], time: float | None, slowest: float | None, names: tuple[str, ...]) -> Trial:
    known = time is not None and time > 0 and slowest is not None
    return Trial(
        settings=tuple(plain(row.get(name)) for name in names),
        time=duration(time),
        ratio=f"{slowest / time:.2f}{TIMES}" if known and slowest and time else NONE,
        share=100 * time / slowest if known and slowest and time else 0.0,
        chosen=row.get("chosen") is True,
    )


def plain(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return count(whole(value))
        case None:
            return NONE
        case _:
            return words(value, 40)


# --- the environment -------------------------------------------------------------------------------------------------


def environment(run: RunFiles) -> list[tuple[str, str]]:
    """(name, value) of the machine and the software."""
    env = run.environment
    gigabytes = real(env.get("memory_gb"))
    accelerators = [words(name, 80) for name in rows(env.get("accelerators"))[:8]]
    found = [
        ("torchstone", words(env.get("torchstone"), 40)),
        ("revision", words(env.get("git"), 60)),
        ("Python", words(env.get("python"), 40)),
        ("platform", words(env.get("platform"))),
        ("processor", words(env.get("processor"))),
        ("vector unit", words(env.get("cpu_capability"), 40)),
        ("cores, threads", " cores, ".join(filter(None, (plain(whole(env.get("cores"))), f"{plain(whole(env.get('threads')))} used")))),
        ("memory", f"{gigabytes:.0f}\u202fGB" if gigabytes is not None else ""),
        ("accelerators", ", ".join(filter(None, accelerators)) or "none"),
    ]
    packages = [(words(name, 60), words(version, 60)) for name, version in islice(table(env.get("packages")).items(), MOST_PACKAGES)]
    return [(name, value) for name, value in (*found, *packages) if name and value] if env else []


# --- what to do next -------------------------------------------------------------------------------------------------


def commands(run: RunFiles) -> list[tuple[str, str]]:
    """(what it does, the command) for the model of this run, as typed where the report was made."""
    where = shlex.quote(short(run.folder))
    toml = shlex.quote(short(run.folder / "experiment.toml"))
    status = run.metrics.get("status")
    going_on = [("Go on where it ended", f"torchstone train {toml} --out {where} --resume")] if status not in ("done", "stopped") else []
    if run.task == "language":
        uses = [("Continue a text", f"torchstone predict {where} 'Once upon a time'")]
    else:
        uses = [
            ("Name what is in a picture or a folder of them", f"torchstone predict {where} picture.jpg"),
            ("The same in Python", in_python(run.folder)),
        ]
        if kind_of(run.facts.get("inputs")) != "image_shape":
            uses = [("Predict the rows of an array", f"torchstone predict {where} rows.npy")]
    return [
        *going_on,
        *uses,
        ("Measure it on other data", f"torchstone eval {where} --data PATH"),
        ("Repeat this training, bit for bit", f"torchstone train {toml}"),
        ("Make this page again", f"torchstone report {where}"),
    ]


def in_python(run: Path) -> str:
    return f"import torchstone; torchstone.load({short(run)!r}).predict(['picture.jpg'])"


def short(path: Path) -> str:
    """The path from the working directory, where it is inside."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) and absolute != here else str(absolute)
