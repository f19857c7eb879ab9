"""The experiment: the frozen tree that says everything about one training, and the file it is read from."""

from dataclasses import dataclass
from pathlib import Path

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
    try:
        text = files.read_text(path, limit=1 << 20)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return tree.from_toml(Experiment, text, path)
