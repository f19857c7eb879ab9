"""The log of a run as curves of a few hundred points, in memory that does not grow with the log.

A curve keeps the mean, the lowest and the highest of equally many records a point; when it is full, neighbors merge. Of a log
of more than FULLY_READ bytes only every k-th update is parsed (and every evaluation): a curve of 400 points cannot show more.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchstone.core.errors import UserError
from torchstone.core.files import opened_plain
from torchstone.core.json_text import from_json
from torchstone.report.reading import real, table, whole, words

MOST_POINTS = 400
FULLY_READ = 1 << 23
LONGEST_LINE = 1 << 20
MOST_NAMES = 12
"""Metrics that are followed; a run has a handful."""


@dataclass(slots=True)
class Point:
    """Some records next to each other."""

    step: float
    mean: float
    low: float
    high: float


@dataclass(slots=True)
class Curve:
    """At most `most` (an even number) points of a sequence of any length."""

    most: int = MOST_POINTS
    points: list[Point] = field(default_factory=list)
    last: float | None = None
    each: int = 1
    """Records of a full point."""
    _open: int = 0
    """Records in the last point."""
    _end: int = -1

    def add(self, step: int, value: float) -> None:
        """A step that is not after the last one is left out: a curve does not run backwards."""
        if step <= self._end:
            return
        self._end, self.last = step, value
        if self._open == 0:
            if len(self.points) == self.most:
                self._merge()
            self.points.append(Point(step, value, value, value))
        else:
            point, n = self.points[-1], self._open
            point.step += (step - point.step) / (n + 1)
            point.mean += (value - point.mean) / (n + 1)
            point.low, point.high = min(point.low, value), max(point.high, value)
        self._open = (self._open + 1) % self.each

    def _merge(self) -> None:
        pairs = zip(self.points[::2], self.points[1::2], strict=True)
        self.points = [Point((a.step + b.step) / 2, a.mean / 2 + b.mean / 2, min(a.low, b.low), max(a.high, b.high)) for a, b in pairs]
        self.each *= 2


@dataclass(slots=True)
class Log:
    """What log.jsonl says."""

    updates: dict[str, Curve] = field(default_factory=lambda: {"loss": Curve(), "lr": Curve(), "norm": Curve()})
    evaluations: dict[str, Curve] = field(default_factory=dict)
    last_step: int = 0
    not_finite: int | None = None
    """The first step whose loss was written as null."""
    problem: str = ""
    """What is wrong with the file, in words."""


def read_log(path: Path) -> Log:
    """The curves up to the first bad line; an unfinished last line is the usual end of a killed run and no problem."""
    log = Log()
    try:
        for record in records(path, log):
            step = whole(record.get("step"))
            if step is None:
                continue
            log.last_step = max(log.last_step, step)
            if "eval" in record:
                add_evaluation(log, step, table(record["eval"]))
            else:
                add_update(log, step, record)
    except FileNotFoundError:
        log.problem = ""
    except (OSError, UserError) as error:
        log.problem = words(f"{path.name} cannot be read: {error}", 200)
    return log


def add_update(log: Log, step: int, record: dict[str, Any]) -> None:
    for name, curve in log.updates.items():
        value = real(record.get(name))
        if value is not None:
            curve.add(step, value)
        elif name == "loss" and log.not_finite is None:
            log.not_finite = step


def add_evaluation(log: Log, step: int, metrics: dict[str, Any]) -> None:
    for name, found in metrics.items():
        value, name = real(found), words(name, 60)
        if value is None or not name or (name not in log.evaluations and len(log.evaluations) >= MOST_NAMES):
            continue
        log.evaluations.setdefault(name, Curve()).add(step, value)


def records(path: Path, log: Log) -> Iterator[dict[str, Any]]:
    """The records worth parsing, one line in memory at a time."""
    with opened_plain(path) as (fd, size), os.fdopen(fd, "rb", closefd=False) as file:
        every = max(1, size // FULLY_READ)
        number = 0
        while (line := file.readline(LONGEST_LINE)).endswith(b"\n"):
            number += 1
            if (number - 1) % every and b'"eval"' not in line:
                continue
            record = parsed(line)
            if record is None:
                log.problem = f"{path.name}, line {number:,}: no record of a run; what follows it is not shown"
                return
            yield record


def parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = from_json(line.decode(), "line")
    except (UserError, UnicodeDecodeError):
        return None
    return record if isinstance(record, dict) else None
