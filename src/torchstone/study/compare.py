"""A study from its words to its results: checked, planned, trained, judged.

    made = compare(recipes.digits_mini(), vary=["method.averaging=none,ema"], seeds=5)
    made.results["variants"][1]["effect"]["sentence"]

Runs go seed by seed over all variants, so that whatever stops a study leaves whole pairs.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchstone import fleet
from torchstone.core import files, layout, tree
from torchstone.core.errors import Interrupted, UserError, clean, warn
from torchstone.core.json_text import to_json
from torchstone.core.lock import Lock
from torchstone.experiment import Experiment
from torchstone.experiment.tree import own_parts
from torchstone.fleet import Outcome, Unit
from torchstone.study import definition, estimate
from torchstone.study.costs import costs, joined
from torchstone.study.definition import Definition
from torchstone.study.design import Design
from torchstone.study.estimate import Plan
from torchstone.study.factors import factors_of
from torchstone.study.reading import numbers, read_results, run_name
from torchstone.study.results import document, next_runs
from torchstone.train import folder as run_folder
from torchstone.train.trackers import Console

COSTS = "costs.json"
ENDED = "all runs are over"
WRITE_EVERY = 60.0
"""Seconds between the results that are written while runs are still made."""


__all__ = ["Compared", "Planned", "compare", "joined", "perform", "prepare", "repeat"]


@dataclass(frozen=True, slots=True)
class Compared:
    """What a study leaves."""

    folder: Path
    results: dict[str, Any]
    """The document of results.json."""
    costs: dict[str, Any]
    """That of costs.json."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A study that can begin, or go on."""

    study: Definition
    plan: Plan
    there: Path | None
    """The folder to go on with."""
    name: str = ""
    """Of a new folder under studies/; the recipe's where there is none."""


def compare(
    experiment: Experiment,
    *edits: str,
    vary: Sequence[str],
    out: str | Path | None = None,
    workers: int = 1,
    on: fleet.On = "processes",
    report: Callable[[Path], object] | None = None,
    **words: Any,
) -> Compared:
    """Trains the experiment with every value of what is varied, with every seed, and says what each is worth.

    `edits` apply to every variant. `words`, as `prepare` takes them: seeds (5, or [0, 3, 7]), metric, mode, design ("one", "grid",
    "without"), also (metrics told beside the one that decides), confidence, unpaired, matters (the smallest effect that does), until
    ("decided"), budget (seconds, or "30m"), note, recipe, resume. Raises UserError before any training for what is wrong; Interrupted
    when a signal asked for the end.
    """
    started = time.perf_counter()
    planned = prepare(experiment, *edits, vary=vary, out=out, workers=workers, **words)
    for line in estimate.lines(planned.study, planned.plan):
        tell(line)
    return perform(planned, out=out, workers=workers, on=on, report=report, started=started)


def prepare(
    experiment: Experiment,
    *edits: str,
    vary: Sequence[str],
    seeds: Any = 5,
    metric: str | None = None,
    out: str | Path | None = None,
    recipe: str = "",
    resume: bool = False,
    workers: int = 1,
    design: Design = "one",
    mode: str | None = None,
    confidence: float = 0.95,
    unpaired: bool = False,
    matters: float | None = None,
    until: str | None = None,
    budget: Any = None,
    note: str = "",
    also: str | Sequence[str] = (),
) -> Planned:
    """The study checked against its data and machine, and what it would take. Writes nothing."""
    if workers < 1:
        raise UserError(f"--workers must be 1 or more, got {workers}")
    if until not in (None, "decided"):
        raise UserError(f"--until {until}: decided is the only rule there is")
    place = None if out is None else Path(out)
    if until is not None and unpaired:
        raise UserError("--until decided looks at differences at one seed; --unpaired has none: leave one out")
    there = going_on(place, resume)
    start = without_console(tree.edit(experiment, edits))
    factors, baseline = factors_of(start, vary, last=design == "without", nested=design == "grid")
    selection = start.task.selection
    study = Definition(
        recipe=recipe or "python",
        baseline=baseline,
        factors=tuple(factors),
        design=design,
        seeds=definition.seeds_of(seeds),
        metric=metric or selection[0],
        mode=mode or definition.mode_of(metric or selection[0], selection),  # type: ignore[arg-type]
        confidence=definition.confidence_of(confidence),
        paired=not unpaired,
        matters=definition.matters_of(matters),
        until_decided=until == "decided",
        budget=None if budget is None else definition.seconds_of(budget),
        note=note,
        edits=tuple(edits),
        also=definition.also_of(also, metric or selection[0]),
    )
    if there is not None:
        study = definition.require_same(definition.read(there / definition.FILE, study.baseline), study, there)
        return resumed(study, there, workers)
    study, each = estimate.settled(study, workers, metric, mode)
    return Planned(study, estimate.plan(study, each, {}, workers), None)


