"""A study as one self-contained page: what each switch is worth, how sure that is, what it costs, and how it was found out."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from torchstone.core.errors import clean
from torchstone.report.bands import bands
from torchstone.report.experiment import Builder, Tree
from torchstone.report.facts import short
from torchstone.report.findings import SEVERITIES, read_findings
from torchstone.report.forest import Unit, clause, effects_forest, kind_of, listed, t_of, troubles, unit_for, unit_of, verdict
from torchstone.report.headline import SHARES, Figure, title_of
from torchstone.report.levels import panels
from torchstone.report.numbers import NONE, TIMES, count, duration, number, percent, plural
from torchstone.report.per_class import class_forests
from torchstone.report.reading import table
from torchstone.report.rendering import rendered
from torchstone.report.study_reading import FINISHED, STUDY, Interaction, Study, Variant, is_study, read_study
from torchstone.report.study_svg import panel_svg
from torchstone.report.tradeoff import cost_rows, scatter

MOST_CLAUSES, MOST_EXAMINED, MOST_VALUES = 3, 400, 60
DESIGNS = {
    "one": "one factor at a time from the baseline",
    "grid": "every combination of the factors",
    "without": "all on, each off in turn",
}

__all__ = ["is_study", "page"]


def page(folder: Path) -> str:
    """The report of a study folder as HTML: one file, no script, nothing fetched.

    What is missing is left out, what cannot be read is said on the page. Raises UserError for a folder that is no study.
    """
    study = read_study(folder)
    unit = unit_of(study)
    charts, unread = bands(study)
    sections = {
        "forest": effects_forest(study, unit),
        "panels": [Markup(clean(panel_svg(panel, title_of(study.metric), study.metric in SHARES))) for panel in panels(study)],
        "numbers": [numbers_row(each, unit, study.matters) for each in study.all],
        "also": also(study),
        "scatter": scatter(study, unit),
        "costs": cost_rows(study, unit),
        "charts": charts,
        "classes": class_forests(study),
        "interactions": [interaction_row(each, unit) for each in study.interactions],
        "findings": gathered(study),
        "runs": [values_row(each, unit) for each in study.all if each.runs],
        "how": how(study),
        "tree": tree(study),
        "commands": commands(study),
    }
    problems = [*study.problems, *unread[:8], *([f"… and {len(unread) - 8} more logs"] if len(unread) > 8 else [])]
    head = Head(
        title=title(study),
        status=status(study),
        question=question(study),
        claim=study.note,
        answer=answer(study, unit),
        notes=notes(study),
        figures=figures(study),
        costs=costs(study),
        confidence=percent(study.confidence, 0),
        metric=title_of(study.metric),
        unit=unit.word,
        smaller=study.smaller,
    )
    return rendered("study.html", head=head, problems=problems, contents=contents(sections), **sections)


@dataclass(frozen=True, slots=True)
class Head:
    title: str
    status: str
    question: str
    claim: str
    """What somebody says, which the study measures."""
    answer: str
    """One sentence."""
    notes: tuple[str, ...]
    """What must not be overlooked: inert, diverged, failed."""
    figures: tuple[Figure, ...]
    costs: tuple[Figure, ...]
    confidence: str
    metric: str
    unit: str
    smaller: bool


def contents(sections: dict[str, Any]) -> list[tuple[str, str]]:
    """(anchor, name) of each section that is there, in order."""
    found = (
        ("effects", "Effects", sections["forest"] or sections["numbers"]),
        ("means", "Means", sections["panels"]),
        ("interactions", "Interactions", sections["interactions"]),
        ("also", "Also measured", sections["also"]),
        ("cost", "Cost", sections["costs"]),
        ("curves", "Curves", sections["charts"]),
        ("classes", "Classes", sections["classes"]),
        ("findings", "Findings", sections["findings"] is not None),
        ("runs", "Runs", sections["runs"]),
        ("how", "How", sections["how"]),
        ("baseline", "Baseline", sections["tree"]),
        ("use", "Go on", sections["commands"]),
    )
    return [(anchor, name) for anchor, name, there in found if there]


# --- the first screen ------------------------------------------------------------------------------------------------


def title(study: Study) -> str:
    return study.folder.absolute().name


def status(study: Study) -> str:
    if not study.all:
        return "no results yet"
    runs = [run for each in study.all for run in each.runs]
    wanted = len(study.all) * len(study.seeds)
    return "finished" if len(runs) >= wanted else f"{count(len(runs))} of {count(wanted)} runs"


def question(study: Study) -> str:
    """ "3 variants of digits-mini against their baseline by accuracy on the validation split, on 5 paired seeds." """
    seeds = f"{plural(len(study.seeds), 'paired seed' if study.paired else 'seed')}"
    what = plural(len(study.variants), "variant") if study.variants else plural(len(study.factors), "factor")
    better = ", smaller is better" if study.smaller else ""
    measured = f"{title_of(study.metric)} on the {study.split} split{better}"
    return f"{what} of {study.recipe or 'an experiment'} against the baseline by {measured}, on {seeds}."


def answer(study: Study, unit: Unit) -> str:
    """The largest decided effects first; what is not named is counted. Of a large grid, its best variant."""
    if not study.variants:
        return "There are no results yet."
    if study.design == "grid" and len(study.variants) > MOST_CLAUSES and study.baseline and study.baseline.mean is not None:
        return best_of_grid(study, study.baseline, unit)
    order = {"helps": 0, "hurts": 1, "none": 2, "undecided": 3, "inert": 4, "withheld": 5}
    ranked = sorted(study.variants, key=lambda each: (order[kind_of(each)], -abs(t.mean) if (t := t_of(each)) else 0.0))
    said = "; ".join(clause(each, unit, study.matters) for each in ranked[:MOST_CLAUSES])
    more = len(ranked) - MOST_CLAUSES
    # It begins with a variant's name, which is written as it is.
    return said + (f"; {plural(more, 'more variant')} below." if more > 0 else ".")


def best_of_grid(study: Study, baseline: Variant, unit: Unit) -> str:
    """Its cells answer more than one question: which is best, and how many are told from the baseline. The means are drawn below."""
    sign = -1 if study.smaller else 1
    best = max((each for each in study.all if each.mean is not None), key=lambda each: sign * each.mean)  # type: ignore[operator]
    kinds = [kind_of(each) for each in study.variants]
    told = [f"{kinds.count(kind)} {word}" for kind, word in (("helps", "better"), ("hurts", "worse")) if kind in kinds]
    rest = f"of {len(kinds)} variants {' and '.join(told) or 'none is better or worse'} than the baseline for sure"
    if best is baseline:
        return f"The baseline has the best mean, {unit.value(best.mean)}; {rest}."
    return f"{best.name} has the best mean, {unit.value(best.mean)}, where the baseline has {unit.value(baseline.mean)}; {rest}."


def notes(study: Study) -> tuple[str, ...]:
    """What went wrong, what did nothing, and what `compare` warned of, each once."""
    found = [f"{each.name}: {', '.join(said)}." for each in study.all if (said := troubles(each))]
    inert = [each.name for each in study.variants if kind_of(each) == "inert"]
    if inert:
        found.append(
            f"Inert, every number the same as the baseline's to the last bit: {', '.join(inert)}. The switch changed nothing here."
        )
    # Said above, with how many of how many.
    told = tuple(f"{each.name} {run.status} at seeds" for each in study.all for run in each.runs if run.status not in FINISHED)
    warnings = [text for text in study.warnings if not text.startswith(told or ("\0",))]
    if len(study.seeds) == 1 and not any("seed" in text for text in warnings):
        found.append("One seed: without a second there is no interval, and verdicts are withheld.")
    return tuple(dict.fromkeys((*found, *warnings)))[:20]


def figures(study: Study) -> tuple[Figure, ...]:
    runs = [run for each in study.all for run in each.runs]
    lost = [run for run in runs if run.status not in FINISHED]
    base = study.baseline
    unit = unit_of(study)
    found = [
        Figure("variants", count(len(study.variants)), "beside the baseline") if study.variants else None,
        Figure("seeds", count(len(study.seeds)), listed(study.seeds) if study.seeds else "") if study.seeds else None,
        Figure("runs", count(len(runs)), f"{count(len(lost))} without a value" if lost else "all finished") if runs else None,
        Figure("baseline", unit.value(base.mean), f"{title_of(study.metric)}, mean of {plural(base.n or len(base.finished), 'seed')}")
        if base and base.mean is not None
        else None,
    ]
    return tuple(each for each in found if each)


def costs(study: Study) -> tuple[Figure, ...]:
    total, training, overhead = (study.totals.get(name) for name in ("seconds", "training_seconds", "overhead"))
    found = [
        Figure("time of the study", duration(total), "from start to end") if total is not None and total >= 0 else None,
        Figure("training", duration(training), "of all runs") if training is not None and training >= 0 else None,
        Figure("overhead", percent(overhead), "not training") if overhead is not None and 0 <= overhead <= 1 else None,
    ]
    return tuple(each for each in found if each)


# --- tables ----------------------------------------------------------------------------------------------------------


def numbers_row(variant: Variant, unit: Unit, matters: float | None) -> dict[str, str]:
    """Every number of a variant as text."""
    effect, t = variant.effect, t_of(variant)
    boot = effect.bootstrap if effect else None
    return {
        "name": variant.name,
        "edits": " ".join(variant.edits),
        "n": NONE if variant.n is None else str(variant.n),
        "mean": unit.value(variant.mean),
        "spread": spread(variant, unit),
        "pairs": str(effect.n) if effect and effect.n is not None else NONE,
        "change": unit.change(t.mean) if t else NONE,
        "t": unit.ends(t.low, t.high) if t else NONE,
        "bootstrap": unit.ends(*boot) if boot else "",
        "p": probability(effect.p if effect else None),
        "p_holm": probability(effect.p_holm) if effect and effect.p_holm is not None else "",
        "smallest": unit.change(effect.smallest, signed=False) if effect and effect.smallest is not None else NONE,
        "verdict": "baseline" if effect is None and variant.n else verdict(variant, unit, matters),
    }


def spread(variant: Variant, unit: Unit) -> str:
    """The interval of the mean, of a share inside 0 and 1, and the standard deviation over the seeds."""
    if variant.std is None:
        return ""
    low, high = variant.ends or (None, None)
    if low is not None and high is not None and unit.in_points and variant.mean is not None and 0 <= variant.mean <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    ends = f"[{unit.value(low)}, {unit.value(high)}], " if low is not None else ""
    return f"{ends}s.d. {unit.spread(variant.std)}"


def probability(p: float | None) -> str:
    """
    >>> probability(0.0321), probability(0.00002), probability(1.0)
    ('0.032', '< 0.0001', '1')
    """
    return NONE if p is None else "< 0.0001" if p < 1e-4 else number(p, 2)


def also(study: Study) -> list[dict[str, Any]]:
    """A table a metric that does not decide: each variant's mean, and its difference to the baseline, each with its interval."""
    found = []
    for metric in study.also:
        measured = [(each, *each.also.get(metric, (None, None))) for each in study.all]
        if not any(mean for _, mean, _ in measured):
            continue
        unit = unit_for(metric, [change for _, _, change in measured])
        lines = [
            {
                "name": variant.name,
                "n": str(mean.n) if mean and mean.n is not None else NONE,
                "mean": unit.value(mean.mean if mean else None),
                "ends": f"[{unit.value(mean.low)}, {unit.value(mean.high)}]" if mean and mean.low is not None else "",
                "change": unit.change(change.mean) if change else "",
                "change_ends": unit.ends(change.low, change.high) if change else "",
            }
            for variant, mean, change in measured
        ]
        found.append({"metric": title_of(metric), "points": unit.in_points, "rows": lines})
    return found


