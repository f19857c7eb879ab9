"""What the variants cost: time, memory, speed of their runs, each with an interval, and with the difference to the baseline's.

`cost.seconds` of a run is its training and its evaluations, over all resumptions; what a killed run had done since its checkpoint is done
again and counted once. The first training of a process pays for loading code: the fleet makes a few steps that nobody counts before
it. Runs go seed by seed over all variants, so that a machine that slows down slows all of them, and differences are taken pair by pair;
runs that share the machine (`--workers`) slow each other.
"""

from collections.abc import Sequence
from typing import Any

from torchstone.study.definition import Definition
from torchstone.study.design import BASELINE
from torchstone.study.reading import COSTS, Results, RunResult
from torchstone.study.statistics import Spread, spread


def costs(study: Definition, results: Results, whole: dict[str, Any]) -> dict[str, Any]:
    """The document of costs.json; `whole`: of the study itself."""
    baseline = {run.pair: run for run in results.get(BASELINE, ())}
    return {
        "variants": {name: _variant(runs, baseline, study.confidence, name == BASELINE) for name, runs in results.items()},
        "runs": {run.name: {name: run.cost.get(name) for name in COSTS} for runs in results.values() for run in runs if run.cost},
        "study": whole,
    }


def _variant(runs: Sequence[RunResult], baseline: dict[int, RunResult], confidence: float, is_baseline: bool) -> dict[str, Any]:
    found = {}
    for name in COSTS:
        values = {run.pair: run.cost[name] for run in runs if run.status != "diverged" and run.cost.get(name) is not None}
        entry: dict[str, Any] = _entry(spread(list(values.values()), confidence))
        if not is_baseline:
            theirs = {pair: run.cost[name] for pair, run in baseline.items() if run.status != "diverged" and run.cost.get(name) is not None}
            both = [value - theirs[pair] for pair, value in values.items() if pair in theirs]
            entry["difference"] = _entry(spread(both, confidence))
        found[name] = entry
    return found


def _entry(found: Spread) -> dict[str, Any]:
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}


def joined(results: dict[str, Any], costs: dict[str, Any]) -> dict[str, Any]:
    """results.json's document with each variant's cost beside its effect: what `--json` prints."""
    variants = [each | {"cost": costs["variants"].get(each["name"], {})} for each in results["variants"]]
    return results | {"variants": variants, "cost": costs["study"]}
