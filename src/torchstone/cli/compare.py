"""`torchstone compare`: what a switch is worth on these data, with an interval, beside what it costs."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_json
from torchstone.core.errors import UserError, warn

if TYPE_CHECKING:
    from torchstone.study.compare import Compared, Planned

HELP = "trains a recipe with every value of what is varied, over seeds, and says what each value is worth"
EXAMPLES = """  torchstone compare digits-mini --vary method.averaging=none,ema --vary method.loss.smoothing=0,0.1
  torchstone compare digits run.epochs=6 --vary optimizer=adamw,sgd,muon --seeds 10 --workers 2
  torchstone compare digits --vary model.widths=[16,32],[32,64] --vary averaging=none,ema --grid
  torchstone compare digits --vary loss.smoothing=0,0.1 --vary averaging=none,ema --without    all on, each off in turn
  torchstone compare digits-mini data=label_noise --vary data.share=0,0.1 --until decided --seeds 40
  torchstone compare studies/digits-mini/study.toml                                              the same study again
  torchstone compare studies/digits-mini/study.toml --out studies/digits-mini --resume           goes on with it"""
WORDS = ("metric", "mode", "also", "matters", "confidence", "until", "budget", "seeds")
"""What both the command line and a study's file may say; the command line's counts."""


def add(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe, a .toml experiment, a .toml study, or a study.toml")
    parser.add_argument("edits", metavar="EDIT", nargs="*", default=[], help="path=value, applied to every variant")
    parser.add_argument("--vary", metavar="PATH=A,B[,C]", action="append", default=[], help="a setting and the values it takes; repeat it")
    designs = parser.add_mutually_exclusive_group()
    designs.add_argument("--grid", action="store_true", help="every combination of values (else one factor at a time)")
    designs.add_argument("--without", action="store_true", help="the baseline has the last values; each factor's first value in turn")
    parser.add_argument("--seeds", metavar="N", help="how many (5: 0 to 4, the default), or which: 0,3,7 or 0-9")
    parser.add_argument("--metric", metavar="NAME", help="what decides, on the validation split; else the task's own")
    parser.add_argument("--also", metavar="NAMES", help="metrics told beside it, without a verdict: loss,train_loss")
    parser.add_argument("--mode", choices=("max", "min"), help="whether large or small is good; else known from the metric")
    parser.add_argument(
        "--matters", type=float, metavar="X", help="the smallest difference that matters: less, for sure, is said to be none"
    )
    parser.add_argument("--confidence", type=float, metavar="P", help="of the intervals; 0.95")
    parser.add_argument("--unpaired", action="store_true", help="every variant has seeds of its own (wider intervals; for checking)")
    parser.add_argument("--until", choices=("decided",), metavar="decided", help="stop each variant as soon as its seeds decide")
    parser.add_argument("--budget", metavar="TIME", help="begin no further run after 90s, 30m, 2h")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="trainings at a time, in processes that share the cores; 1")
    parser.add_argument("--on", choices=("processes", "ray"), default="processes", help="where the workers are")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the study folder itself; else a new one under studies/")
    parser.add_argument("--resume", action="store_true", help="go on with the study in --out; what is finished is not trained again")
    parser.add_argument("--dry-run", action="store_true", help="print the runs, their time and what they can show; write nothing")
    add_json(parser, "results.json with the costs (of --dry-run: the plan)")


def run(arguments: argparse.Namespace) -> int:
    from torchstone.study import compare as study
    from torchstone.study import estimate

    started = study.time.perf_counter()
    planned = plan(arguments)
    lines = estimate.lines(planned.study, planned.plan)
    if arguments.dry_run:
        if arguments.json:
            output.say_json(estimate.document(planned.study, planned.plan))
        else:
            for line in lines:
                output.say(line)
        return output.DONE
    for line in lines:
        study.tell(line)
    made = study.perform(planned, out=arguments.out, workers=arguments.workers, on=arguments.on, report=draw, started=started)
    if arguments.json:
        output.say_json(study.joined(made.results, made.costs))
    else:
        for line in summary(made):
            output.say(line)
    return output.WORK_FAILED if nothing_came(made) else output.DONE


def compare_with_report(experiment: Any, *edits: str, **options: Any) -> "Compared":
    """`study.compare.compare`, and at its end the study's page: what `torchstone.compare` is in Python."""
    from torchstone.study.compare import compare

    return compare(experiment, *edits, report=draw, **options)


