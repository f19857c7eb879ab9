"""Before anything is spent: how many runs, how long, and the smallest effect that these seeds can show.

Each variant is tried for two steps on copies that are thrown away; what is wrong with one is found here, not an hour from now.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchstone.core.errors import UserError
from torchstone.core.layout import TRAINING
from torchstone.core.parts import hint
from torchstone.experiment.trying import Tried, try_out
from torchstone.study import statistics
from torchstone.study.definition import Definition, mode_of
from torchstone.study.design import BASELINE
from torchstone.study.reading import Results
from torchstone.study.results import values_of

FIXED = ("device", "threads", "precision", "memory_format", "compile", "speed")
"""Run settings that depend on the machine: found once, for the baseline, and the same for every variant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is about to be spent."""

    runs: int
    finished: int
    seconds: float
    """Of all runs that are left, on the workers asked for."""
    each: dict[str, float]
    """Seconds of a run of each variant."""
    deviations: float | None
    """The smallest effect these seeds show four times in five, in standard deviations of a paired difference."""
    corrected: float | None
    """The same where it is the least of all variants, after the correction for many comparisons."""
    smallest: dict[str, float]
    """The same in the metric's units, where finished runs say how much it varies."""


def settled(study: Definition, workers: int, metric: str | None, mode: str | None) -> tuple[Definition, dict[str, float]]:
    """The study with what its machine and data decide written in, and the seconds of a run of each variant by a short trial.

    Raises UserError for a metric that the task has not, and for a variant that cannot be trained.
    """
    base = try_out(study.baseline, "run.seed=0")
    study = replace(study, baseline=with_machine(study, base, workers))
    selection = study.baseline.task.selection
    chosen = metric or selection[0]
    for word, name in (("--metric", chosen), *(("--also", name) for name in study.also)):
        require_metric(name, names_of(base), word)
    study = replace(study, metric=chosen, mode=mode or mode_of(chosen, selection))
    each = {BASELINE: base.seconds}
    for variant in study.variants[1:]:
        try:
            tried = try_out(study.baseline, *variant.edits, f"run.seed={study.seeds[0]}", steps=2)
        except UserError as error:
            raise UserError(f"the variant {variant.name}: {error}") from None
        if chosen not in (known := names_of(tried)):
            raise UserError(f"the variant {variant.name} has no metric {chosen}{hint(chosen, known)}")
        each[variant.name] = tried.seconds
    return study, each


def names_of(tried: Tried) -> tuple[str, ...]:
    """The metrics that runs of it will have."""
    training = tried.prepared.experiment.run.evaluate_training
    return (*tried.metrics, *(TRAINING + name for name in tried.metrics if training))


def require_metric(name: str, known: Collection[str], word: str) -> None:
    """Raises UserError for a metric that the runs have not. `word`: where it was asked for."""
    if name in known:
        return
    if name.removeprefix(TRAINING) in known:
        raise UserError(f"{word} {name}: nothing is measured on the training split; the edit run.evaluate_training=true does it")
    raise UserError(f"{word} {name}: the task has no such metric{hint(name, known)}")


