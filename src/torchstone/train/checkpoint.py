"""Checkpoints of a run: what is stored, when old ones go, and which one a resumed run trusts.

`checkpoints/step-<n>/` is a verified folder of tensors (`core.store`), written once under a new name; `last` and `best` are text files
that name one.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchstone.core import files, store
from torchstone.core.errors import Damaged, UserError, warn
from torchstone.core.layout import CHECKPOINTS as FOLDER
from torchstone.core.protocols import Evaluation
from torchstone.train.precision import LossScale
from torchstone.train.state import Best, TrainState, stored


def save(state: TrainState, run: Path, *, keep: int, facts: dict[str, Any]) -> Path:
    """Stores all of the state as `step-<n>`, moves `last` (and `best`, if this step is the best), then deletes what is neither
    named nor among the `keep` newest. A good checkpoint of this step that is already there stays as it is.

    `facts` (exactness key, data fingerprint) go into state.json. Raises OSError when the disk refuses; every older checkpoint is then
    untouched.
    """
    folder = run / FOLDER / f"step-{state.step}"
    if folder.exists() and not _is_good(folder):
        files.remove_folder(folder)
    if not folder.exists():
        store.write_store(folder, state.tensors(), {**state.numbers(), **facts})
    settle(state, run, keep=keep)
    return folder


def settle(state: TrainState, run: Path, *, keep: int) -> None:
    """Makes `last` and `best` name the checkpoints they should, then deletes the old ones: what a kill may have left undone."""
    here = {"last": f"step-{state.step}"} | ({"best": f"step-{state.best.step}"} if state.best is not None else {})
    for pointer, name in here.items():
        path = run / FOLDER / pointer
        if (run / FOLDER / name).exists() and not (path.exists() and path.read_text().strip() == name):
            files.write_text(path, name + "\n")
    for folder in [folder for folder in by_age(run) if _step_of(folder) <= state.step][keep:]:
        if folder.name not in here.values():
            files.remove_folder(folder)


def newest_good(run: Path) -> tuple[Path, dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """The newest checkpoint that verifies: (folder, tensors by file, numbers); None if the run has none yet.

    A damaged one is named in a warning and passed over. Raises Damaged when there are checkpoints and none is good.
    """
    damaged = []
    for folder in by_age(run):
        try:
            return folder, *store.read_store(folder)
        except Damaged as error:
            damaged.append(str(error))
            warn(f"{error}; falling back to the checkpoint before it")
    if damaged:
        raise Damaged(f"{run}: no good checkpoint is left; the newest: {damaged[0]}")
    return None


def by_age(run: Path) -> list[Path]:
    """Checkpoint folders, newest step first."""
    found = [folder for folder in (run / FOLDER).glob("step-*") if folder.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=_step_of, reverse=True)


def restore(state: TrainState, tensors: dict[str, dict[str, Tensor]], numbers: dict[str, Any], source: Path) -> None:
    """Puts everything that a checkpoint holds into a freshly built state, in place.

    Raises UserError when names or shapes are not those of this model and method.
    """
    for name, module in state.modules().items():
        _copy_into(stored(module), tensors.get(name, {}), source / f"{name}.safetensors")
    _copy_into(state.tensors()["optimizer"], tensors.get("optimizer", {}), source / "optimizer.safetensors")
    state.step, state.updates, state.skipped = numbers["step"], numbers["updates"], list(numbers["skipped"])
    state.history.loss = _number(numbers["loss"])
    state.history.evaluations = [
        Evaluation(each["step"], {name: _number(value) for name, value in each["metrics"].items()}) for each in numbers["evaluations"]
    ]
    state.best = None if numbers["best"] is None else Best(numbers["best"]["step"], _number(numbers["best"]["value"]))
    state.scale = None if numbers["scale"] is None else LossScale(**numbers["scale"])
    state.seconds, state.ending = numbers["seconds"], numbers["ending"]


def named(run: Path, name: str) -> Path:
    """The folder that `last` or `best` names.

    Raises UserError when there is none.
    """
    pointer = run / FOLDER / name
    try:
        return run / FOLDER / pointer.read_text().strip()
    except OSError:
        raise UserError(f"{run}: no {name} checkpoint yet; the run has not reached its first evaluation") from None


def _copy_into(targets: dict[str, Tensor], values: dict[str, Tensor], source: Path) -> None:
    if targets.keys() != values.keys():
        missing, extra = sorted(targets.keys() - values.keys()), sorted(values.keys() - targets.keys())
        raise UserError(f"{source}: not of this model and method (missing {missing[:3]}, unexpected {extra[:3]})")
    with torch.no_grad():
        for name, target in targets.items():
            if target.shape != values[name].shape:
                raise UserError(f"{source}: {name} has shape {tuple(values[name].shape)}, the model's is {tuple(target.shape)}")
            target.copy_(values[name])


def _is_good(folder: Path) -> bool:
    try:
        store.verify_store(folder)
    except Damaged:
        return False
    return True


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _number(value: Any) -> Any:
    """JSON has no NaN: it is stored as null."""
    return float("nan") if value is None else value
