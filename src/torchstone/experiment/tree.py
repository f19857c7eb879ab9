"""The experiment: the frozen tree that says everything about one training, and the file it is read from."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchstone import data, models, tasks
from torchstone.core import files, protocols, tree
from torchstone.core.errors import UserError
from torchstone.train.method import Method
from torchstone.train.settings import Run


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


def load_without_own_parts(path: Path) -> tuple[Experiment, tuple[str, ...]]:
    """The same with every seat of the method that holds a class of the user's own left at its default, and the names of those seats: for
    what needs no method, such as an evaluation."""
    text = _text(path)
    try:
        document = tomllib.loads(text)
    except ValueError:
        return tree.from_toml(Experiment, text, path), ()  # which says what is wrong with it
    method = document.get("method", {})
    own = tuple(name for name, value in method.items() if _is_own(value)) if isinstance(method, dict) else ()
    if not own:
        return tree.from_toml(Experiment, text, path), ()
    document["method"] = {name: value for name, value in method.items() if name not in own}
    return tree.decode(Experiment, document, folder=path.absolute().parent), own


def _is_own(value: Any) -> bool:
    return any(map(_is_own, value)) if isinstance(value, list) else isinstance(value, dict) and value.get("kind") == "custom"


def _text(path: Path) -> str:
    try:
        return files.read_text(path, limit=1 << 20)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
