"""The files of a study, read so that a missing, torn or hostile one costs its section and nothing else.

results.json says what came out, costs.json what it took, study.toml what was asked. A value that is none is left out; a run is only
looked for inside the study's own folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from torchstone.core.errors import UserError
from torchstone.core.json_text import from_json
from torchstone.report.reading import LARGE, SMALL, parse_toml, read_table, real, rows, share, table, whole, words

STUDY, RESULTS, COSTS = "study.toml", "results.json", "costs.json"
MOST_VARIANTS, MOST_SEEDS, MOST_CLASSES, MOST_PAIRS, MOST_EDITS, MOST_ALSO = 200, 2000, 1000, 400, 24, 40
FINISHED = ("done", "stopped")
"""How a run ends that has a value."""


@dataclass(frozen=True, slots=True)
class Interval:
    mean: float
    low: float | None
    """None: there is none, as of one seed."""
    high: float | None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a variant took: seconds, memory, speed, each with what it takes more than the baseline."""

    value: Interval
    more: Interval | None


@dataclass(frozen=True, slots=True)
class SeedRun:
    seed: int
    pair: int
    """The study's seed: runs of the same pair are compared; unpaired, every variant has seeds of its own."""
    folder: Path | None
    """None where its name leads out of the study."""
    status: str
    value: float | None
    recall: tuple[float | None, ...]
    """Of each class."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Variant minus baseline in the metric's own unit: negative is better where less of the metric is."""

    n: int | None
    t: Interval | None
    bootstrap: tuple[float, float] | None
    p: float | None
    p_holm: float | None
    inert: bool
    diverged: int
    p_diverged: float | None
    """Of diverging as often beside the baseline by chance, corrected; None where nothing diverged."""
    verdict: str
    smallest: float | None
    """The smallest effect that these seeds could show."""


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    edits: tuple[str, ...]
    levels: Mapping[str, str]
    status: str
    runs: tuple[SeedRun, ...]
    mean: float | None
    std: float | None
    n: int | None
    ends: tuple[float, float] | None
    """The interval of the mean."""
    macs: int | None
    parameters: int | None
    effect: Effect | None
    costs: Mapping[str, Cost]
    also: Mapping[str, tuple[Interval | None, Interval | None]] = field(default_factory=dict)
    """Of each metric that does not decide: its mean, and its difference to the baseline."""

    def seeds(self, *statuses: str) -> list[int]:
        return [run.seed for run in self.runs if run.status in statuses]

    @property
    def finished(self) -> list[SeedRun]:
        return [run for run in self.runs if run.status in FINISHED]


@dataclass(frozen=True, slots=True)
class Interaction:
    factors: tuple[str, ...]
    levels: tuple[str, ...]
    t: Interval
    p: float | None
    p_holm: float | None


@dataclass(frozen=True, slots=True)
class Study:
    folder: Path
    recipe: str
    metric: str
    smaller: bool
    """Less of the metric is better."""
    split: str
    design: str
    confidence: float
    paired: bool
    seeds: tuple[int, ...]
    factors: tuple[tuple[str, tuple[str, ...]], ...]
    baseline: Variant | None
    variants: tuple[Variant, ...]
    """Without the baseline."""
    interactions: tuple[Interaction, ...]
    sequential: tuple[tuple[str, str], ...]
    matters: float | None
    """The smallest effect that matters, if it was named."""
    edits: tuple[str, ...]
    """Of every variant, the baseline too."""
    note: str
    """What is claimed."""
    ended: str
    """Why no more runs were made."""
    classes: tuple[str, ...]
    warnings: tuple[str, ...]
    totals: Mapping[str, float]
    """Of the whole study: seconds, training_seconds, overhead."""
    plan: Mapping[str, Any]
    """study.toml."""
    problems: tuple[str, ...]
    also: tuple[str, ...] = ()
    """The metrics that were measured beside the one that decides."""

    @property
    def all(self) -> tuple[Variant, ...]:
        return self.variants if self.baseline is None else (self.baseline, *self.variants)


def is_study(folder: Path) -> bool:
    """Whether the folder is to be read as a study; a run or a folder of folds is none."""
    return (folder / STUDY).is_file()


