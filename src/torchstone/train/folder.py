"""The run folder: made whole under a temporary name, held by one process at a time, never overwritten."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchstone.core import files
from torchstone.core.errors import UserError
from torchstone.core.layout import ARTIFACT, CHECKPOINTS, EXPERIMENT, METRICS, VERSION


def create(out: Path | None, default: Path, contents: Mapping[str, str], *, checkpoints: bool = True) -> Path:
    """A new run folder with `contents` (file name -> text) inside: `out` itself, or `default` with -2, -3 ... where it is taken.

    Without `checkpoints`: a folder around several runs.
    Raises UserError when `out` exists.
    """

    def fill(folder: Path) -> None:
        for name, text in contents.items():
            files.write_new(folder / name, text.encode())
        if checkpoints:
            files.make_folder(folder / CHECKPOINTS)

    if out is not None:
        if out.exists():
            raise UserError(f"--out {out}: it exists already; choose another folder, or go on with that run by --resume")
        files.new_folder(out, fill)
        return out
    number = 1
    while True:
        folder = default if number == 1 else default.with_name(f"{default.name}-{number}")
        if not folder.exists():
            try:
                files.new_folder(folder, fill)
                return folder
            except UserError:
                pass  # another process took the name in between
        number += 1


def require_run(folder: Path) -> None:
    """Raises UserError when the folder is not a whole run of this version."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder; `torchstone runs` lists those under runs/")
    for name in (EXPERIMENT, ARTIFACT):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: not a run folder, {name} is missing")
    version = read_json(folder / ARTIFACT).get("version")
    if version != VERSION:
        raise UserError(f"{folder}: written by another version of torchstone (layout {version}, this one reads {VERSION})")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the run.

    Raises UserError naming the file when it is not one.
    """
    try:
        document = json.loads(files.read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: a JSON object is expected, found {type(document).__name__}")
    return document


def finished(folder: Path) -> str | None:
    """The status in metrics.json if the run is over ("done" or "stopped"), else None."""
    path = folder / METRICS
    status = read_json(path).get("status") if path.exists() else None
    return status if status in ("done", "stopped") else None
