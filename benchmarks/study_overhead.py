"""What a study costs beside its trainings, and what a second worker brings.

    python benchmarks/study_overhead.py [SEEDS]

`torchstone.compare` of `digits` with and without its average, SEEDS seeds (5). Overhead: the processor's time of the study outside its
trainings (a training: from opening the data to metrics.json) over all of it, loading of code apart, which every process pays; the page
at the end is counted. Two workers: seconds from the first run's beginning to the last one's end, by one worker and by two, the children
already started; each run has one thread. On a machine that does other work too the second worker finds no free core: `load` says.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

VARY = ["method.averaging=none,ema"]
FIXED = ("run.threads=1", "run.device=cpu")


def study(folder: Path, seeds: int) -> dict[str, float]:
    """Processor seconds of a study by one worker: all of it, its trainings, and what else there is."""
    from torchstone import recipes
    from torchstone.cli import compare as verb
    from torchstone.fleet import here
    from torchstone.study import compare, estimate

    spent = {"training": 0.0, "trial": 0.0, "page": 0.0}

    def timed(name: str, work: Any) -> Any:
        def run(*arguments: Any, **words: Any) -> Any:
            started = time.process_time()
            try:
                return work(*arguments, **words)
            finally:
                spent[name] += time.process_time() - started

        return run

    verb.compare_with_report(recipes.digits_mini(), "run.epochs=1", *FIXED, vary=VARY, seeds=2, out=folder / "warm")  # loads all code
    here.train_unit, estimate.settled, verb.draw = (
        timed("training", here.train_unit),
        timed("trial", estimate.settled),
        timed("page", verb.draw),
    )
    compare.estimate.settled = estimate.settled
    started = time.process_time()
    made = verb.compare_with_report(recipes.digits(), *FIXED, vary=VARY, seeds=seeds, out=folder / "study")
    whole = time.process_time() - started
    assert all(variant["n"] == seeds for variant in made.results["variants"])
    return {"whole": whole, **spent}


def workers(folder: Path, seeds: int, count: int) -> float:
    """Seconds of as many runs, after one that starts each child."""
    from dataclasses import replace

    from torchstone import fleet, recipes
    from torchstone.fleet import Unit

    def units(name: str, many: int, *edits: str) -> list[Unit]:
        base = recipes.digits() if name == "run" else recipes.digits_mini()
        kept = replace(base, run=replace(base.run, trackers=()))
        return [
            Unit(name=f"{name}{n}", experiment=kept, edits=(*FIXED, *edits, f"run.seed={n}"), folder=folder / f"{name}{n}")
            for n in range(many)
        ]

    with fleet.Processes(count) as crew:
        list(crew.train(units("warm", 2 * count, "run.epochs=1")))
        started = time.perf_counter()
        outcomes = list(crew.train(units("run", 2 * seeds)))
        seconds = time.perf_counter() - started
    assert {outcome.status for outcome in outcomes} == {"done"}
    return seconds


def main(seeds: int) -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        folder = Path(name)
        spent = study(folder, seeds)
        seconds = {count: workers(folder / str(count), seeds, count) for count in (1, 2)}
    machine.write(
        "study_overhead",
        {
            "what": f"a study of digits, 2 variants x {seeds} seeds: processor seconds; and seconds of its runs by one worker and by two",
            "machine": machine.facts() | {"load_before": round(load, 2)},
            "seeds": seeds,
            "processor_seconds": {name: round(value, 2) for name, value in spent.items()},
            "overhead": round(1 - spent["training"] / spent["whole"], 4),
            "seconds_by_workers": {str(count): round(value, 1) for count, value in seconds.items()},
            "two_workers_speedup": round(seconds[1] / seconds[2], 2),
        },
    )
    print(json.dumps(spent), file=sys.stderr)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
