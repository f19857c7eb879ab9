"""`log.jsonl`: the run's own record, one JSON object a line.

An update: `{"step": 10, "loss": …, "lr": …, "samples_per_s": …, "norm": …}` and every other scheduled number under its path. An
evaluation: `{"step": 10, "eval": {…}}`. `step` counts the updates made. What is not finite is null.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torchstone.core.journal import Journal
from torchstone.core.protocols import Evaluation, StepReport
from torchstone.train.trackers.journaled import JournalTracker
from torchstone.train.trackers.reading import Pace, number


@dataclass(frozen=True, kw_only=True, slots=True)
class Jsonl:
    """A line every few updates and a line an evaluation, in log.jsonl."""

    every: int = 10
    """Updates between two lines; the first update has one as well."""

    neutral: ClassVar["Jsonl"]

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"Jsonl.every must be >= 1, got {self.every}")

    def open(self, folder: Path) -> "JsonlTracker":
        """The tracker of one run; goes on where `folder`/log.jsonl ends, an unfinished last line cut off."""
        return JsonlTracker(Journal(folder / "log.jsonl"), self.every)


Jsonl.neutral = Jsonl()


class JsonlTracker(JournalTracker):
    """Appends to one journal. Raises OSError where the disk does."""

    def __init__(self, journal: Journal, every: int) -> None:
        super().__init__(journal)
        self._pace = Pace(every)

    def start(self, run: Mapping[str, Any]) -> None:
        pass

    def step(self, report: StepReport) -> None:
        if self.closed or not self._pace.due(report):
            return
        numbers = {path: number(value) for path, value in report.numbers.items()}
        line = {"step": report.step, "loss": number(report.loss), "lr": numbers.pop("optimizer.lr", None)}
        self.append({**line, "samples_per_s": self._pace.samples_per_s(), "norm": number(report.norm), **numbers})

    def evaluation(self, evaluation: Evaluation) -> None:
        self.append({"step": evaluation.step, "eval": {name: number(value) for name, value in evaluation.metrics.items()}})
