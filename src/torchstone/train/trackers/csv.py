"""`results.csv`: a row an evaluation, for spreadsheets.

The first evaluation makes the columns: `step` and the names of its metrics. What is not finite is an empty cell; text that a
spreadsheet would run as a formula begins with an apostrophe.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torchstone.core.errors import UserError, clean, warn
from torchstone.core.files import read_text, remove_file
from torchstone.core.journal import CsvRows, Journal
from torchstone.core.protocols import Evaluation, StepReport
from torchstone.train.trackers.journaled import JournalTracker
from torchstone.train.trackers.reading import number


@dataclass(frozen=True, kw_only=True, slots=True)
class Csv:
    """A row an evaluation, in results.csv."""

    neutral: ClassVar["Csv"]

    def open(self, folder: Path) -> "CsvTracker":
        """The tracker of one run; goes on where `folder`/results.csv ends, an unfinished last row cut off."""
        return CsvTracker(folder / "results.csv")


Csv.neutral = Csv()


class CsvTracker(JournalTracker):
    """Opens its file with the first evaluation, which knows the columns. Raises OSError where the disk does."""

    def __init__(self, path: Path) -> None:
        self._path, self._columns = path, columns_of(path)
        super().__init__(Journal(path, CsvRows(self._columns)) if self._columns else None)

    def start(self, run: Mapping[str, Any]) -> None:
        pass

    def step(self, report: StepReport) -> None:
        pass

    def evaluation(self, evaluation: Evaluation) -> None:
        row = {column(name): number(value) for name, value in evaluation.metrics.items()}
        if self._journal is None:
            self._columns = ("step", *row)
            self._journal = Journal(self._path, CsvRows(self._columns))
        for name in set(row) - set(self._columns):
            warn(f"{self._path}: no column {name}, the first evaluation had none; the tracker jsonl keeps all")
        self.append({"step": evaluation.step} | {name: value for name, value in row.items() if name in self._columns})


def column(name: str) -> str:
    """A metric's name as the head of a column: one line, and never a formula.

    >>> column("accuracy"), column("=1+1")
    ('accuracy', "'=1+1")
    """
    text = " ".join(clean(name).split())
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def columns_of(path: Path) -> tuple[str, ...]:
    """The columns of an existing table, empty where there is none. A head that a kill left unfinished is deleted: it has no rows."""
    if not path.exists():
        return ()
    head, end, _ = read_text(path).partition("\n")
    if not end:
        remove_file(path)
        return ()
    columns = tuple(next(csv.reader([head]), []))
    if not columns or columns[0] != "step":
        raise UserError(f"{path}: its first line is {clean(head)[:80]!r}, not the columns of a table of results")
    return columns
