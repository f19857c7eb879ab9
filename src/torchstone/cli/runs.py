"""`torchstone runs`: a table of the runs in a folder. Reads names and small files alone, and survives whatever is half-written."""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchstone.cli import output
from torchstone.cli.parsing import Parser, add_json
from torchstone.core.errors import UserError
from torchstone.core.files import PARTIAL, read_text
from torchstone.core.json_text import from_json

HELP = "a table of the runs in a folder"
EXAMPLES = """  torchstone runs
  torchstone runs runs/digits --json"""

DEEPEST = 3
"""Folders below the given one that are looked into."""
OVER = ("done", "stopped", "diverged", "interrupted")


def add(parser: Parser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", nargs="?", default=Path("runs"), help="where to look (runs)")
    add_json(parser, "a list of runs")


def run(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder
    if not folder.is_dir():
        if folder.exists() or folder != Path("runs"):
            raise UserError(f"{folder}: no such folder")
        found = []
    else:
        found = sorted(map(described, run_folders(folder)), key=lambda row: row["changed"], reverse=True)
    if arguments.json:
        output.say_json(found)
        return output.DONE
    if not found:
        output.say(f"no runs in {folder}; `torchstone train digits` makes one")
        return output.DONE
    header = ("run", "recipe", "status", "metric", "steps", "age")
    rows = [[row["run"], row["recipe"], row["status"], metric(row), output.number(row["steps"]), age(row["changed"])] for row in found]
    for line in output.table([header, *rows]):
        output.say(line)
    return output.DONE


def run_folders(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Folders that hold an experiment.toml, nearest first; nothing inside a run, nothing unfinished, no links."""
    if (folder / "experiment.toml").is_file():
        yield folder
        return
    if depth >= DEEPEST:
        return
    try:
        entries = sorted((entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith((PARTIAL, ".")):
            yield from run_folders(Path(entry.path), depth + 1)


def described(run: Path) -> dict[str, Any]:
    """What is known of a run; whatever cannot be read is left out."""
    metrics = object_in(run / "metrics.json")
    final, best = (value if isinstance(value := metrics.get(name), dict) else {} for name in ("final", "best"))
    status = metrics.get("status")
    name = best.get("selected_by") if isinstance(best.get("selected_by"), str) else next((name for name in final if name != "loss"), None)
    value = final.get(name) if name is not None else None
    steps = metrics.get("steps")
    return {
        "run": output.short(run),
        "recipe": run.absolute().parent.name,
        "status": "running" if held(run) else status if status in OVER else "damaged" if not whole(run) else "unfinished",
        "metric": name,
        "value": value if isinstance(value, int | float) else None,
        "steps": steps if isinstance(steps, int) else newest_step(run),
        "changed": changed(run),
    }


def object_in(path: Path) -> dict[str, Any]:
    try:
        document = from_json(read_text(path), str(path))
    except (OSError, UserError):
        return {}
    return document if isinstance(document, dict) else {}


def whole(run: Path) -> bool:
    return bool(object_in(run / "artifact.json"))


def held(run: Path) -> bool:
    """A process of this machine that is alive has the run's lock. Reads the lock's file and never takes it."""
    holder = object_in(run / ".lock")
    pid, boot = holder.get("pid"), holder.get("boot")
    try:
        here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        here = ""
    if not isinstance(pid, int) or pid <= 0 or (boot and here and boot != here):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def newest_step(run: Path) -> int | None:
    """The step of the newest checkpoint, by its name."""
    try:
        names = [entry.name.removeprefix("step-") for entry in os.scandir(run / "checkpoints") if entry.name.startswith("step-")]
    except OSError:
        return None
    return max((int(name) for name in names if name.isdecimal() and len(name) < 19), default=None)


def changed(run: Path) -> float:
    """Seconds since 1970 of the last change to one of its files."""
    times = []
    for name in ("experiment.toml", "metrics.json", "results.csv", "log.jsonl", "checkpoints"):
        try:
            times.append((run / name).stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


def metric(row: dict[str, Any]) -> str:
    return f"{row['metric']} {output.number(row['value'])}" if row["value"] is not None else "-"


def age(when: float) -> str:
    seconds = max(0.0, time.time() - when)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