def with_machine(study: Definition, tried: Tried, workers: int) -> Any:
    """The baseline with the run settings that preparing it found; the cores are shared out to the workers where the recipe names no
    number of threads."""
    found = tried.prepared.experiment.run
    changes = {
        name: getattr(found, name) for name in FIXED if getattr(study.baseline.run, name) in (None, "auto") or found.speed == "measured"
    }
    if study.baseline.run.threads is None:
        changes["threads"] = max(1, min(found.threads or 1, (os.cpu_count() or 1) // workers))
    return replace(study.baseline, run=replace(study.baseline.run, **changes))


def plan(study: Definition, each: dict[str, float], results: Results, workers: int) -> Plan:
    """What is left to do, and what it can show. Finished runs, where there are some, say how long a run takes."""
    each = dict(each)
    for name, runs in results.items():
        took = [run.cost["seconds"] for run in runs if run.cost.get("seconds") and run.status != "diverged"]
        if took:
            each[name] = sum(took) / len(took)
    left = {variant.name: len(study.seeds) - len(results.get(variant.name, ())) for variant in study.variants}
    usual = sum(each.values()) / len(each) if each else 0.0
    seconds = sum(count * each.get(name, usual) for name, count in left.items())
    others = len(study.variants) - 1
    n = len(study.seeds)
    strict = 1 - (1 - study.confidence) / max(others, 1)
    smallest = {}
    for variant in study.variants[1:]:
        both = values_of(study, results.get(BASELINE, ())), values_of(study, results.get(variant.name, ()))
        effect = (statistics.paired if study.paired else statistics.unpaired)(*both, study.confidence, mode=study.mode, resamples=0)
        if effect.std:
            smallest[variant.name] = statistics.smallest_effect(effect.std, n, study.confidence) or 0.0
    return Plan(
        runs=n * len(study.variants),
        finished=sum(map(len, results.values())),
        seconds=seconds / min(workers, max(sum(left.values()), 1)),
        each=each,
        deviations=statistics.smallest_effect(1.0, n, study.confidence),
        corrected=statistics.smallest_effect(1.0, n, strict),
        smallest=smallest,
    )


def lines(study: Definition, plan: Plan) -> list[str]:
    """The plan in words, a line each."""
    names = ", ".join(f"{factor.written or factor.path}={factor.baseline}" for factor in study.factors)
    start = "the recipe" if not study.edits else f"{study.recipe} {' '.join(study.edits)}"
    found = [
        f"study: {len(study.variants)} variants x {len(study.seeds)} seeds = {plan.runs} runs"
        + (f", {plan.finished} of them finished" if plan.finished else ""),
        f"baseline: {start} with {names}",
        f"time: about {duration(plan.seconds)} for {plan.runs - plan.finished} runs, by a short trial of each variant"
        + (" and the finished runs" if plan.finished else ""),
    ]
    if plan.deviations is None:
        found.append("smallest effect: one seed says nothing of chance, so no verdict will be given; --seeds 5 gives one")
    elif plan.smallest:
        worst = max(plan.smallest.items(), key=lambda item: item[1])
        found.append(
            f"smallest effect: {len(study.seeds)} seeds show a difference in {study.metric} of {worst[1]:.3g} four times in five "
            f"({worst[0]}, which varies most)"
        )
    else:
        corrected = (
            f", {plan.corrected:.1f} of the least of {len(study.variants) - 1}" if len(study.variants) > 2 and plan.corrected else ""
        )
        found.append(
            f"smallest effect: {len(study.seeds)} seeds show a difference of {plan.deviations:.1f} standard deviations four times in five"
            f"{corrected} (deviations of the difference at one seed, which the first runs will tell)"
        )
    return found


def document(study: Definition, plan: Plan) -> dict[str, Any]:
    """The plan as `--dry-run --json` prints it."""
    return {
        "recipe": study.recipe,
        "metric": study.metric,
        "mode": study.mode,
        "also": list(study.also),
        "design": study.design,
        "seeds": list(study.seeds),
        "factors": [{"path": factor.path, "values": list(factor.values), "baseline": factor.baseline} for factor in study.factors],
        "variants": [
            {"name": variant.name, "edits": list(variant.edits), "estimated_seconds": plan.each.get(variant.name)}
            for variant in study.variants
        ],
        "runs": plan.runs,
        "finished": plan.finished,
        "estimated_seconds": plan.seconds,
        "smallest_effect_deviations": plan.deviations,
        "smallest_effect": plan.smallest,
        "threads": study.baseline.run.threads,
    }


def duration(seconds: float) -> str:
    """As a person says it.

    >>> duration(12.34), duration(600), duration(9000)
    ('12 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def folder_of(recipe: str) -> Path:
    """Where a study is kept unless --out says where."""
    return Path("studies") / (recipe or "python")
