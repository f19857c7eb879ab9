"""What the model confuses: the confusion matrix, the most confused pairs, and precision, recall and F1 of each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchstone.report.numbers import percent
from torchstone.report.reading import LARGEST, RunFiles, rows, share, table, whole, words

MOST_SHOWN = 30
"""Classes of a matrix that is drawn; of more, the most confused pairs are listed."""
MOST_PAIRS = {True: 6, False: 25}
"""Pairs listed below a drawn matrix, and instead of one."""
MOST_ROWS = 120
"""Rows of the table of classes; of more classes, the worst and the best are kept."""
BEST_ROWS = 20
WORTH_SAYING = 0.01
"""Share of a class that must be taken for another to be told."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of the test split: row the truth, column what the model said."""

    counts: np.ndarray
    """int64 [C, C]."""
    names: list[str]

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def right(self) -> int:
        return int(np.trace(self.counts))

    @property
    def most_frequent(self) -> float:
        """Share of the most frequent class."""
        return float(self.counts.sum(axis=1).max() / self.total)


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    shade: float
    """0 … 1, of the share of its row; for an error, of its square root, so that a few percent can be seen."""
    right: bool
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """`n` of `of` samples of `truth` were called `said`."""

    truth: str
    said: str
    n: int
    of: int


@dataclass(frozen=True, slots=True)
class ClassRow:
    name: str
    n: int | None
    precision: float | None
    recall: float | None
    f1: float | None
    taken_for: str
    """The class it is most often taken for, and how often, in words."""


@dataclass(frozen=True, slots=True)
class ClassTable:
    rows: tuple[ClassRow, ...]
    """Worst F1 first."""
    left_out: int
    left_out_after: int
    """Rows before the gap."""


def read_confusion(run: RunFiles) -> Confusion | None:
    """The matrix of metrics.json, if it is one: square, of counts, not empty."""
    found = rows(run.final.get("confusion"))
    if not found or any(not isinstance(row, list) or len(row) != len(found) for row in found):
        return None
    # A comparison in C: a thousand classes have a million cells.
    if any(type(n) is not int or not 0 <= n <= LARGEST for row in found for n in row):
        return None
    counts = np.array(found, dtype=np.int64)
    if not 0 < float(counts.sum(dtype=np.float64)) < LARGEST:
        return None
    named = run.class_count == len(found)
    return Confusion(counts, run.classes(len(found)) if named else [str(i) for i in range(len(found))])


def matrix(confusion: Confusion) -> tuple[Row, ...]:
    """The rows to draw; none for more than MOST_SHOWN classes."""
    names = confusion.names
    if len(names) > MOST_SHOWN:
        return ()
    sums = confusion.counts.sum(axis=1)
    return tuple(
        Row(names[i], tuple(cell(int(n), int(sums[i]), names[i], names[j], i == j) for j, n in enumerate(confusion.counts[i])))
        for i in range(len(names))
    )


def cell(n: int, of: int, truth: str, said: str, right: bool) -> Cell:
    part = n / of if of else 0.0
    return Cell(
        text=f"{n:,}" if n else "",
        shade=round(part if right else part**0.5, 3),
        right=right,
        title=f"{truth}, called {said}: {n:,} of {of:,} ({percent(part)})",
    )


def most_confused(confusion: Confusion) -> list[Pair]:
    """The largest errors, by how many samples they hit."""
    errors = confusion.counts.copy()
    np.fill_diagonal(errors, 0)
    sums = confusion.counts.sum(axis=1)
    most = MOST_PAIRS[len(confusion.names) <= MOST_SHOWN]
    pairs = []
    for place in np.argsort(errors, axis=None, kind="stable")[::-1][:most].tolist():
        i, j = divmod(place, len(confusion.names))
        if errors[i, j] > 0:
            pairs.append(Pair(confusion.names[i], confusion.names[j], int(errors[i, j]), int(sums[i])))
    return pairs


def class_table(run: RunFiles, confusion: Confusion | None) -> ClassTable | None:
    """Every class by its F1, worst first, classes without one last."""
    confused = mistaken(confusion) if confusion else {}
    found = [class_row(entry, confused) for entry in map(table, rows(run.final.get("per_class"))) if entry]
    if not found and confusion:
        found = from_confusion(confusion, confused)
    if not found:
        return None
    found.sort(key=lambda row: (row.f1 is None, row.f1 or 0.0))
    if len(found) <= MOST_ROWS:
        return ClassTable(tuple(found), 0, 0)
    kept = MOST_ROWS - BEST_ROWS
    return ClassTable((*found[:kept], *found[-BEST_ROWS:]), len(found) - MOST_ROWS, kept)


def class_row(entry: dict[str, Any], confused: dict[str, str]) -> ClassRow:
    name = words(entry.get("class"), 80) or "?"
    precision, recall, f1 = (share(entry.get(key)) for key in ("precision", "recall", "f1"))
    return ClassRow(name, whole(entry.get("count")), precision, recall, f1, confused.get(name, ""))


def from_confusion(confusion: Confusion, confused: dict[str, str]) -> list[ClassRow]:
    """For a run whose metrics.json has no per-class numbers."""
    right, truth, said = (sums.tolist() for sums in (np.diag(confusion.counts), confusion.counts.sum(axis=1), confusion.counts.sum(axis=0)))
    return [
        ClassRow(
            name,
            truth[i],
            ratio(right[i], said[i]),
            ratio(right[i], truth[i]),
            ratio(2 * right[i], truth[i] + said[i]),
            confused.get(name, ""),
        )
        for i, name in enumerate(confusion.names)
    ]


def ratio(part: int, of: int) -> float | None:
    return part / of if of else None


def mistaken(confusion: Confusion) -> dict[str, str]:
    """Class -> "coat 5 %": what it is most often taken for."""
    errors = confusion.counts.copy()
    np.fill_diagonal(errors, 0)
    sums: Sequence[int] = confusion.counts.sum(axis=1).tolist()
    worst = errors.argmax(axis=1)
    return {
        name: f"{confusion.names[worst[i]]} {percent(float(errors[i, worst[i]]) / sums[i])}"
        for i, name in enumerate(confusion.names)
        if errors[i, worst[i]] >= WORTH_SAYING * max(sums[i], 1)
    }
