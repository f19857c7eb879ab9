"""results.json: what a study found. A function of its definition and its finished runs alone, to the last byte.

Times and memory are in costs.json (`costs`): they differ from one machine, and from one hour, to the next.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchstone.core.layout import TRAINING
from torchstone.study import sequential, statistics
from torchstone.study.definition import Definition, seeds_text
from torchstone.study.design import BASELINE, Variant
from torchstone.study.interactions import interactions
from torchstone.study.reading import Results, RunResult, classes_of, identical
from torchstone.study.statistics import Spread, Values
from torchstone.study.verdicts import Comparison, compared


def document(study: Definition, results: Results, folder: Path, ended: str = "") -> dict[str, Any]:
    """The document. `ended`: why no more runs are made."""
    found = comparisons(study, results, folder)
    looked = None
    if study.until_decided:
        looked = plan_of(study).document(found, {name: len(runs) for name, runs in results.items()})
    decided = (looked or {}).get("decided_after", {})
    variants = []
    for variant in study.variants:
        runs = results[variant.name]
        values = [value for run in runs if (value := run.value(study.metric)) is not None]
        of_all = statistics.spread(values, study.confidence)
        entry = effect_document(study, found[variant.name], runs) if variant.name in found else None
        beside = {name: also_document(study, name, results, variant) for name in study.also}
        variants.append(_variant(study, variant, runs, of_all, decided) | {"effect": entry} | ({"also": beside} if study.also else {}))
    return {
        "kind": "study",
        "version": 1,
        "recipe": study.recipe,
        "metric": study.metric,
        "mode": study.mode,
        **({"also": list(study.also)} if study.also else {}),
        "split": "training" if study.metric.startswith(TRAINING) else "validation",
        "design": study.design,
        "confidence": study.confidence,
        "paired": study.paired,
        "seeds": list(study.seeds),
        "baseline": BASELINE,
        "edits": list(study.edits),
        "note": study.note,
        "factors": [{"path": factor.path, "values": list(factor.values), "baseline": factor.baseline} for factor in study.factors],
        "variants": variants,
        "interactions": interactions_of(study, results) if study.design == "grid" else [],
        "sequential": looked,
        "ended": ended,
        "classes": classes_of(study, results, folder),
        "warnings": warnings_of(study, results, found),
    }


def comparisons(study: Definition, results: Results, folder: Path) -> dict[str, Comparison]:
    """Every variant judged against the baseline."""
    baseline, variants = sides(study, results)
    inert = inert_ones(study, results, folder)
    if study.until_decided:
        return plan_of(study).compared(baseline, variants, inert=inert, failed=failures(results))
    return compared(
        baseline,
        variants,
        mode=study.mode,
        confidence=study.confidence,
        paired=study.paired,
        matters=study.matters,
        inert=inert,
    )


def next_runs(study: Definition, results: Results, folder: Path) -> list[tuple[str, int]]:
    """(variant, seed) of the runs that are wanted next: of all that are missing, or for the next look of the sequential rule."""
    if study.until_decided:
        baseline, variants = sides(study, results)
        return plan_of(study).next_seeds(baseline, variants, inert=inert_ones(study, results, folder), failed=failures(results))
    there = {(name, run.pair) for name, runs in results.items() for run in runs}
    wanted = ((each.name, seed) for number, seed in enumerate(study.seeds) for each in rotated(study.variants, number))
    return [pair for pair in wanted if pair not in there]


def rotated(variants: Sequence[Variant], number: int) -> list[Variant]:
    """The variants in another order for each seed, each of them first in turn: what creeps up during a study is nobody's cost."""
    first = number % len(variants)
    return [*variants[first:], *variants[:first]]


def plan_of(study: Definition) -> sequential.Plan:
    return sequential.Plan(seeds=study.seeds, mode=study.mode, confidence=study.confidence, matters=study.matters, baseline=BASELINE)


def sides(study: Definition, results: Results) -> tuple[Values, dict[str, Values]]:
    """Of the baseline, and of each variant."""
    return values_of(study, results[BASELINE]), {each.name: values_of(study, results[each.name]) for each in study.variants[1:]}


def failures(results: Results) -> dict[str, list[int]]:
    """The seeds of each variant whose run failed for another reason than its numbers."""
    return {name: [run.pair for run in runs if run.status == "failed"] for name, runs in results.items()}


def inert_ones(study: Definition, results: Results, folder: Path) -> set[str]:
    return {each.name for each in study.variants[1:] if is_inert(study, folder, results[BASELINE], results[each.name])}


def values_of(study: Definition, runs: Sequence[RunResult], metric: str = "") -> Values:
    """By the study's seed, which pairs; None where the run diverged. What failed for another reason is no outcome."""
    return {run.pair: run.value(metric or study.metric) for run in runs if run.status != "failed"}


