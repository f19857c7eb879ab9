"""A unit of work: one experiment and the run folder it fills. What is finished there is never trained again."""

import io
import time
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torchstone.core import files, layout
from torchstone.core.errors import Interrupted, UserError
from torchstone.core.lock import InUse
from torchstone.experiment.running import Trained, train_experiment
from torchstone.experiment.tree import Experiment
from torchstone.experiment.trying import try_out
from torchstone.fleet.memory import reset_peak_memory
from torchstone.train import folder

Status = Literal["done", "stopped", "diverged", "failed"]
OVER = ("done", "stopped", "diverged")
"""How a run may have ended for good; a failed one is tried again by whoever asks for it again."""
PATIENCE = 20.0
"""Seconds to wait for the lock of a run whose holder is just being killed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One training."""

    name: str
    experiment: Experiment
    edits: tuple[str, ...] = ()
    """Applied to the experiment; the run's environment.json says them."""
    folder: Path
    """The run folder, which need not exist."""
    recipe: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a unit ended."""

    unit: Unit
    status: Status
    problem: str = ""
    """Of a diverged or failed one, in one line."""
    seconds: float = 0.0
    """From opening the data to metrics.json; 0 where it was finished before."""
    warnings: tuple[str, ...] = ()


def ended(run: Path) -> Status | None:
    """How the run in this folder ended for good; None: it has not begun, was interrupted, or cannot be read."""
    if not (run / layout.METRICS).is_file():
        return None
    with suppress(UserError):
        status = folder.read_json(run / layout.METRICS).get("status")
        return status if status in OVER else None  # type: ignore[return-value]
    return None


def train_unit(unit: Unit) -> Outcome:
    """Trains the unit here, or goes on with it. Whatever is wrong with it is its outcome; Interrupted passes on."""
    if (status := ended(unit.folder)) is not None:
        return Outcome(unit=unit, status=status)
    started, said = time.perf_counter(), io.StringIO()
    status, problem = "failed", ""
    reset_peak_memory()
    try:
        with redirect_stderr(said):
            status = _patiently(lambda: _trained(unit)).status  # type: ignore[assignment]
    except Interrupted:
        raise
    except Exception as error:
        known = isinstance(error, UserError | OSError | RuntimeError)
        problem = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split()) or type(error).__name__
        status = "diverged" if ended(unit.folder) == "diverged" else "failed"
    warnings = tuple(line.removeprefix("warning: ") for line in said.getvalue().splitlines() if line.startswith("warning: "))
    return Outcome(unit=unit, status=status, problem=problem, seconds=time.perf_counter() - started, warnings=warnings)


def warm_up(unit: Unit) -> None:
    """A few steps that nobody counts: what a process pays once, it pays before its first unit. Errors are the unit's to tell."""
    with suppress(Exception), redirect_stderr(io.StringIO()):
        try_out(unit.experiment, *unit.edits, steps=2)


def _trained(unit: Unit) -> Trained:
    begun = (unit.folder / layout.EXPERIMENT).is_file()
    if not begun:
        files.make_folder(unit.folder.parent)
    return train_experiment(unit.experiment, *unit.edits, out=unit.folder, recipe=unit.recipe, resume=begun)


def _patiently(work: Callable[[], Any]) -> Any:
    """The work, once nobody else holds its folder."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except InUse:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