def read_study(folder: Path) -> Study:
    """Raises UserError for a folder that holds no study at all."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such study folder")
    if not is_study(folder):
        raise UserError(f"{folder}: not a study folder, {STUDY} is missing")
    problems: list[str] = []
    plan = read_table(folder / STUDY, SMALL, parse_toml, problems)
    results = read_table(folder / RESULTS, LARGE, from_json, problems) if (folder / RESULTS).exists() else {}
    costs = read_table(folder / COSTS, LARGE, from_json, problems) if (folder / COSTS).exists() else {}
    if results and results.get("kind") != "study":
        problems.append(f"{RESULTS}: not the results of a study")
        results = {}
    # Where there are no results yet the plan says what was asked.
    asked = results or table(plan.get("study"))
    priced = table(costs.get("variants"))
    found = [
        variant(folder, entry, priced) for entry in map(table, rows(results.get("variants"))[:MOST_VARIANTS]) if words(entry.get("name"))
    ]
    base = words(results.get("baseline")) or "baseline"
    level = real(asked.get("confidence"))
    totals = {name: number for name, value in table(costs.get("study")).items() if (number := real(value)) is not None}
    return Study(
        folder=folder,
        recipe=words(asked.get("recipe"), 80),
        metric=words(asked.get("metric"), 60) or "metric",
        smaller=asked.get("mode") == "min",
        split=words(asked.get("split"), 40) or "validation",
        design=words(asked.get("design"), 20),
        confidence=level if level is not None and 0.5 <= level < 1 else 0.95,
        paired=asked.get("paired") is not False,
        seeds=tuple(seed for seed in map(whole, rows(asked.get("seeds"))[:MOST_SEEDS]) if seed is not None),
        factors=tuple(read_factors(asked)),
        baseline=next((each for each in found if each.name == base), None),
        variants=tuple(each for each in found if each.name != base),
        interactions=tuple(filter(None, map(interaction, map(table, rows(results.get("interactions"))[:MOST_PAIRS])))),
        sequential=tuple(read_sequential(table(results.get("sequential")))),
        matters=positive(asked.get("matters", table(plan.get("study")).get("matters"))),
        edits=tuple(filter(None, (words(edit, 200) for edit in rows(asked.get("edits"))[:MOST_EDITS]))),
        note=words(asked.get("note"), 600),
        ended=words(results.get("ended"), 300),
        classes=tuple(words(name, 60) or "?" for name in rows(results.get("classes"))[:MOST_CLASSES]),
        also=tuple(filter(None, (words(name, 100) for name in rows(results.get("also"))[:MOST_ALSO]))),
        warnings=tuple(filter(None, (words(text, 300) for text in rows(results.get("warnings"))[:40]))),
        totals=totals,
        plan=plan,
        problems=tuple(problems),
    )


def read_factors(asked: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """(path, values) of every factor."""
    entries = map(table, rows(asked.get("factors"))[:MOST_EDITS])
    pairs = [(words(entry.get("path"), 160), tuple(text_of(value) for value in rows(entry.get("values"))[:40])) for entry in entries]
    return [(path, values) for path, values in pairs if path]


def text_of(value: Any) -> str:
    return words(value, 80) if isinstance(value, str) else words(str(value)[:80], 80)


def read_sequential(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value): how it was decided when to stop, and after how many seeds each variant was."""
    alpha = real(document.get("alpha"))
    after = [
        f"{words(name, 60)} after {n}" for name, value in table(document.get("decided_after")).items() if (n := whole(value)) is not None
    ]
    found = [
        ("rule", words(document.get("method"), 300)),
        ("error rate", f"{alpha:g}" if alpha is not None else ""),
        ("decided", words(", ".join(after), 900)),
    ]
    return [(name, value) for name, value in found if value]


# --- variants --------------------------------------------------------------------------------------------------------


