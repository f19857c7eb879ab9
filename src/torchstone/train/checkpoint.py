"""Checkpoints of a run: what is stored, when old ones go, and which one a resumed run trusts.

`checkpoints/step-<n>/` is a verified folder of tensors (`core.store`), written once under a new name; `last` and `best` are text files
that name one.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from torch import Tensor

from torchstone.core import files, store
from torchstone.core.errors import Damaged, UserError, warn
from torchstone.core.layout import CHECKPOINTS as FOLDER
from torchstone.core.layout import SNAPSHOT, STEP
from torchstone.core.protocols import Evaluation
from torchstone.train.precision import LossScale
from torchstone.train.state import Best, TrainState, stored


def save(state: TrainState, run: Path, *, keep: int, facts: dict[str, Any], snapshots: Sequence[int] = ()) -> Path:
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
    settle(state, run, keep=keep, snapshots=snapshots)
    return folder


def settle(state: TrainState, run: Path, *, keep: int, snapshots: Sequence[int] = ()) -> None:
    """Makes `last`, `best` and `snapshot-1`, `snapshot-2` ... (of the steps `snapshots`) name the checkpoints they should, then deletes
    the old ones: what a kill may have left undone."""
    here = {"last": f"step-{state.step}"} | ({"best": f"step-{state.best.step}"} if state.best is not None else {})
    here |= {f"{SNAPSHOT}{number}": f"step-{step}" for number, step in enumerate(snapshots, 1) if step <= state.step}
    for pointer in store.list_pointers(run / FOLDER, SNAPSHOT).values():
        if not (run / FOLDER / here.get(pointer.name, pointer.name) / "manifest.json").exists():  # of a run that had another length
            files.remove_file(pointer)
    for pointer, name in here.items():
        path = run / FOLDER / pointer
        if (run / FOLDER / name).exists() and store.pointed(path, STEP) != name:
            if path.is_dir() and not path.is_symlink():
                files.remove_folder(path)
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
            tensors, numbers = store.read_store(folder, finite=("model", "average", "optimizer"))
            return folder, tensors, checked(numbers, folder / "state.json")
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


def checked(numbers: dict[str, Any], source: Path) -> dict[str, Any]:
    """The numbers of a checkpoint, if they are of the kinds that `TrainState.numbers` writes.

    Raises Damaged naming the file and the entry.
    """
    number, whole, table = (int, float), int, dict
    kinds: dict[str, Any] = {
        "step": whole,
        "updates": whole,
        "skipped": list,
        "loss": number,
        "evaluations": list,
        "best": (table, NoneType),
    }
    kinds |= {"scale": (table, NoneType), "seconds": number, "ending": (str, NoneType), "exactness": table, "fingerprint": str}
    inner: dict[str, Any] = {"best": {"step": whole, "value": number}, "scale": {"scale": number, "good": whole}}
    _require(numbers, kinds, source)
    for name, entries in inner.items():
        if numbers[name] is not None:
            _require(numbers[name], entries, source, f"{name}.")
    for each in numbers["evaluations"]:
        _require(each, {"step": whole, "metrics": table}, source, "evaluations.")
        _require(each["metrics"], dict.fromkeys(each["metrics"], number), source, "evaluations.metrics.")
    _require(dict(enumerate(numbers["skipped"])), dict.fromkeys(range(len(numbers["skipped"])), whole), source, "skipped.")
    if source.parent.name != f"step-{numbers['step']}" or not 0 <= numbers["updates"] <= numbers["step"]:
        raise Damaged(f"{source}: is of step {numbers['step']} with {numbers['updates']} updates, in a folder called {source.parent.name}")
    return numbers


def _require(table: Any, kinds: dict[Any, Any], source: Path, where: str = "") -> None:
    for name, kind in kinds.items():
        if not isinstance(table, dict) or name not in table:
            raise Damaged(f"{source}: {where}{name} is missing")
        if extra := sorted(set(table) - set(kinds)):
            raise Damaged(f"{source}: {where}{extra[0]!r:.40} is not what a checkpoint holds")
        if not isinstance(table[name], kind) or isinstance(table[name], bool):
            raise Damaged(f"{source}: {where}{name} is {table[name]!r:.40}, not what a checkpoint holds there")


def restore(state: TrainState, tensors: dict[str, dict[str, Tensor]], numbers: dict[str, Any], source: Path) -> None:
    """Puts everything that a checkpoint holds into a freshly built state, in place.

    Raises UserError when names or shapes are not those of this model and method.
    """
    for name, module in state.modules().items():
        store.copy_into(stored(module), tensors.get(name, {}), source / f"{name}.safetensors")
    store.copy_into(state.tensors()["optimizer"], tensors.get("optimizer", {}), source / "optimizer.safetensors")
    state.step, state.updates, state.skipped = numbers["step"], numbers["updates"], list(numbers["skipped"])
    state.history.loss = numbers["loss"]
    state.history.evaluations = [Evaluation(each["step"], each["metrics"]) for each in numbers["evaluations"]]
    state.best = None if numbers["best"] is None else Best(numbers["best"]["step"], numbers["best"]["value"])
    state.scale = None if numbers["scale"] is None else LossScale(scale=numbers["scale"]["scale"], good=numbers["scale"]["good"])
    state.seconds, state.ending = numbers["seconds"], numbers["ending"]


def named(run: Path, name: str) -> Path:
    """The folder that `last` or `best` names.

    Raises UserError when there is none.
    """
    pointer = run / FOLDER / name
    target = store.pointed(pointer, STEP)
    if target is None:
        if os.path.lexists(pointer):
            raise UserError(f"{pointer}: names no checkpoint")
        raise UserError(f"{run}: no {name} checkpoint yet; the run has not reached its first evaluation")
    return run / FOLDER / target


def _is_good(folder: Path) -> bool:
    try:
        store.verify_store(folder)
    except Damaged:
        return False
    return True


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