def interaction_row(found: Interaction, unit: Unit) -> dict[str, str]:
    return {
        "factors": f" {TIMES} ".join(found.factors),
        "levels": f" {TIMES} ".join(found.levels),
        "n": NONE if found.t.n is None else str(found.t.n),
        "change": unit.change(found.t.mean),
        "t": unit.ends(found.t.low, found.t.high),
        "p": probability(found.p),
        "p_holm": probability(found.p_holm),
    }


def values_row(variant: Variant, unit: Unit) -> dict[str, Any]:
    """(seed, its value or how it ended) of every run."""
    pairs = [(run.seed, unit.value(run.value) if run.value is not None else run.status or NONE, run.value is None) for run in variant.runs]
    return {"name": variant.name, "values": pairs[:MOST_VALUES], "left_out": max(0, len(pairs) - MOST_VALUES)}


@dataclass(frozen=True, slots=True)
class Gathered:
    """One check's findings over all runs."""

    name: str
    severity: str
    runs: int
    examined: int
    variants: str
    example: str
    remedy: str


def gathered(study: Study) -> list[Gathered] | None:
    """The doctor's findings by check, the gravest and most frequent first; None where no doctor looked at any run."""
    found: dict[str, list[tuple[Variant, Any]]] = {}
    examined = 0
    folders = [(variant, run.folder) for variant in study.all for run in variant.runs if run.folder is not None]
    for variant, folder in folders[:MOST_EXAMINED]:
        findings = read_findings(folder, draw=False)
        examined += findings.there
        for one in {finding.check: finding for finding in reversed(findings.findings)}.values():
            found.setdefault(one.check, []).append((variant, one))
    if not examined:
        return None
    rows = []
    for pairs in found.values():
        gravest = min((finding for _, finding in pairs), key=lambda finding: SEVERITIES[finding.severity])
        names = list(dict.fromkeys(each.name for each, _ in pairs))
        shown = (
            "every variant"
            if len(names) == len(study.all) > 1
            else ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        )
        rows.append(Gathered(gravest.name, gravest.severity, len(pairs), examined, shown, gravest.summary, gravest.remedy))
    return sorted(rows, key=lambda row: (SEVERITIES[row.severity], -row.runs))


