"""What a run folder says of its model: artifact.json, read strictly, and the weights it names, verified bit by bit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from torchstone import data, models, slim, tasks
from torchstone.core import files, store, tree
from torchstone.core.errors import Damaged, UserError, warn
from torchstone.core.json_text import from_json
from torchstone.core.layout import ARTIFACT, CHECKPOINTS, STEP, VERSION
from torchstone.core.protocols import Facts


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocess:
    """What happens to a sample before the model, in prediction as in evaluation."""

    sample: tuple[data.SampleTransform, ...] = ()
    batch: tuple[data.BatchTransform, ...] = ()
    fit: Literal["crop", "stretch", "pad"] = "stretch"
    """How a picture file of another size is brought to the model's, as the run's data were."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Which of the stored weights are the result of the run."""

    checkpoint: Literal["last", "best"]
    file: Literal["model", "average"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """artifact.json: all that prediction needs beside the weights."""

    version: int
    task: tasks.Task
    model: models.Model
    facts: Facts
    preprocess: Preprocess
    precision: Literal["fp32", "bf16", "fp16"]
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    weights: Weights
    transforms: tuple[slim.ModelTransform, ...] = ()
    """What changed the model before training and is part of it (those that are `shipped`)."""
    batch_size: int = 256
    """Samples of one forward in the run's evaluations: the same cut gives the same bits."""
    threads: int | None = None
    """CPU threads of the run."""


def read_artifact(run: Path) -> Artifact:
    """The artifact of a run folder.

    Raises UserError for a folder that is not a run, is half-written, or is of another version.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder; `torchstone runs` lists those under runs/")
    path = run / ARTIFACT
    try:
        document = from_json(files.read_text(path), str(path))
    except FileNotFoundError:
        raise UserError(f"{run}: not a run folder, {ARTIFACT} is missing") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: a JSON object is expected, found {type(document).__name__}")
    if document.get("version") != VERSION:
        raise UserError(f"{run}: written by another version of torchstone (layout {document.get('version')}, this one reads {VERSION})")
    try:
        return tree.decode(Artifact, document)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_weights(run: Path, weights: Weights, checkpoint: Path | None = None) -> tuple[dict[str, Tensor], Path]:
    """The weights that the artifact names, and the checkpoint they come from; those of `checkpoint` where it is given, and no other's.

    A damaged checkpoint is named in a warning and the newest other good one is used. Raises UserError where there is none yet,
    Damaged where none is good.
    """
    damaged: list[str] = []
    for folder in candidates(run, weights.checkpoint) if checkpoint is None else [checkpoint]:
        try:
            store.verify_store(folder)  # all of it: a checkpoint that is damaged anywhere is not trusted
            tensors, _ = store.read_store(folder, only=(weights.file,), finite=(weights.file,))
        except Damaged as error:
            damaged.append(str(error))
            continue
        for problem in damaged:
            warn(f"{problem}; using {folder.name} instead")
        return tensors[weights.file], folder
    if damaged:
        raise Damaged(f"{run}: no good checkpoint is left; {damaged[0]}")
    raise UserError(f"{run}: no checkpoint yet; the run has not reached its first evaluation")


def candidates(run: Path, wanted: str) -> list[Path]:
    """Checkpoint folders in the order they are tried: the one that `wanted` (else `last`) names, then the others, newest first."""
    by_name = {folder.name: folder for folder in reversed(store.list_stores(run / CHECKPOINTS, STEP).values())}
    for pointer in dict.fromkeys((wanted, "last")):
        name = store.pointed(run / CHECKPOINTS / pointer, STEP)
        if name is not None:
            # A name that is no checkpoint here is tried all the same, and refused with its reason.
            return [by_name.pop(name, run / CHECKPOINTS / name), *by_name.values()]
    return list(by_name.values())
