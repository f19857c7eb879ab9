"""`torchstone train`: a recipe or a .toml file, with edits, into a run folder."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_json
from torchstone.core.errors import UserError, WorkError
from torchstone.core.layout import ENSEMBLE

if TYPE_CHECKING:
    from torchstone.doctor.finding import Finding
    from torchstone.experiment import Experiment, Trained

HELP = "trains a recipe or a .toml file, with edits (path=value) applied left to right"
EXAMPLES = """  torchstone train digits
  torchstone train digits method.averaging=ema run.epochs=5 --seed 1 --out runs/with-ema
  torchstone train runs/with-ema/experiment.toml             repeats that run, bit for bit
  torchstone train digits --out runs/with-ema --resume       goes on after a crash or Ctrl-C
  torchstone train gpt-bytes data=plain_text data.path=book.txt
  torchstone train digits optimizer=muon --dry-run           says what it would do; trains nothing
  torchstone train digits --folds 5                          five-fold cross-validation, and the ensemble of the five
  torchrun --nproc-per-node 2 -m torchstone train digits"""


def add(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a name from `torchstone list recipes`, or a .toml file")
    parser.add_argument("edits", metavar="EDIT", nargs="*", default=[], help="path=value, path+=element or path-=element")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder itself; else a new one under runs/RECIPE/")
    parser.add_argument("--seed", metavar="N", help="the edit run.seed=N")
    parser.add_argument("--device", metavar="NAME", help="the edit run.device=NAME: auto, cpu, cuda, cuda:1 …")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, or with the newest unfinished one of the recipe"
    )
    parser.add_argument("--folds", type=int, metavar="K", help="train K runs, each validated on another K-th of what trains and validates")
    parser.add_argument(
        "--fold-by",
        choices=("stratified", "plain", "grouped", "temporal"),
        metavar="HOW",
        help="stratified (by class), plain (at random), grouped (whole groups), temporal (validated on what comes after); "
        "else what the data ask for",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the whole experiment and what it would cost; write nothing")
    add_json(parser, "metrics.json (of --folds: results.json, of --dry-run: the experiment and its cost)")


def run(arguments: argparse.Namespace) -> int:
    from torchstone.cli.dry_run import dry_run

    experiment, recipe = find_recipe(arguments.recipe)
    edits = [*arguments.edits, *option_edits(arguments)]
    out: Path | None = arguments.out
    goes_on = arguments.resume and out is not None and (out / ENSEMBLE).is_file()
    if arguments.folds is not None or arguments.fold_by is not None or goes_on:
        from torchstone.cli.folds import run_folds

        return run_folds(experiment, recipe, edits, arguments)
    if arguments.dry_run:
        if out is not None and out.exists() and not arguments.resume:
            raise UserError(f"--out {out}: it exists already; choose another folder, or go on with that run by --resume")
        document = dry_run(experiment, edits)
        if arguments.json:
            output.say_json(document.facts)
        else:
            output.say(document.text)
        return output.DONE
    if arguments.resume and out is None:
        out = newest_unfinished(Path("runs") / recipe)
    trained = train_with_report(experiment, *edits, out=out, recipe=recipe, resume=arguments.resume)
    if arguments.json:
        output.say_json(trained.metrics)
    elif output.prints():
        for line in summary(trained):
            output.say(line)
    return output.DONE


def train_with_report(experiment: "Experiment", *edits: str, **options: Any) -> "Trained":
    """`train_experiment`, and at its end what the doctor found and the run's page: what `torchstone.train` is in Python too."""
    from torchstone.experiment import train_experiment

    told: list[str] = []

    def over(run: Path) -> None:
        told.extend(examined(run))
        draw(run)

    try:
        return train_experiment(experiment, *edits, report=over, **options)
    except WorkError as error:
        error.finding = told[0] if told else error.finding
        raise


def examined(run: Path) -> list[str]:
    """Writes findings.json; the summaries of the findings, the gravest first. What cannot be judged is a warning: the run is whole without
    it."""
    from torchstone.core.errors import warn
    from torchstone.doctor.during import judge
    from torchstone.doctor.finding import write_findings

    try:
        examination = judge(run)
        write_findings(run, examination)
    except Exception as error:
        warn(f"{run}: the doctor gave no findings ({type(error).__name__}: {error}); torchstone doctor {run} tries again")
        return []
    return [diagnosis(finding) for finding in examination.findings]


def diagnosis(finding: "Finding") -> str:
    """One line: what was found, and the edits that may mend it."""
    return f"{finding.summary}{'; try ' + ' '.join(finding.remedy) if finding.remedy else ''}"


def draw(run: Path) -> None:
    """The run's page. A page that cannot be drawn is a warning: the run is whole without it."""
    from torchstone import report
    from torchstone.core.errors import warn

    try:
        report.write(run)
    except Exception as error:
        warn(f"{run}: no report was drawn ({type(error).__name__}: {error}); torchstone report {run} tries again")