def variant(folder: Path, entry: dict[str, Any], priced: dict[str, Any]) -> Variant:
    name = words(entry.get("name"))
    price = table(priced.get(entry["name"])) if isinstance(entry.get("name"), str) else {}
    return Variant(
        name=name,
        edits=tuple(filter(None, (words(edit, 200) for edit in rows(entry.get("edits"))[:MOST_EDITS]))),
        levels={words(path, 160): text_of(value) for path, value in table(entry.get("factors")).items()},
        status=words(entry.get("status"), 40),
        runs=tuple(
            each for each in (seed_run(folder, run) for run in map(table, rows(entry.get("runs"))[:MOST_SEEDS])) if each is not None
        ),
        mean=real(entry.get("mean")),
        std=positive(entry.get("std")),
        n=whole(entry.get("n")),
        ends=(found.low, found.high) if (found := interval(entry)) and found.low is not None and found.high is not None else None,
        macs=whole(entry.get("macs")),
        parameters=whole(entry.get("parameters")),
        also={words(name, 100): read_also(table(found)) for name, found in list(table(entry.get("also")).items())[:MOST_ALSO]},
        effect=effect(entry["effect"]) if isinstance(entry.get("effect"), dict) else None,
        costs={key: cost for key in ("seconds", "peak_memory_mb", "samples_per_s") if (cost := read_cost(table(price.get(key))))},
    )


def seed_run(folder: Path, entry: dict[str, Any]) -> SeedRun | None:
    seed = whole(entry.get("seed"))
    if seed is None:
        return None
    recall = tuple(share(value) for value in rows(table(entry.get("per_class")).get("recall"))[:MOST_CLASSES])
    status, value = words(entry.get("status"), 40), real(entry.get("value"))
    pair = whole(entry.get("pair"))
    return SeedRun(
        seed, seed if pair is None else pair, run_folder(folder, entry.get("run")), status, value if status in FINISHED else None, recall
    )


def run_folder(folder: Path, name: Any) -> Path | None:
    """The folder of a run, if its name stays inside the study and no link leads there."""
    if not isinstance(name, str) or not 0 < len(name) < 400 or "\0" in name:
        return None
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or len(place.parts) > 4:
        return None
    way = [folder.joinpath(*place.parts[: i + 1]) for i in range(len(place.parts))]
    try:
        return None if any(step.is_symlink() for step in way) else way[-1] if way else None
    except (OSError, ValueError):
        return None


def effect(entry: dict[str, Any]) -> Effect:
    low, high = real(entry.get("bootstrap_low")), real(entry.get("bootstrap_high"))
    return Effect(
        n=whole(entry.get("n")),
        t=interval(entry),
        bootstrap=(low, high) if low is not None and high is not None and low <= high else None,
        p=share(entry.get("p")),
        p_holm=share(entry.get("p_holm")),
        inert=entry.get("inert") is True,
        diverged=whole(entry.get("diverged")) or 0,
        p_diverged=share(entry.get("p_diverged_holm")),
        verdict=words(entry.get("verdict"), 80),
        smallest=positive(entry.get("smallest")),
    )


def interval(entry: Mapping[str, Any]) -> Interval | None:
    """A mean with its ends, or without them where they do not hold it."""
    mean, low, high = (real(entry.get(key)) for key in ("mean", "low", "high"))
    if mean is None:
        return None
    if low is None or high is None or not low <= mean <= high:
        low = high = None
    return Interval(mean, low, high, whole(entry.get("n")))


def read_cost(entry: dict[str, Any]) -> Cost | None:
    value = interval(entry)
    return Cost(value, interval(table(entry.get("difference")))) if value else None


def read_also(entry: dict[str, Any]) -> tuple[Interval | None, Interval | None]:
    """The mean of a metric that does not decide, and its difference to the baseline."""
    change = {"mean": entry.get("difference"), "low": entry.get("difference_low"), "high": entry.get("difference_high")}
    return interval(entry), interval(change)


def interaction(entry: dict[str, Any]) -> Interaction | None:
    names = tuple(words(name, 160) for name in rows(entry.get("factors"))[:4])
    found = interval(entry)
    if found is None or not any(names):
        return None
    levels = tuple(level_text(level) for level in rows(entry.get("levels"))[:8])
    return Interaction(names, levels, found, share(entry.get("p")), share(entry.get("p_holm")))


def level_text(level: Any) -> str:
    return ", ".join(text_of(each) for each in level[:4]) if isinstance(level, list) else text_of(level)


def positive(value: Any) -> float | None:
    number = real(value)
    return number if number is not None and number >= 0 else None