def is_inert(study: Definition, folder: Path, baseline: Sequence[RunResult], runs: Sequence[RunResult]) -> bool:
    """Whether every pair of runs is bit-identical; unpaired runs never are, so nothing is said of them."""
    theirs = {run.pair: run for run in baseline if run.value(study.metric) is not None}
    pairs = [(theirs[run.pair], run) for run in runs if run.pair in theirs]
    return study.paired and bool(pairs) and all(identical(folder, one, other) for one, other in pairs)


def _variant(study: Definition, variant: Variant, runs: Sequence[RunResult], found: Spread, decided: Mapping[str, Any]) -> dict[str, Any]:
    sizes = [run.cost for run in runs if run.cost]
    return {
        "name": variant.name,
        "edits": list(variant.edits),
        "factors": {factor.path: value for factor, value in zip(study.factors, variant.levels, strict=True)},
        "status": status_of(study, runs, variant.name in decided),
        "runs": [_run(study, run) for run in runs],
        "mean": found.mean,
        "std": found.std,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "macs": sizes[0].get("macs") if sizes else None,
        "parameters": sizes[0].get("parameters") if sizes else None,
    }


def status_of(study: Definition, runs: Sequence[RunResult], decided: bool) -> str:
    """diverged or failed where a run did, partial where one is missing, decided where the rest was not needed, else done."""
    statuses = {run.status for run in runs}
    for status in ("diverged", "failed"):
        if status in statuses:
            return status
    return "done" if len(runs) == len(study.seeds) else "decided" if decided else "partial"


def _run(study: Definition, run: RunResult) -> dict[str, Any]:
    found: dict[str, Any] = {
        "seed": run.seed,
        "run": run.name,
        "status": run.status,
        "value": run.value(study.metric),
        "metrics": dict(run.metrics),
    }
    return found | ({"per_class": {"recall": list(run.recall)}} if run.recall else {})


def effect_document(study: Definition, found: Comparison, runs: Sequence[RunResult]) -> dict[str, Any]:
    """In the metric's own units: variant minus baseline, so negative is better where small is good."""
    document = found.document()
    document["mean"] = document.pop("difference")
    if study.mode == "min":
        turn(document, ("low", "high"), ("bootstrap_low", "bootstrap_high"))
    return document | {"failed": sum(run.status == "failed" for run in runs)}


def also_document(study: Definition, metric: str, results: Results, variant: Variant) -> dict[str, Any]:
    """What is told of a metric that does not decide: the mean with its interval, and the difference to the baseline with its own, in the
    metric's units and uncorrected."""
    values = values_of(study, results[variant.name], metric)
    found = statistics.spread([value for value in values.values() if value is not None], study.confidence)
    document: dict[str, Any] = {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}
    if variant.name == BASELINE:
        return document | {"difference": None, "difference_low": None, "difference_high": None}
    difference = statistics.paired if study.paired else statistics.unpaired
    effect = difference(values_of(study, results[BASELINE], metric), values, study.confidence, resamples=0)
    return document | {"difference": effect.difference, "difference_low": effect.low, "difference_high": effect.high}


def interactions_of(study: Definition, results: Results) -> list[dict[str, Any]]:
    """Of every pair of factors in a grid, in the metric's own units."""
    cells = {variant.levels: values_of(study, results[variant.name]) for variant in study.variants}
    levels = {each.path: (each.baseline, *(value for value in each.values if value != each.baseline)) for each in study.factors}
    found = interactions(cells, levels, mode=study.mode, confidence=study.confidence, paired=study.paired)
    documents = [each.document() for each in found]
    if study.mode == "min":
        for document in documents:
            document["mean"] = None if document["mean"] is None else -document["mean"]
            turn(document, ("low", "high"))
    return documents


def turn(document: dict[str, Any], *pairs: tuple[str, str]) -> None:
    """The ends of intervals with the other sign."""
    for low, high in pairs:
        ends = document[low], document[high]
        document[low], document[high] = (None if end is None else -end for end in reversed(ends))


def warnings_of(study: Definition, results: Results, found: Mapping[str, Comparison]) -> list[str]:
    """What a reader of the numbers must know."""
    said = []
    if len(study.seeds) < 2:
        said.append("one seed: no spread, so every verdict is withheld; --seeds 5 gives one")
    if study.metric == "loss" and any(factor.path.startswith("method.loss") for factor in study.factors):
        said.append("the metric is the loss and the loss is varied: its values are not on one scale; compare by another metric")
    for name, runs in results.items():
        for status in ("diverged", "failed"):
            if seeds := [run.seed for run in runs if run.status == status]:
                said.append(f"{name} {status} at seeds {seeds_text(seeds)}")
    constant = [name for name, each in found.items() if each.effect.std == 0 and each.effect.n > 1 and each.effect.mean]
    return said + [f"{name}: the difference is the same in every seed, so there is no t interval" for name in constant]