def find_recipe(name: str) -> tuple["Experiment", str]:
    """The experiment, and the name its runs are filed under.

    Raises UserError for an unknown name or a file that cannot be read.
    """
    from torchstone.core.parts import hint
    from torchstone.experiment import load_experiment
    from torchstone.recipes import RECIPES

    if name.replace("_", "-") in RECIPES:
        name = name.replace("_", "-")
        return RECIPES[name](), name
    path = Path(name)
    if path.suffix == ".toml":
        if not path.exists():
            raise UserError(f"{path}: no such file")
        return load_experiment(path), file_recipe(path)
    if path.is_dir() and (path / "experiment.toml").is_file():
        raise UserError(f"{path} is a run; its experiment is {path / 'experiment.toml'}")
    raise UserError(f"there is no recipe {name!r}{hint(name, RECIPES)}; a file ends in .toml")


def file_recipe(path: Path) -> str:
    """What runs of a .toml file are filed under: its name; for a run's own experiment.toml the recipe of that run."""
    if path.name != "experiment.toml":
        return path.stem
    run = path.absolute().parent
    return run.parent.name if run.parent.parent.name == "runs" else run.name


def option_edits(arguments: argparse.Namespace) -> list[str]:
    """--seed and --device as the edits they are.

    Raises UserError where an edit on the command line says the same.
    """
    said = {text.split("=", 1)[0].strip(): text for text in arguments.edits}
    edits = []
    for name in ("seed", "device"):
        value = getattr(arguments, name)
        if value is None:
            continue
        for path in (name, f"run.{name}"):
            if path in said:
                raise UserError(f"--{name} {value} and the edit {said[path]} say two things of run.{name}; leave one out")
        edits.append(f"run.{name}={value}")
    return edits


def newest_unfinished(folder: Path) -> Path:
    """The youngest run in the folder that is not over.

    Raises UserError where there is none.
    """
    from torchstone.train.folder import ARTIFACT, EXPERIMENT, finished

    made = [run for run in folder.glob("*") if (run / EXPERIMENT).is_file() and (run / ARTIFACT).is_file() and not run.name.startswith(".")]
    for run in sorted(made, key=lambda run: (run / EXPERIMENT).stat().st_mtime_ns, reverse=True):
        try:
            over = finished(run) is not None
        except UserError:  # an unreadable metrics.json is no result
            over = False
        if not over:
            return run
    found = f"the {len(made)} there are finished" if made else "there is none at all"
    raise UserError(f"{folder}: no unfinished run to resume ({found}); --out DIR names one")


def summary(trained: "Trained") -> list[str]:
    """What a person wants to know next: the result, where it is, what to do with it."""
    from torchstone.cli.eval_ import scalars
    from torchstone.ship.artifact import candidates, read_artifact
    from torchstone.tasks import Language

    def numbers(found: dict[str, Any]) -> str:
        return "  ".join(f"{name} {output.number(value)}" for name, value in scalars(found).items())

    metrics: dict[str, Any] = trained.metrics
    artifact = read_artifact(trained.folder)
    where = output.short(trained.folder)
    cost = metrics["cost"]
    seconds = f" in {cost['seconds']:.1f} s" if cost.get("seconds") is not None else ""
    kept = candidates(trained.folder, artifact.weights.checkpoint)
    averaged = " (averaged)" if artifact.weights.file == "average" else ""
    ending = f" ({metrics['ending']})" if metrics.get("ending") not in (None, metrics["status"]) else ""
    rows = [
        ("status", f"{metrics['status']}{ending}, {metrics.get('steps', '?')} steps{seconds}"),
        *((name, numbers(metrics[name])) for name in ("training", "validation") if metrics.get("training")),
        ("test", numbers(metrics["final"])),
        ("doctor", doctors_line(trained.folder)),
        ("run", where),
        ("report", output.short(trained.folder / "report.html") if (trained.folder / "report.html").is_file() else "none"),
        ("weights", f"{output.short(kept[0])}{averaged}" if kept else "none"),
        ("next", f"torchstone predict {where} {'PROMPT' if isinstance(artifact.task, Language) else 'INPUT'}"),
        ("", f"torchstone eval {where}"),
    ]
    return output.table(rows)


def doctors_line(run: Path) -> str:
    """The gravest thing that the doctor found in a run, and how much more there is."""
    from torchstone.doctor.finding import FILE, read_findings

    if not (run / FILE).is_file():
        return "did not look"
    examination = read_findings(run / FILE)
    done = sum(check.outcome != "skipped" for check in examination.checks)
    if not examination.findings:
        return f"nothing found ({done} checks)"
    worst, more = examination.findings[0], len(examination.findings) - 1
    return f"{worst.severity}: {diagnosis(worst)}{f' (and {more} more in {FILE})' if more else ''}"
