"""Cross-validation: one training a fold, what they say together, and their ensemble.

`<out>/fold-1 … fold-K` are ordinary run folders of the same experiment with `data = fold` around its data; the test split takes part in
none of them. `<out>/ensemble.json` names them for predict and eval, `<out>/results.json` has the numbers.
"""

import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from torchstone.core import files, layout, ranks, tree
from torchstone.core.errors import Interrupted, UserError
from torchstone.core.json_text import to_json
from torchstone.core.lock import Lock
from torchstone.data import Fold
from torchstone.data.folds import By, Scheme, fold_rows, scheme_for
from torchstone.data.sources.fold import MOST, fingerprint, pooled
from torchstone.experiment.measuring import measured
from torchstone.experiment.preparing import choose_device, resolved, threads_restored
from torchstone.experiment.running import Trained, train_experiment, with_measured_speed
from torchstone.experiment.tree import Experiment
from torchstone.ship import Predictor
from torchstone.ship.ensemble import ensemble_text, load, read_ensemble
from torchstone.train import folder


@dataclass(frozen=True, slots=True)
class Folds:
    """What `train_folds` leaves."""

    folder: Path
    runs: tuple[Trained, ...]
    results: dict[str, Any]
    """The document of results.json."""


def train_folds(
    experiment: Experiment,
    *edits: str,
    folds: int | None = 5,
    by: By | None = None,
    out: str | Path | None = None,
    recipe: str = "",
    resume: bool = False,
    report: Callable[[Path], object] | None = None,
) -> Folds:
    """Trains each of `folds` divisions of what trains and validates, in a new folder: `out`, or one under runs/<recipe>/.

    by: stratified, plain, grouped or temporal; None: what the data ask for. With `resume`, goes on with the folder `out` where it was
    left; `folds` None takes its number from there. Raises as `train_experiment`; UserError before anything is written where the data
    cannot be divided so.
    """
    edited = tree.edit(experiment, edits)
    place = None if out is None else Path(out)
    with ranks.joined(torch.device(choose_device(edited.run.device))), threads_restored():
        there = from_main(lambda: begun(place, resume))
        origin = there or chosen(edited, 5 if folds is None else folds, by or "auto", recipe)
        require_same_folds(place, origin, folds, by)
        where = Path(from_main(lambda: str(place) if there else make_folder(place, recipe, edited.run.name, origin)))
        with Lock(where) if ranks.is_main() else nullcontext():
            if ranks.is_main():
                files.remove_partial(where)
            runs = []
            for number in range(1, origin["folds"] + 1):
                say(f"fold {number} of {origin['folds']} ({origin['by']}) in {where}")
                runs.append(one_fold(experiment, edits, where, number, origin, recipe=recipe, report=report))
            results = summarized(where, runs, origin, edited)
            if ranks.is_main():
                files.write_text(where / layout.RESULTS, to_json(results, indent=2) + "\n")
    return Folds(where, tuple(runs), results)


def chosen(experiment: Experiment, folds: int, by: By, recipe: str) -> dict[str, Any]:
    """How the data are divided. Raises UserError where they cannot be."""
    if not 2 <= folds <= MOST:
        raise UserError(f"--folds must be from 2 to {MOST}, got {folds}")
    if isinstance(experiment.data, Fold):
        raise UserError("--folds divides the data, and data=fold has done it already; take its source as the data, or leave --folds out")
    _, pool = pooled(experiment.data.open(), tree.kind_of(experiment.data))
    scheme = scheme_for(by, pool)
    fold_rows(scheme, folds, pool)
    return {"kind": "folds", "folds": folds, "by": scheme, "recipe": recipe}


def require_same_folds(place: Path | None, origin: Mapping[str, Any], folds: int | None, by: By | None) -> None:
    """Raises UserError for a folder that was divided in another way, or is no folder of folds."""
    if origin.get("kind") != "folds" or not isinstance(origin.get("folds"), int) or origin.get("by") not in get_args(Scheme):
        raise UserError(f"{place}: its members are no folds, so there is nothing to go on with")
    if folds is not None and folds != origin["folds"]:
        raise UserError(f"{place}: was divided into {origin['folds']} folds, not {folds}; go on with those, or choose another folder")
    if by not in (None, "auto", origin["by"]):
        raise UserError(f"{place}: its folds are {origin['by']}, not {by}; go on with those, or choose another folder")


def begun(place: Path | None, resume: bool) -> dict[str, Any] | None:
    """What ensemble.json says of the folds to go on with; None: they begin. Raises UserError for a folder of something else."""
    if not resume or place is None or not place.exists():
        return None
    there = read_ensemble(place)
    if there is None:
        raise UserError(f"{place}: holds no folds to go on with; leave --folds out for a single run, or choose another folder")
    return there["origin"]