def draw(folder: Path) -> None:
    """The study's page. A page that cannot be drawn is a warning: the study is whole without it."""
    try:
        from torchstone import report

        report.write(folder)
    except Exception as error:
        warn(f"{folder}: no page was drawn ({type(error).__name__}: {error}); torchstone report {folder} tries again")


def plan(arguments: argparse.Namespace) -> "Planned":
    """The study that the command line asks for, checked."""
    from torchstone.cli.train import find_recipe
    from torchstone.study import compare as study
    from torchstone.study import definition

    path = Path(arguments.recipe)
    written: dict[str, Any] = {}
    edits, vary, name, kept = list(arguments.edits), list(arguments.vary), arguments.recipe, ""
    if path.is_dir() and (path / definition.FILE).is_file():
        raise UserError(f"{path} is a study; {path / definition.FILE} repeats it, with --out {path} --resume it goes on")
    if path.suffix == ".toml" and definition.is_written(path):
        if definition.is_whole(path):
            return again(arguments, path)
        written = definition.read_written(path)
        name, kept = written["recipe"], path.stem
        edits, vary = [*written.get("edits", ()), *edits], [*written["vary"], *vary]
    experiment, found = find_recipe(name)
    said = {key: getattr(arguments, key) for key in WORDS}
    words = {key: written[key] for key in (*WORDS, "note") if key in written}
    words |= {key: value for key, value in said.items() if value is not None}
    planned = study.prepare(
        experiment,
        *edits,
        vary=vary,
        recipe=found,
        design=design_of(arguments) or written.get("design", "one"),
        unpaired=arguments.unpaired or written.get("unpaired", False),
        workers=arguments.workers,
        out=arguments.out,
        resume=arguments.resume,
        **words,
    )
    return replace(planned, name=kept)


def again(arguments: argparse.Namespace, path: Path) -> "Planned":
    """The study of a study.toml: its seeds, budget and rule may be others, what it compares may not."""
    from torchstone.study import compare as study
    from torchstone.study import definition

    fixed = {"--vary": arguments.vary, "an edit": arguments.edits, "--grid": arguments.grid, "--without": arguments.without}
    fixed |= {"--metric": arguments.metric, "--mode": arguments.mode, "--unpaired": arguments.unpaired}
    for name, given in fixed.items():
        if given:
            raise UserError(
                f"{path} says what is compared; {name} would make it another study: compare the file it was made from, or the recipe"
            )
    found = definition.read(path)
    changes: dict[str, Any] = {}
    if arguments.seeds is not None:
        changes["seeds"] = definition.seeds_of(arguments.seeds)
    if arguments.budget is not None:
        changes["budget"] = definition.seconds_of(arguments.budget)
    if arguments.matters is not None:
        changes["matters"] = definition.matters_of(arguments.matters)
    if arguments.confidence is not None:
        changes["confidence"] = definition.confidence_of(arguments.confidence)
    if arguments.until is not None:
        changes["until_decided"] = True
    if arguments.also is not None:
        changes["also"] = definition.also_of((*found.also, *definition.also_of(arguments.also)), found.metric)
    return study.repeat(replace(found, **changes), out=arguments.out, resume=arguments.resume, workers=arguments.workers)


def design_of(arguments: argparse.Namespace) -> Any:
    return "grid" if arguments.grid else "without" if arguments.without else None


# --- what is printed -------------------------------------------------------------------------------------------------------


def nothing_came(made: "Compared") -> bool:
    """No run of the whole study has a value."""
    return not any(variant["n"] for variant in made.results["variants"])


