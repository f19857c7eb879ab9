"""A run as its files tell it: log.jsonl, results.csv, probes.jsonl, metrics.json, experiment.toml, artifact.json."""

import csv
import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from torchstone.core import files, layout
from torchstone.core.errors import UserError
from torchstone.core.journal import read_journal
from torchstone.core.json_text import from_json

LOG, RESULTS = "log.jsonl", "results.csv"
TAIL = 0.2
"""The share of a run's steps that is its end."""


@dataclass(frozen=True)
class Watched:
    """One run folder, read as far as it goes: what is missing is empty."""

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / layout.EXPERIMENT).is_file():
            raise UserError(f"{self.folder}: no run ({layout.EXPERIMENT} is missing)")

    @cached_property
    def experiment(self) -> dict[str, Any]:
        """experiment.toml as tables."""
        try:
            return tomllib.loads(files.read_text(self.folder / layout.EXPERIMENT, limit=1 << 20))
        except ValueError as error:
            raise UserError(f"{self.folder / layout.EXPERIMENT}: no TOML ({error})") from None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return self._document(layout.METRICS)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What was known of the data."""
        return self._document(layout.ARTIFACT).get("facts", {})

    @cached_property
    def fingerprint(self) -> str:
        return str(self.facts.get("fingerprint", ""))

    @property
    def status(self) -> str:
        return str(self.metrics.get("status", ""))

    @cached_property
    def looks(self) -> list[dict[str, Any]]:
        """The lines of probes.jsonl but for the origin."""
        return [line for line in read_journal(self.folder / layout.PROBES) if "layers" in line]

    @cached_property
    def origin(self) -> dict[str, Any] | None:
        """{"step", "origin"}: where the number came from that ended the run."""
        return next((line for line in read_journal(self.folder / layout.PROBES) if "origin" in line), None)

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl that are updates."""
        return [line for line in read_journal(self.folder / LOG) if "loss" in line]

    @cached_property
    def losses(self) -> list[tuple[int, float]]:
        """(step, training loss), finite ones, from the log and the looks."""
        known = {line["step"]: line["loss"] for line in [*self.looks, *self.log] if line.get("loss") is not None}
        return sorted(known.items())

    @cached_property
    def evaluations(self) -> list[tuple[int, dict[str, float]]]:
        """(step, metrics) of every evaluation."""
        path = self.folder / RESULTS
        if not path.is_file():
            return []
        rows = csv.DictReader(files.read_text(path).splitlines())
        return [(int(row["step"]), numbers(row)) for row in rows if (row.get("step") or "").isdigit()]

    @property
    def validation(self) -> list[tuple[int, float]]:
        """(step, validation loss)."""
        return [(step, metrics["loss"]) for step, metrics in self.evaluations if "loss" in metrics]

    @property
    def start(self) -> float | None:
        """The training loss before the first update."""
        return self.losses[0][1] if self.losses else None

    @property
    def end(self) -> float | None:
        """The training loss at the end: the median of its last fifth."""
        tail = last_part(self.losses)
        return median(loss for _, loss in tail) if tail else None

    def setting(self, path: str) -> Any:
        """What experiment.toml says at a dotted path; None where it says nothing."""
        value: Any = self.experiment
        for name in path.split("."):
            if not isinstance(value, dict) or name not in value:
                return None
            value = value[name]
        return value

    def kinds(self, path: str) -> list[str]:
        """The kinds of the parts in a list of the experiment."""
        value = self.setting(path)
        return [part.get("kind", "") for part in value if isinstance(part, dict)] if isinstance(value, list) else []

    def by_layer(self, name: str, looks: Sequence[dict[str, Any]] | None = None) -> dict[str, float]:
        """The median over the looks of a number of each layer, in the order of depth; layers that never had one are left out."""
        looks = self.looks if looks is None else looks
        return medians((look["layers"]["name"], look["layers"][name]) for look in looks)

    @property
    def updates(self) -> list[float]:
        """|update| / |weights| of the middle layer at each look that has one."""
        return [median(known) for look in self.looks if (known := [r for r in look["layers"]["update"] if r is not None])]

    def off(self, kinds: Callable[[str], bool]) -> dict[str, float]:
        """The share of dead or saturated units of each activation of these kinds, the median of the last three looks."""
        labelled = []
        for look in self.looks[-3:]:
            seen = look["activations"]
            rows = [(f"{n} {k}", off) for n, k, off in zip(seen["name"], seen["kind"], seen["off"], strict=True) if kinds(k)]
            labelled.append(([name for name, _ in rows], [off for _, off in rows]))
        return medians(labelled)

    def _document(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        document = from_json(files.read_text(path), str(path)) if path.is_file() else {}
        return document if isinstance(document, dict) else {}


def medians(pairs: Any) -> dict[str, float]:
    """(names, values) of several looks as name -> median of what is a number."""
    found: dict[str, list[float]] = {}
    for names, values in pairs:
        for name, value in zip(names, values, strict=True):
            if value is not None:
                found.setdefault(name, []).append(value)
    return {name: median(values) for name, values in found.items()}


def last_part(points: Sequence[tuple[int, float]], share: float = TAIL) -> list[tuple[int, float]]:
    """The points in the last `share` of the steps; at least three where there are."""
    if not points:
        return []
    since = points[-1][0] - share * (points[-1][0] - points[0][0])
    return [point for place, point in enumerate(points) if point[0] >= since or place >= len(points) - 3]


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """The cells that are finite numbers."""
    found = {}
    for name, cell in row.items():
        try:
            value = float(cell)
        except (TypeError, ValueError):
            continue
        if math.isfinite(value):
            found[name] = value
    return found
