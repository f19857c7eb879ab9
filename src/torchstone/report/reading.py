"""The small files of a run, read so that a missing, torn or hostile one costs its section and nothing else.

Whatever comes out of a file passes one of the checks below (`whole`, `real`, `words`, `table`, `rows`) before it is believed.
"""

import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchstone.core.errors import UserError, clean
from torchstone.core.files import read_text
from torchstone.core.json_text import from_json
from torchstone.core.layout import ARTIFACT, ENVIRONMENT, EXPERIMENT, METRICS

SMALL, LARGE = 1 << 20, 1 << 26
"""Bytes of a file that people write, and of one that may hold a confusion matrix of a thousand classes."""
MOST_DOTS = 256
"""In one line of TOML: tomllib takes quadratic time over a key of many names."""
LARGEST = 2**53
"""Counts beyond it are no counts."""


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What the small files of a run say; an empty table where one is missing."""

    folder: Path
    experiment: dict[str, Any]
    environment: dict[str, Any]
    artifact: dict[str, Any]
    metrics: dict[str, Any]
    problems: tuple[str, ...]
    """A line for each file that could not be read."""

    @property
    def facts(self) -> dict[str, Any]:
        return table(self.artifact.get("facts"))

    @property
    def final(self) -> dict[str, Any]:
        return table(self.metrics.get("final"))

    @property
    def task(self) -> str:
        """Kind of the task: "classify", "language"; empty where nobody says."""
        return kind_of(self.artifact.get("task")) or kind_of(self.experiment.get("task"))

    @property
    def class_count(self) -> int:
        return len(rows(self.facts.get("classes")))

    def classes(self, most: int) -> list[str]:
        """Names of the first `most` classes."""
        return [words(name, 80) or "?" for name in rows(self.facts.get("classes"))[:most]]


def read_run(folder: Path) -> RunFiles:
    """Raises UserError for a folder that holds no run at all."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder; `torchstone runs` lists those under runs/")
    if not any((folder / name).exists() for name in (EXPERIMENT, ARTIFACT)):
        raise UserError(f"{folder}: not a run folder, {EXPERIMENT} and {ARTIFACT} are missing")
    problems: list[str] = []
    return RunFiles(
        folder=folder,
        experiment=read_table(folder / EXPERIMENT, SMALL, parse_toml, problems),
        environment=read_table(folder / ENVIRONMENT, SMALL, from_json, problems),
        artifact=read_table(folder / ARTIFACT, LARGE, from_json, problems),
        # A run that goes on has none yet.
        metrics=read_table(folder / METRICS, LARGE, from_json, problems) if (folder / METRICS).exists() else {},
        problems=tuple(problems),
    )


def read_table(path: Path, limit: int, parse: Callable[[str, str], Any], problems: list[str]) -> dict[str, Any]:
    """The table in a file, empty with a line in `problems` where there is none."""
    try:
        document = parse(read_text(path, limit), path.name)
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error.strerror})")
    except UserError as error:
        problems.append(words(str(error).removeprefix(f"{path.parent}/"), 200))
    else:
        if isinstance(document, dict):
            return document
        problems.append(f"{path.name} holds no table")
    return {}


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """TOML of any shape: the report shows what was written, it does not build it."""
    if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
        raise UserError(f"{source}: a line of it has more than {MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{source}: nested too deep") from None
    except ValueError as error:
        raise UserError(f"{source}: not TOML ({error})") from None


# --- values that nobody vouches for ----------------------------------------------------------------------------------


def whole(value: Any) -> int | None:
    """A count: an integer from 0 to 2^53."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST else None


def real(value: Any) -> float | None:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        return None
    return float(value) if math.isfinite(value) else None


def share(value: Any) -> float | None:
    """A number from 0 to 1."""
    number = real(value)
    return number if number is not None and 0 <= number <= 1 else None


def words(value: Any, most: int = 120) -> str:
    """Text of one line without control characters, cut at `most`; empty for what is no text.

    >>> words("a\\n\\x1b[31mb"), words(3), words("abcdef", 4)
    ('a b', '', 'abc…')
    """
    if not isinstance(value, str):
        return ""
    text = " ".join(clean(value[: 4 * most]).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def kind_of(part: Any) -> str:
    """The kind of a part as it is written in a file."""
    return words(table(part).get("kind"), 60)