def make_folder(out: Path | None, recipe: str, name: str, origin: dict[str, Any]) -> str:
    """A new folder with its ensemble.json."""
    text = {layout.ENSEMBLE: ensemble_text([f"fold-{number}" for number in range(1, origin["folds"] + 1)], origin)}
    return str(folder.create(out, Path("runs") / (recipe or "python") / f"{name}-folds", text, checkpoints=False).absolute())


def from_main(ask: Callable[[], Any]) -> Any:
    """What the main rank finds or makes, on every rank; its UserError too."""
    found, problem = None, ""
    if ranks.is_main():
        try:
            found = ask()
        except UserError as error:
            problem = str(error)
    found, problem = ranks.broadcast_object([found, problem])
    if problem:
        raise UserError(problem)
    return found


def one_fold(experiment: Experiment, edits: Iterable[str], where: Path, number: int, origin: Mapping[str, Any], **options: Any) -> Trained:
    """One fold trained, or gone on with, in its run folder. What `run.speed=auto` measures for the first holds for all."""

    def divided(edited: Experiment) -> Experiment:
        made = replace(edited, data=Fold(source=edited.data, number=number, of=origin["folds"], by=origin["by"]))
        return made if number == 1 else with_measured_speed(made, where / "fold-1")

    place = where / f"fold-{number}"
    resume = from_main(place.exists)  # asked once: the main rank soon makes it
    try:
        return train_experiment(experiment, *edits, out=place, resume=resume, divided=divided, **options)
    except Interrupted as error:
        at = f"interrupted in fold {number} of {origin['folds']}; --folds {origin['folds']} --out {where} --resume goes on from there"
        raise Interrupted(error.signal, at) from None


def say(line: str) -> None:
    if ranks.is_main():
        print(line, file=sys.stderr, flush=True)


# --- the numbers -----------------------------------------------------------------------------------------------------------


def summarized(where: Path, runs: Sequence[Trained], origin: Mapping[str, Any], edited: Experiment) -> dict[str, Any]:
    """Every fold's metrics of its resulting weights, their mean and standard deviation (n - 1), and the ensemble's on the test split.

    Metrics are those that are one number. The spread over folds is that of models which share most of their training samples: it is no
    standard error of the mean (Bengio and Grandvalet, "No Unbiased Estimator of the Variance of K-Fold Cross-Validation", 2004).
    """
    splits = edited.data.open()
    whole, pool = pooled(splits, tree.kind_of(edited.data))
    rows = fold_rows(origin["by"], origin["folds"], pool)
    members = []
    for number, (run, (train, held)) in enumerate(zip(runs, rows, strict=True), 1):
        predictor = load(run.folder, device=edited.run.device)
        if predictor.artifact.facts.fingerprint != fingerprint(splits.facts, train, held):
            raise UserError(f"{run.folder}: the data have changed since it was trained; what it validates on is no longer what it left out")
        members.append(
            {
                "fold": number,
                "run": run.folder.name,
                "status": run.status,
                "sizes": dict(predictor.artifact.facts.sizes),
                "validation": numbers(measured(as_run(edited, predictor), predictor, whole.taken(held))),
                "test": numbers(run.metrics["final"]),
            }
        )
    together = load(where, device=edited.run.device)
    return {
        **origin,
        "metric": edited.task.selection[0],
        "members": members,
        "mean": {split: over(members, split, statistics.fmean) for split in ("validation", "test")},
        "std": {split: over(members, split, statistics.stdev) for split in ("validation", "test")},
        "ensemble": {"test": measured(as_run(edited, together), together, splits.test)},
    }


def as_run(edited: Experiment, predictor: Predictor) -> Experiment:
    """The experiment with the numbers of a fold's own training samples, in the arithmetic of its run."""
    artifact = predictor.artifact
    experiment = resolved(edited, artifact.facts)
    torch.set_num_threads(artifact.threads or 1)
    return replace(experiment, run=replace(experiment.run, precision=artifact.precision, memory_format=artifact.memory_format))


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are one number; NaN where JSON says null."""
    scalars = {name: value for name, value in metrics.items() if value is None or isinstance(value, int | float)}
    return {name: math.nan if value is None else value for name, value in scalars.items()}


def over(members: Sequence[Mapping[str, Any]], split: str, how: Callable[[list[float]], float]) -> dict[str, float]:
    """`how` of each metric over the folds; NaN where it is undefined in one of them."""
    found = {}
    for name in members[0][split]:
        values = [float(member[split].get(name, math.nan)) for member in members]
        found[name] = how(values) if all(map(math.isfinite, values)) else math.nan
    return found