def repeat(study: Definition, *, out: str | Path | None, resume: bool, workers: int) -> Planned:
    """The study of a study.toml, again in a new folder, or gone on with."""
    there = going_on(None if out is None else Path(out), resume)
    if there is not None:
        return resumed(definition.require_same(definition.read(there / definition.FILE), study, there), there, workers)
    study, each = estimate.settled(study, workers, study.metric, study.mode)
    return Planned(study, estimate.plan(study, each, {}, workers), None)


def resumed(study: Definition, there: Path, workers: int) -> Planned:
    results = read_results(study, there)
    known = {name for runs in results.values() for run in runs for name in run.metrics}
    for name in study.also if known else ():
        estimate.require_metric(name, known, "--also")
    each = {} if any(results.values()) else estimate.settled(study, workers, study.metric, study.mode)[1]
    return Planned(study, estimate.plan(study, each, results, workers), there)


def going_on(place: Path | None, resume: bool) -> Path | None:
    """The study folder to go on with. Raises UserError for one that exists and is not to be gone on with, or is no study."""
    if place is None:
        if resume:
            raise UserError("--resume: --out DIR names the study to go on with")
        return None
    if not place.exists():
        return None
    if not resume:
        raise UserError(f"--out {place}: it exists already; choose another folder, or go on with that study by --resume")
    if not (place / definition.FILE).is_file():
        raise UserError(f"{place}: no study to go on with, {definition.FILE} is missing; choose another folder")
    return place


def without_console(experiment: Experiment) -> Experiment:
    """The lines of many runs at a time are nobody's reading; their logs stay."""
    trackers = tuple(tracker for tracker in experiment.run.trackers if not isinstance(tracker, Console))
    return replace(experiment, run=replace(experiment.run, trackers=trackers))


def tell(line: str) -> None:
    print(" ".join(clean(line).split()), file=sys.stderr, flush=True)


# --- the runs --------------------------------------------------------------------------------------------------------------


def perform(
    planned: Planned,
    *,
    out: str | Path | None = None,
    workers: int = 1,
    on: fleet.On = "processes",
    report: Callable[[Path], object] | None = None,
    started: float | None = None,
) -> Compared:
    """Trains what is left of the study and writes results.json and costs.json; `report`, if given, draws its page."""
    started = time.perf_counter() if started is None else started
    study, text = planned.study, definition.to_text(planned.study)
    crew = fleet.crew(workers, on, warm=planned.plan.finished == 0)  # else nothing has been tried in this process
    if planned.there is None:
        default = estimate.folder_of(planned.name or study.recipe)
        where = run_folder.create(None if out is None else Path(out), default, {definition.FILE: text}, checkpoints=False)
    else:
        where = planned.there
    where = where.absolute()
    with Lock(where):
        files.remove_partial(where)
        if planned.there is not None:
            files.write_text(where / definition.FILE, text)  # seeds, budget and until may have changed
        work = Work(study, where, workers, started)
        try:
            with crew:
                work.train(crew)
        except Interrupted as error:
            work.write()
            raise Interrupted(error.signal, f"interrupted; {how_to_go_on(study, where)} goes on from there") from None
        results, measured = work.write()
        if report is not None:
            report(where)
    return Compared(where, results, measured)


def how_to_go_on(study: Definition, where: Path) -> str:
    here = Path.cwd()
    short = where.relative_to(here) if where.is_relative_to(here) else where
    if own_parts(tree.encode(study.baseline)):  # no file can build them, so no command line can
        return f"the same call with out={str(short)!r}, resume=True"
    return f"torchstone compare {short / definition.FILE} --out {short} --resume"


