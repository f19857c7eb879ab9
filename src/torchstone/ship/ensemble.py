"""Several trained models that answer together: the mean of their probabilities. The runs of a folder (folds), or the snapshots of one run.

Dietterich, "Ensemble Methods in Machine Learning", 2000, https://doi.org/10.1007/3-540-45014-9_1; Huang et al., "Snapshot Ensembles:
Train 1, get M for free", 2017, https://arxiv.org/abs/1704.00109. Shapes: N samples, K members, C classes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchstone.core import files, store
from torchstone.core.errors import UserError
from torchstone.core.json_text import from_json, to_json
from torchstone.core.layout import CHECKPOINTS, ENSEMBLE, SNAPSHOT, STEP, VERSION
from torchstone.core.protocols import Batch, BatchTransform, PyTree
from torchstone.ship import predictor
from torchstone.ship.artifact import Artifact
from torchstone.ship.predictor import Predictor
from torchstone.tasks import Classify

MOST_MEMBERS = 1000
MEMBER = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")


def load(run: str | Path, *, device: str = "auto", snapshots: bool = False) -> Predictor:
    """The predictor of a run folder, of a folder of runs (`train --folds`), or of a run's snapshots together:
    `torchstone.load("runs/digits/run").predict(images)`.

    device: auto (the accelerator if there is one), cpu, cuda, cuda:1 ... Raises UserError for what is no run, or has no weights yet.
    """
    run = Path(run)
    places = members(run)
    if places and snapshots:
        raise UserError(f"{run}: is an ensemble of {len(places)} runs; snapshots are those of one run, such as {places[0]}")
    if places:
        return together([predictor.load(place, device=device) for place in places], run)
    if snapshots:
        return together([predictor.load(run, device=device, checkpoint=place) for place in snapshot_folders(run)], run)
    return predictor.load(run, device=device)


# --- the folder ----------------------------------------------------------------------------------------------------------


def ensemble_text(names: Sequence[str], origin: dict[str, Any]) -> str:
    """The content of ensemble.json: the folders of its members, and how they came to be."""
    return to_json({"version": VERSION, "members": list(names), "origin": origin}, indent=2) + "\n"


def read_ensemble(folder: Path) -> dict[str, Any] | None:
    """What ensemble.json says; None for a folder without one. Raises UserError for one that is not as it was written."""
    path = folder / ENSEMBLE
    try:
        document = from_json(files.read_text(path), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise UserError(f"{path}: written by another version of torchstone, or by something else")
    names, origin = document.get("members"), document.get("origin")
    if not isinstance(names, list) or not 1 <= len(names) <= MOST_MEMBERS or not isinstance(origin, dict):
        raise UserError(f"{path}: names no members")
    if wrong := [name for name in names if not isinstance(name, str) or not MEMBER.fullmatch(name)]:
        raise UserError(f"{path}: a member is a folder beside it, got {wrong[0]!r:.40}")
    return document


def members(folder: Path) -> list[Path]:
    """The run folders of an ensemble; none for a folder that is no ensemble. Raises UserError where one is not there yet."""
    document = read_ensemble(folder)
    if document is None:
        return []
    names = document["members"]
    for number, name in enumerate(names, 1):
        if not (folder / name).is_dir():
            raise UserError(f"{folder}: run {number} of {len(names)} ({name}) is not trained yet; torchstone train … --resume goes on")
    return [folder / name for name in names]


def snapshot_folders(run: Path) -> list[Path]:
    """The checkpoints that a run keeps as its snapshots, oldest first. Raises UserError where there are none."""
    found = []
    for pointer in store.list_pointers(run / CHECKPOINTS, SNAPSHOT).values():
        name = store.pointed(pointer, STEP)
        if name is None or not (run / CHECKPOINTS / name).is_dir():
            raise UserError(f"{pointer}: names no checkpoint")
        found.append(run / CHECKPOINTS / name)
    if not found:
        raise UserError(f"{run}: has no snapshots; train it with run.snapshots=M to keep M checkpoints on the way")
    return found


# --- the model -----------------------------------------------------------------------------------------------------------


def together(several: Sequence[Predictor], where: Path) -> Predictor:
    """One predictor whose outputs are the log of the mean of the members' probabilities.

    Each member has its own preprocessing (of the mean and deviation of its own training samples) and its own temperature; a threshold
    between two classes is the mean of theirs. Raises UserError for members that cannot answer together.
    """
    first = several[0].artifact
    for each in several:
        require_alike(first, each.artifact, each.checkpoint, where)
    transforms = [each.artifact.preprocess.batch for each in several]
    task = first.task
    assert isinstance(task, Classify)
    thresholds = [each.artifact.task.threshold for each in several if isinstance(each.artifact.task, Classify)]
    given = [value for value in thresholds if value is not None]
    threshold = sum(given) / len(given) if len(given) == len(several) else None
    artifact = replace(
        first,
        task=replace(task, temperature=1.0, views="one", threshold=threshold),
        preprocess=replace(first.preprocess, batch=()),
    )
    model = Members([each.model for each in several], [each.artifact.task for each in several])  # type: ignore[misc]
    places = tuple(each.checkpoint for each in several)
    for_each = ForEach(members=tuple(transforms))
    return Predictor(
        artifact=artifact, model=model.eval(), device=several[0].device, checkpoint=where, members=places, transforms=(for_each,)
    )


def require_alike(first: Artifact, other: Artifact, checkpoint: Path, where: Path) -> None:
    """Raises UserError where the members do not answer the same question about the same samples."""
    if not isinstance(other.task, Classify):
        raise UserError(f"{where}: probabilities of classes are averaged; the task of {checkpoint} is {type(other.task).__name__.lower()}")
    pairs = {
        "inputs": (first.facts.inputs, other.facts.inputs),
        "classes": (first.facts.classes, other.facts.classes),
        "resizing": ((first.preprocess.sample, first.preprocess.fit), (other.preprocess.sample, other.preprocess.fit)),
        "precision": ((first.precision, first.memory_format), (other.precision, other.memory_format)),
    }
    for what, (one, another) in pairs.items():
        if one != another:
            raise UserError(f"{where}: the {what} of {checkpoint} is not that of the first member, so they cannot answer together")


@dataclass(frozen=True, kw_only=True, slots=True)
class ForEach:
    """A batch's inputs once for each member, through that member's own preprocessing: a tuple of K."""

    train_only: ClassVar[bool] = False

    members: tuple[tuple[BatchTransform, ...], ...]

    def __call__(self, batch: Batch, keys: Int[Tensor, " N"]) -> Batch:
        if len(set(self.members)) == 1:  # snapshots: one preprocessing for all
            return replace(batch, inputs=(through(batch, self.members[0], keys).inputs,) * len(self.members))
        return replace(batch, inputs=tuple(through(batch, transforms, keys).inputs for transforms in self.members))


def through(batch: Batch, transforms: Sequence[BatchTransform], keys: Int[Tensor, " N"]) -> Batch:
    for transform in transforms:
        batch = transform(batch, keys)
    return batch


class Members(nn.Module):
    """K models as one: log of the mean over them of the probabilities that each gives."""

    def __init__(self, models: Sequence[nn.Module], tasks: Sequence[Classify]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.tasks = tuple(tasks)

    def forward(self, inputs: tuple[PyTree, ...]) -> Float[Tensor, "N C"]:
        """One input a member."""
        logs = [
            task.forward(model, each).double().log_softmax(dim=1) for model, task, each in zip(self.models, self.tasks, inputs, strict=True)
        ]
        return (torch.stack(logs).logsumexp(dim=0) - log(len(logs))).float()
