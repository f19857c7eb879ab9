"""What reaches the terminal: text of the main rank on stdout, one `error: …` line on stderr, and the exit code that goes with it."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from torchstone.core.errors import Interrupted, UserError, WorkError, clean
from torchstone.core.json_text import to_json

DONE, WORK_FAILED, WRONG_INPUT = 0, 1, 2
INTERRUPTED = 128
NARROWEST = 30
"""Columns that a sentence beside a name is given at least."""


def prints() -> bool:
    """This process speaks for all: it is alone, or rank 0 under `torchrun`."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str = "") -> None:
    """A line on stdout, safe for a terminal whatever file its words came from."""
    if prints():
        print(clean(text))


def say_json(document: Any) -> None:
    """The one document of a `--json`."""
    if prints():
        print(to_json(document, indent=2))


def table(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Lines with their columns aligned; the last column is left as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    return [indent + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]


def wrapped(rows: Sequence[tuple[str, str]], indent: str = "") -> list[str]:
    """A table of names and sentences. On a terminal a sentence goes on below its beginning; a pipe gets a line a row, whole."""
    if not sys.stdout.isatty():
        return table(rows, indent)
    name = max((len(name) for name, _ in rows), default=0)
    room = max(NARROWEST, shutil.get_terminal_size().columns - len(indent) - name - 2)
    return [
        line
        for head, sentence in rows
        for line in table([("" if place else head.ljust(name), part) for place, part in enumerate(wrap(sentence, room) or [""])], indent)
    ]


def short(path: Path) -> str:
    """The path from the working directory, where it is inside."""
    absolute = path.absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) and absolute != here else str(path)


def number(value: Any) -> str:
    """A number as a table shows it."""
    if value is None or value != value:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3g}"
    return str(value)


def failed(error: BaseException) -> int:
    """Prints what went wrong, once over all ranks, and returns the exit code."""
    code, message = judged(error)
    message = " ".join(clean(message).split("\n")).strip()
    local = code == WORK_FAILED and (not isinstance(error, WorkError) or error.__cause__ is not None)
    if prints():
        print(f"error: {message}", file=sys.stderr, flush=True)
    elif local:  # what only this rank has met; the rest is said by rank 0
        print(f"error: rank {os.environ['RANK']}: {message}", file=sys.stderr, flush=True)
    return code


def judged(error: BaseException) -> tuple[int, str]:
    """(exit code, message) of whatever a verb raised."""
    torch = sys.modules.get("torch")
    match error:
        case Interrupted():
            return INTERRUPTED + error.signal, str(error)
        case KeyboardInterrupt():
            return INTERRUPTED + 2, "interrupted"
        case WorkError():
            return WORK_FAILED, f"{error}; {error.finding}" if error.finding else str(error)
        case UserError():
            return WRONG_INPUT, str(error)
        case OSError():
            where = f"{error.filename}: " if error.filename is not None else ""
            return WORK_FAILED, f"{where}{error.strerror or error}"
        case MemoryError():
            return WORK_FAILED, "out of memory; try a smaller run.batch_size or run.microbatch_size"
        case _ if torch is not None and isinstance(error, torch.OutOfMemoryError):
            return WORK_FAILED, "the accelerator is out of memory; try a smaller run.microbatch_size, or run.activation_checkpointing=true"
        case ValueError():
            return WRONG_INPUT, str(error)
        case _:
            return WORK_FAILED, f"{type(error).__name__}: {error} (not expected: --debug shows where)"