class Work:
    """One sitting of a study: what has failed in it, when it must end, when results were last written."""

    def __init__(self, study: Definition, folder: Path, workers: int, started: float) -> None:
        self.study, self.folder, self.workers, self.started = study, folder, workers, started
        self.failed: set[str] = set()
        self.ended = ""
        self.ran = 0
        self.written = time.perf_counter()
        self.trained = 0.0
        """Seconds of the trainings of this sitting, added over the workers."""
        self.before = earlier(folder)
        self.left = len(study.seeds) * len(study.variants) - sum(map(len, read_results(study, folder).values()))

    def train(self, crew: fleet.Crew) -> None:
        """Every run that is wanted, seed by seed. Under the sequential rule the runs of a look are over before the next one is chosen, so
        that what it decides does not depend on how many workers there are."""
        while wanted := self.wanted():
            for outcome in crew.train(self.units(wanted)):
                self.note(outcome)
            if self.ended:
                return
        self.ended = ENDED

    def wanted(self) -> list[tuple[str, int]]:
        return next_runs(self.study, read_results(self.study, self.folder, self.failed), self.folder)

    def units(self, wanted: Sequence[tuple[str, int]]) -> Iterator[Unit]:
        """The runs to make, as there is somebody for them; none once the budget is spent."""
        numbers = {variant.name: number for number, variant in enumerate(self.study.variants)}
        for variant, seed in wanted:
            if self.study.budget is not None and time.perf_counter() - self.started > self.study.budget:
                self.ended = f"the budget of {estimate.duration(self.study.budget)} is spent"
                return
            number = numbers[variant]
            name = run_name(self.study, number, self.study.variants[number], seed)
            edits = (*self.study.variants[number].edits, f"run.seed={self.study.seed_of(number, seed)}")
            yield Unit(name=name, experiment=self.study.baseline, edits=edits, folder=self.folder / name, recipe=self.study.recipe)

    def note(self, outcome: Outcome) -> None:
        """One line about a run that ended; the results, if it has been long since they were written."""
        self.ran += 1
        self.trained += outcome.seconds
        name = outcome.unit.name
        if outcome.status == "failed":
            self.failed.add(name)
        for warning in outcome.warnings:
            tell(f"warning: {name}: {warning}")
        said = outcome.status if outcome.status in ("diverged", "failed") else self.value_text(name)
        problem = f": {outcome.problem}" if outcome.problem else ""
        tell(f"{self.ran}/{self.left} {name} {said} in {outcome.seconds:.1f} s{problem}")
        if time.perf_counter() - self.written > WRITE_EVERY:
            self.write()

    def value_text(self, name: str) -> str:
        value = numbers(run_folder.read_json(self.folder / name / layout.METRICS)).get(self.study.metric)
        return f"{self.study.metric} {value:.4g}" if isinstance(value, int | float) else "done"

    def write(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """results.json and costs.json, from the runs on disk."""
        results = read_results(self.study, self.folder, self.failed)
        made = document(self.study, results, self.folder, self.ended or "not all runs are over")
        now = time.perf_counter() - self.started
        sitting = {"seconds": now, "worker_seconds": now * self.workers, "training_seconds": self.trained, "runs": self.ran}
        whole: dict[str, Any] = {name: round(self.before[name] + value, 3) for name, value in sitting.items()}
        whole["overhead"] = round(1 - whole["training_seconds"] / whole["worker_seconds"], 4) if whole["training_seconds"] else None
        whole["workers"] = self.workers
        measured = costs(self.study, results, whole)
        files.write_text(self.folder / layout.RESULTS, to_json(made, indent=2) + "\n")
        files.write_text(self.folder / COSTS, to_json(measured, indent=2) + "\n")
        self.written = time.perf_counter()
        return made, measured


def earlier(folder: Path) -> dict[str, float]:
    """What the sittings before this one took in all, as they wrote it down; what was killed lost at most a minute of it."""
    names = ("seconds", "worker_seconds", "training_seconds", "runs")
    try:
        written = run_folder.read_json(folder / COSTS).get("study", {}) if (folder / COSTS).is_file() else {}
    except UserError as error:
        warn(f"{error}; the times of earlier sittings are lost")
        written = {}
    return {name: written[name] if isinstance(written.get(name), int | float) else 0 for name in names}