# --- how it was found out --------------------------------------------------------------------------------------------


def how(study: Study) -> list[tuple[str, str]]:
    """(name, value) of what was asked and how it was answered."""
    sure = percent(study.confidence, 0)
    pairing = (
        "paired: the same seed gives every variant the same split, first weights where shapes agree, order and draws"
        if study.paired
        else "unpaired: the variants' seeds are compared as groups"
    )
    found = [
        ("design", DESIGNS.get(study.design, study.design)),
        ("measured", f"{title_of(study.metric)} on the {study.split} split, {'smaller' if study.smaller else 'larger'} is better"),
        ("seeds", f"{listed(study.seeds)} ({count(len(study.seeds))})" if study.seeds else ""),
        ("pairing", pairing),
        ("intervals", f"{sure}; Student's t, and beside it a bootstrap over the seeds"),
        ("p", "two-sided; Holm: corrected for the number of variants"),
        *((f"factor {i}", f"{path} = {', '.join(values)}") for i, (path, values) in enumerate(study.factors, 1)),
        ("in every variant", " ".join(study.edits)),
        ("ended", study.ended),
        *((f"stopping {name}", value) for name, value in study.sequential),
    ]
    return [(name, value) for name, value in found if value]


def tree(study: Study) -> Tree | None:
    """The baseline's experiment."""
    builder = Builder(())
    nodes = builder.children(table(study.plan.get("experiment")), ())
    return Tree(tuple(nodes), (), builder.left < 0) if nodes else None


