"""The experiment: the frozen tree that says everything about one training, and the file it is read from."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchstone import data, models, tasks
from torchstone.core import files, protocols, tree
from torchstone.core.errors import UserError
from torchstone.train.method import Method
from torchstone.train.settings import Run

PARTS = ("data", "task", "model")
"""What of an experiment is one part each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """Everything about one training."""

    data: data.Source | protocols.Source
    """Where the samples come from."""
    task: tasks.Task
    """What outputs mean."""
    model: models.Model
    """What is trained."""
    method: Method = Method()
    """How it learns."""
    run: Run = Run()
    """How long, on what, how exactly."""


def load_experiment(path: Path) -> Experiment:
    """The experiment that a TOML file says.

    Raises UserError naming the file and the place in it.
    """
    return tree.from_toml(Experiment, _text(path), path)


def load_without_own_parts(path: Path, here: Experiment | None = None) -> tuple[Experiment, tuple[str, ...]]:
    """The same with every seat of the method that holds a class of the user's own left at its default, and the names of those seats: for
    what needs no method, such as an evaluation. `here`: whose data, task and model stand in for classes of the user's own."""
    text = _text(path)
    try:
        document = tomllib.loads(text)
    except ValueError:
        return tree.from_toml(Experiment, text, path), ()  # which says what is wrong with it
    own = own_parts(document)
    if not own:
        return tree.from_toml(Experiment, text, path), ()
    return without_own_parts(document, here, path.absolute().parent), tuple(
        each.removeprefix("method.") for each in own if each.startswith("method.")
    )


def own_parts(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The places of an encoded experiment that hold a class of the user's own: data, task, model, and seats of the method."""
    method = document.get("method")
    seats = {f"method.{name}": value for name, value in method.items()} if isinstance(method, Mapping) else {}
    return tuple(place for place, value in ({name: document.get(name) for name in PARTS} | seats).items() if _is_own(value))


def without_own_parts(document: Mapping[str, Any], here: Experiment | None, folder: Path) -> Experiment:
    """The encoded experiment with the data, task and model of `here` where they are the user's own, and such seats of the method empty."""
    own = own_parts(document)
    method = {name: value for name, value in document.get("method", {}).items() if f"method.{name}" not in own}
    document = {**document, "method": method}
    taken = {name: getattr(here, name) for name in PARTS if name in own} if here is not None else {}
    if not taken:
        return tree.decode(Experiment, document, folder=folder)
    # The rest is decoded with parts of the package in their places.
    usual = {name: {"kind": next(iter(tree.slots_of(Experiment)[name].parts))} for name in taken}
    return replace(tree.decode(Experiment, {**document, **usual}, folder=folder), **taken)


def _is_own(value: Any) -> bool:
    """Whether the encoded value holds a class of the user's own."""
    if isinstance(value, Mapping):
        return value.get("kind") == "custom" or any(map(_is_own, value.values()))
    return isinstance(value, list) and any(map(_is_own, value))


def _text(path: Path) -> str:
    try:
        return files.read_text(path, limit=1 << 20)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