def summary(made: "Compared") -> list[str]:
    """A row a variant, the best first: its mean, the difference with its interval, p, what it costs, and the verdict."""
    results, where = made.results, output.short(made.folder)
    level = f"{100 * results['confidence']:g} %"
    rows = [["variant", "n", results["metric"], "difference", f"{level} interval", "p (Holm)", "seconds", "memory", "verdict"]]
    rows += [row(variant, made.costs["variants"].get(variant["name"], {})) for variant in ranked(results)]
    lines = [*output.table(rows), ""]
    lines += [f"{variant['name']}: {variant['effect']['sentence']}" for variant in ranked(results) if variant["effect"]]
    lines += [interaction(each) for each in results["interactions"]]
    lines += also(results)
    lines += [f"note: {warning}" for warning in results["warnings"]]
    facts = [("study", f"{where}: {results['ended']}; {made.costs['study']['runs']} runs in {made.costs['study']['seconds']:.1f} s")]
    facts += [("report", output.short(made.folder / "report.html"))] if (made.folder / "report.html").is_file() else []
    facts += [
        ("next", f"torchstone report {where}"),
        ("", f"torchstone compare {where}/study.toml --out {where} --resume --seeds {more(results)}"),
    ]
    return [*lines, "", *output.table(facts)]


def ranked(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The best mean first; what has none last."""
    sign = -1 if results["mode"] == "max" else 1
    return sorted(results["variants"], key=lambda each: (each["mean"] is None, sign * (each["mean"] or 0.0)))


def row(variant: dict[str, Any], cost: dict[str, Any]) -> list[str]:
    effect = variant["effect"]
    mean = (
        "-" if variant["mean"] is None else f"{variant['mean']:.4g}" + (f" +- {variant['std']:.2g}" if variant["std"] is not None else "")
    )
    seconds, memory = cost_text(cost.get("seconds"), "s"), cost_text(cost.get("peak_memory_mb"), "MB")
    if effect is None:
        return [variant["name"], str(variant["n"]), mean, "", "", "", seconds, memory, "the baseline"]
    return [
        variant["name"],
        str(variant["n"]),
        mean,
        "-" if effect["mean"] is None else f"{effect['mean']:+.3g}",
        "-" if effect["low"] is None else f"{effect['low']:+.3g} to {effect['high']:+.3g}",
        "-" if effect["p_holm"] is None else f"{effect['p_holm']:.2g}",
        seconds,
        memory,
        effect["verdict"],
    ]


def also(results: dict[str, Any]) -> list[str]:
    """The metrics that do not decide, a row a variant and metric."""
    level = f"{100 * results['confidence']:g} %"
    rows = [["also measured", "variant", "mean", f"{level} interval", "difference", f"{level} interval, uncorrected: no verdict"]]
    for name in results.get("also", ()):
        for variant in ranked(results):
            found = variant["also"][name]
            ends = [
                "" if found[low] is None else f"{found[low]:{sign}.4g} to {found[high]:{sign}.4g}"
                for low, high, sign in (("low", "high", ""), ("difference_low", "difference_high", "+"))
            ]
            mean = "-" if found["mean"] is None else f"{found['mean']:.4g}"
            difference = "" if found["difference"] is None else f"{found['difference']:+.3g}"
            rows.append([name, variant["name"], mean, ends[0], difference, ends[1]])
    return ["", *output.table(rows)] if len(rows) > 1 else []


def cost_text(cost: dict[str, Any] | None, unit: str) -> str:
    """`1.21 s`, and of a variant the difference to the baseline where its interval leaves zero out."""
    if not cost or cost["mean"] is None:
        return "-"
    found = f"{cost['mean']:.3g} {unit}"
    more = cost.get("difference") or {}
    if more.get("low") is not None and more["low"] * more["high"] > 0:
        found += f" ({more['mean']:+.2g})"
    return found


def interaction(each: dict[str, Any]) -> str:
    """One line about two factors together."""
    pair = " and ".join(f"{path}={level}" for path, level in zip(each["factors"], each["levels"], strict=True))
    if each["low"] is None:
        return f"together: {pair}: nothing is known of chance"
    p = "" if each["p_holm"] is None else f", p = {each['p_holm']:.2g}"
    return f"together: {pair} give {each['mean']:+.3g} more than their sum ({each['low']:+.3g} to {each['high']:+.3g}{p})"


def more(results: dict[str, Any]) -> str:
    """Twice as many seeds."""
    seeds = results["seeds"]
    return str(2 * len(seeds)) if seeds == list(range(len(seeds))) else ",".join(map(str, [*seeds, max(seeds) + 1]))