def commands(study: Study) -> list[tuple[str, str]]:
    """How to repeat the study, to go on with it, and to train its best variant."""
    where = shlex.quote(short(study.folder))
    plan = shlex.quote(short(study.folder / STUDY))
    helped = [(t.mean, each) for each in study.variants if kind_of(each) == "helps" and (t := t_of(each))]
    best = max(helped, key=lambda pair: pair[0])[1] if helped else None
    kept = (
        [("Train the variant that helped most", f"torchstone train {quoted(study.recipe, *best.edits)}")] if best and study.recipe else []
    )
    return [
        ("Repeat the study, in a folder of its own", f"torchstone compare {plan}"),
        ("Go on where it was left; what is finished is not trained again", f"torchstone compare {plan} --out {where} --resume"),
        *more_seeds(study, plan, where),
        *kept,
        ("Make this page again", f"torchstone report {where}"),
    ]


def more_seeds(study: Study, plan: str, where: str) -> list[tuple[str, str]]:
    """Twice as many, where they are numbered from zero: half the width would need four times."""
    if not study.seeds or list(study.seeds) != list(range(len(study.seeds))):
        return []
    return [
        (
            "The same with twice the seeds, for narrower intervals",
            f"torchstone compare {plan} --out {where} --resume --seeds {2 * len(study.seeds)}",
        )
    ]


def quoted(*parts: str) -> str:
    return " ".join(shlex.quote(part) for part in parts)
