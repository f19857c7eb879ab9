"""`torchstone train --folds K`: one run a fold, their metrics as a table, and the ensemble."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.cli import output
from torchstone.core.errors import UserError
from torchstone.core.layout import ENSEMBLE, RESULTS

if TYPE_CHECKING:
    from torchstone.experiment import Experiment
    from torchstone.experiment.folds import Folds


def run_folds(experiment: "Experiment", recipe: str, edits: Sequence[str], arguments: argparse.Namespace) -> int:
    """What `train` does where --folds is given."""
    if arguments.folds is None and not arguments.resume:
        raise UserError(f"--fold-by {arguments.fold_by} says how --folds K divides the data; give --folds too")
    out: Path | None = arguments.out
    if arguments.dry_run:
        return dry(experiment, edits, arguments)
    if arguments.resume and out is None:
        out = newest_unfinished(Path("runs") / recipe)
    trained = train_folds(experiment, *edits, folds=arguments.folds, by=arguments.fold_by, out=out, recipe=recipe, resume=arguments.resume)
    if arguments.json:
        output.say_json(trained.results)
    elif output.prints():
        for line in summary(trained):
            output.say(line)
    return output.DONE


def train_folds(experiment: "Experiment", *edits: str, **options: Any) -> "Folds":
    """`experiment.folds.train_folds`, and at the end of each fold its run's page: what `torchstone.train_folds` is in Python."""
    from torchstone.cli.train import draw
    from torchstone.experiment.folds import train_folds

    return train_folds(experiment, *edits, report=draw, **options)


def dry(experiment: "Experiment", edits: Sequence[str], arguments: argparse.Namespace) -> int:
    """The dry run of the first fold."""
    from torchstone.cli.dry_run import dry_run, duration
    from torchstone.core import tree
    from torchstone.data import Fold
    from torchstone.experiment.folds import chosen

    out: Path | None = arguments.out
    if out is not None and out.exists() and not arguments.resume:
        raise UserError(f"--out {out}: it exists already; choose another folder, or go on with it by --resume")
    edited = tree.edit(experiment, edits)
    origin = chosen(edited, arguments.folds or 5, arguments.fold_by or "auto", "")
    document = dry_run(replace(edited, data=Fold(source=edited.data, of=origin["folds"], by=origin["by"])), [])
    count = origin["folds"]
    if arguments.json:
        output.say_json({"folds": count, "by": origin["by"], **document.facts})
    else:
        whole = duration(count * document.facts["estimated_seconds"])
        output.say(f"# folds       {count} ({origin['by']}), about {whole} in all; this is the first\n{document.text}")
    return output.DONE


def newest_unfinished(folder: Path) -> Path:
    """The youngest folder of folds without its results. Raises UserError where there is none."""
    made = [path.parent for path in folder.glob(f"*/{ENSEMBLE}") if not path.parent.name.startswith(".")]
    unfinished = [each for each in made if not (each / RESULTS).is_file()]
    if not unfinished:
        found = f"the {len(made)} there are finished" if made else "there are none at all"
        raise UserError(f"{folder}: no unfinished folds to resume ({found}); --out DIR names them")
    return max(unfinished, key=lambda each: (each / ENSEMBLE).stat().st_mtime_ns)


def summary(trained: "Folds") -> list[str]:
    """A row a fold and their mean ± deviation; the ensemble; where it is and what to do with it."""
    results, where = trained.results, output.short(trained.folder)
    metric = results["metric"]
    names = list(dict.fromkeys((metric, "loss")))
    columns = [(split, name) for split in ("validation", "test") for name in names if name in results["mean"][split]]
    rows = [["fold", *(f"{split} {name}" for split, name in columns), "run"]]
    for member in results["members"]:
        cells = [output.number(member[split].get(name)) for split, name in columns]
        rows.append([str(member["fold"]), *cells, output.short(trained.folder / member["run"])])
    for label in ("mean", "std"):
        rows.append([label, *(output.number(results[label][split][name]) for split, name in columns), ""])
    together = results["ensemble"]["test"]
    rows.append(["ensemble", *(output.number(together.get(name)) if split == "test" else "" for split, name in columns), where])
    return [*output.table(rows), *output.table([("next", f"torchstone predict {where} INPUT"), ("", f"torchstone eval {where}")])]
