"""`torchstone eval`: the metrics of a run's resulting weights, on the test split or on other data."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_device, add_json
from torchstone.core.errors import UserError, warn

if TYPE_CHECKING:
    from torchstone.core.protocols import Split
    from torchstone.ship import Predictor

HELP = "the metrics of a run's resulting weights, on its test split or on other data"
EXAMPLES = """  torchstone eval runs/digits/run                       the same numbers as in its metrics.json
  torchstone eval runs/digits/run --data more.npz       all samples of that file (arrays x and y)
  torchstone eval runs/gpt-bytes/run --data book.txt    all bytes of that text
  torchrun --nproc-per-node 2 -m torchstone eval runs/digits/run"""


def add(parser: Parser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--data", type=Path, metavar="PATH", help="a .npz file (x and y), or a text file; else the test split")
    add_device(parser)
    add_json(parser, "metrics.json's document, `final` measured anew,")


def run(arguments: argparse.Namespace) -> int:
    document = evaluated(arguments.run, arguments.data, arguments.device)
    if arguments.json:
        output.say_json(document)
        return output.DONE
    where = arguments.data or f"the test split of {output.short(arguments.run)}"
    output.say(f"{where}, weights of {document['checkpoint']}")
    for line in output.table([(name, output.number(value)) for name, value in scalars(document["final"]).items()], indent="  "):
        output.say(line)
    return output.DONE


def scalars(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics that are one number; a confusion matrix is for --json and the report."""
    return {name: value for name, value in metrics.items() if not isinstance(value, list | dict)}


def evaluated(run: str | Path, path: str | Path | None = None, device: str = "auto") -> dict[str, Any]:
    """The document of metrics.json with `final` measured anew, and what it was measured with.

    Raises UserError for what is no run, has no weights yet, or does not fit the data. Under `torchrun` every rank calls it.
    """
    import torch

    from torchstone import ship
    from torchstone.core import ranks
    from torchstone.experiment import choose_device, load_experiment, resolved, threads_restored
    from torchstone.train import folder
    from torchstone.train.evaluate import evaluate

    run, path = Path(run), None if path is None else Path(path)
    folder.require_run(run)
    experiment = load_experiment(run / folder.EXPERIMENT)
    with ranks.joined(torch.device(choose_device(device))), threads_restored():
        if experiment.run.threads is not None:
            torch.set_num_threads(experiment.run.threads)
        predictor = ship.load(run, device=choose_device(device))
        facts = predictor.artifact.facts
        split = own_test_split(run, experiment, predictor) if path is None else all_samples(path, experiment, predictor)
        method = resolved(experiment, facts).method if experiment.method.loss is None else experiment.method
        final = evaluate(
            predictor.model,
            split,
            loss=method.loss,  # type: ignore[arg-type]
            metrics=experiment.task.metrics(facts),
            device=predictor.device,
            batch_size=experiment.run.evaluation_batch_size,
            precision=experiment.run.precision,
            sample_transforms=predictor.artifact.preprocess.sample,
            batch_transforms=predictor.artifact.preprocess.batch,
            workers=experiment.run.workers,
        )
    stored = folder.read_json(run / folder.METRICS) if (run / folder.METRICS).exists() else {"best": {}, "cost": {}, "status": "unfinished"}
    measured_on = {} if path is None else {"data": str(path)}
    return {**stored, "final": final, "checkpoint": predictor.checkpoint.name, **measured_on}


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


def all_samples(path: Path, experiment: Any, predictor: "Predictor") -> "Split":
    """Every sample of a .npz file, or every byte of a text.

    Raises UserError for what cannot be read, and for labels that are no class of the model.
    """
    from torchstone.core.protocols import TokenShape

    shape = predictor.artifact.facts.inputs
    if isinstance(shape, TokenShape):
        return text_split(path, shape.length)
    if path.suffix.lower() != ".npz":
        raise UserError(f"{path}: a .npz file with the arrays x and y is needed")
    return labeled_split(path, predictor)


def text_split(path: Path, context: int) -> "Split":
    import torch

    from torchstone.data.sources.text import covering_windows

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) < 2:
        raise UserError(f"{path}: holds {len(content)} bytes; at least 2 are needed to predict one")
    return covering_windows(torch.frombuffer(bytearray(content), dtype=torch.uint8), context)


def labeled_split(path: Path, predictor: "Predictor") -> "Split":
    """All samples of x and y, or of every x_… with its y_…, in that order."""
    import numpy as np
    import torch

    from torchstone.data.sources.npz import read_arrays
    from torchstone.data.splits import TensorSplit
    from torchstone.ship.arrays import as_samples

    endings = ("", "_train", "_validation", "_test")
    arrays, present = read_arrays(path, frozenset(f"{axis}{ending}" for axis in "xy" for ending in endings))
    pairs = [(f"x{ending}", f"y{ending}") for ending in endings if f"x{ending}" in arrays and f"y{ending}" in arrays]
    if not pairs:
        raise UserError(f"{path}: has no arrays x and y; found {', '.join(present[:20]) or 'nothing'}")
    classes = len(predictor.artifact.facts.classes)
    inputs, targets = [], []
    for x_name, y_name in pairs:
        x = as_samples(arrays[x_name], predictor.artifact.facts.inputs, f"{path}, array {x_name}", any_size=predictor.resizes)
        y = arrays[y_name]
        if y.shape != (len(x),) or y.dtype.kind not in "iu":
            raise UserError(
                f"{path}, array {y_name}: {y.dtype} {list(y.shape)}; labels are whole numbers [{len(x)}], one for each row of {x_name}"
            )
        wrong = np.asarray((y < 0) | (y >= classes))
        if wrong.any():
            raise UserError(
                f"{path}, array {y_name}, row {int(wrong.argmax())}: is label {y[wrong][0]}; the model's classes are 0 to {classes - 1}"
            )
        inputs.append(x)
        targets.append(torch.from_numpy(y.astype(np.int64)))
    return TensorSplit(torch.cat(inputs), torch.cat(targets))
