"""`torchstone eval`: the metrics of a run's resulting weights, on the test split or on other data."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_device, add_json
from torchstone.core.errors import UserError, plural, warn

if TYPE_CHECKING:
    from torchstone.core.protocols import Split
    from torchstone.ship import Predictor
    from torchstone.ship.labeled import Labeled

HELP = "the metrics of a run's resulting weights, on its test split or on other data"
EXAMPLES = """  torchstone eval runs/digits/run                       the same numbers as in its metrics.json
  torchstone eval runs/photos/run --data holiday        a folder of class folders; of train, val and test in it the test
  torchstone eval runs/digits/run-folds                 the ensemble of the folds that train --folds has made
  torchstone eval runs/digits/run --data more.npz       all samples of that file (arrays x and y)
  torchstone eval runs/gpt-bytes/run --data book.txt    all bytes of that text
  torchrun --nproc-per-node 2 -m torchstone eval runs/digits/run"""

MOST_SHOWN = 20
"""Classes whose samples are counted on the terminal; --json has them all."""

Choice = Literal["refuse", "skip"]


def add(parser: Parser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, or one of train --folds: the mean of their probabilities")
    parser.add_argument("--snapshots", action="store_true", help="the mean of the probabilities of the checkpoints that run.snapshots kept")
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="a folder of class folders, a .npz file (x and y), IDX files, a text; else the test split"
    )
    for option, what in {
        "--on-unknown": "of class folders that the model does not know: refuse (name them and end) or skip (leave them out); refuse",
        "--on-bad": "of pictures that cannot be read: refuse (name them and end) or skip (up to 1 %%, counted); refuse",
    }.items():
        parser.add_argument(option, choices=("refuse", "skip"), default="refuse", metavar="WHAT", help=what)
    add_device(parser)
    add_json(parser, "metrics.json's document, `final` measured anew,")


def run(arguments: argparse.Namespace) -> int:
    choices = {"on_unknown": arguments.on_unknown, "on_bad": arguments.on_bad, "snapshots": arguments.snapshots}
    document = evaluated(arguments.run, arguments.data, arguments.device, **choices)
    if arguments.json:
        output.say_json(document)
        return output.DONE
    where = f"the test split of {output.short(arguments.run)}" if arguments.data is None else f"{arguments.data} ({document['part']})"
    of = f"an ensemble of {document['ensemble']}" if document.get("ensemble") else f"weights of {document['checkpoint']}"
    output.say(f"{where}, {of}")
    if document.get("class_counts"):
        output.say(f"  {plural(document['samples'], 'sample')}: {counted(document['class_counts'])}")
    for line in output.table([(name, output.number(value)) for name, value in scalars(document["final"]).items()], indent="  "):
        output.say(line)
    return output.DONE


def scalars(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics that are one number; a confusion matrix is for --json and the report."""
    return {name: value for name, value in metrics.items() if not isinstance(value, list | dict)}


def counted(class_counts: dict[str, int]) -> str:
    more = f" and {len(class_counts) - MOST_SHOWN} more classes" if len(class_counts) > MOST_SHOWN else ""
    return ", ".join(f"{name} {count}" for name, count in list(class_counts.items())[:MOST_SHOWN]) + more


def evaluated(
    run: str | Path,
    path: str | Path | None = None,
    device: str = "auto",
    *,
    on_unknown: Choice = "refuse",
    on_bad: Choice = "refuse",
    snapshots: bool = False,
) -> dict[str, Any]:
    """The document of metrics.json with `final` measured anew, and what it was measured with.

    path: data as `ship.labeled.open_labeled` reads them, described in the document; None: the test split of the run's own data.
    Of a folder of `train --folds`, or with `snapshots`, the members together: `ensemble` in the document is their number.
    Raises UserError for what is no run, has no weights yet, or does not fit the data. Under `torchrun` every rank calls it.
    """
    import torch

    from torchstone import ship
    from torchstone.core import ranks
    from torchstone.experiment import choose_device, load_without_own_parts, threads_restored
    from torchstone.experiment.measuring import measured
    from torchstone.ship.ensemble import members
    from torchstone.ship.labeled import open_labeled
    from torchstone.train import folder

    run, path = Path(run), None if path is None else Path(path)
    first = next(iter(members(run)), run)
    folder.require_run(first)
    experiment, own = load_without_own_parts(first / folder.EXPERIMENT)
    if "loss" in own:
        warn(f"{run}: its loss is a class of your own, which no file can build: `loss` is the task's default one")
    with ranks.joined(torch.device(choose_device(device))), threads_restored():
        if experiment.run.threads is not None:
            torch.set_num_threads(experiment.run.threads)
        predictor = ship.load(run, device=choose_device(device), snapshots=snapshots)
        if path is None:
            measured_on = {}
            final = measured(experiment, predictor, own_test_split(run, experiment, predictor))
        else:
            skipped: list[str] | None = [] if on_bad == "skip" else None
            other = open_labeled(path, predictor, on_unknown=on_unknown, skipped=skipped)
            measured_on = {"data": str(path), **described(other, path, skipped or [])}
            final = measured(experiment, predictor, other.split)
    stored = folder.read_json(run / folder.METRICS) if (run / folder.METRICS).exists() else {"best": {}, "cost": {}, "status": "unfinished"}
    together = {"ensemble": len(predictor.members)} if predictor.members else {}
    return {**stored, "final": final, "checkpoint": predictor.checkpoint.name, **together, **measured_on}


def described(other: "Labeled", path: Path, skipped: list[str]) -> dict[str, Any]:
    """What a document says of data that are not the run's own."""
    from torchstone.ship.inputs import FIRST

    if skipped:
        warn(f"{path}: {plural(len(skipped), 'picture')} skipped: {'; '.join(skipped[:FIRST])}")
    return {
        "part": other.part,
        "samples": len(other.split),
        "class_counts": dict(other.class_counts),
        "left_out": dict(other.left_out),
        "skipped_pictures": len(skipped),
    }


def own_test_split(run: Path, experiment: Any, predictor: "Predictor") -> "Split":
    """The test split of the run's own data; a warning if they are not what they were."""
    from torchstone.experiment import reshaped

    splits = experiment.data.open()
    require_same_inputs(f"{run}: its data", reshaped(splits.facts, experiment.method).inputs, predictor)
    if splits.facts.classes != predictor.artifact.facts.classes:
        now, then = len(splits.facts.classes), len(predictor.artifact.facts.classes)
        raise UserError(f"{run}: its data have other classes than the model: {now} now, {then} when it was trained")
    if splits.facts.fingerprint != predictor.artifact.facts.fingerprint:
        warn(f"{run}: the data have changed since the training; the test split may hold samples that were trained on")
    return splits.test


def require_same_inputs(what: str, inputs: Any, predictor: "Predictor") -> None:
    from torchstone.core import tree

    expected = predictor.artifact.facts.inputs
    if inputs != expected:
        raise UserError(f"{what}: inputs are {tree.encode(inputs)}, the model was trained on {tree.encode(expected)}")
