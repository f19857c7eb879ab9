"""Append-only text files, a record a line: log.jsonl and results.csv.

A record is appended by one write, without waiting for the disk (`sync` does that, before a checkpoint names the record). So a
kill leaves at worst an unfinished last line, and a power cut garbage after the last sync. A journal *is* its longest prefix
of good lines: readers stop there, and opening it for writing cuts the rest off. One writer at a time: open it under the
run's `Lock`.
"""

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torchstone.core.errors import UserError, warn
from torchstone.core.files import fsync, fsync_folder, open_descriptor, opened_plain, truncate, write_all
from torchstone.core.json_text import from_json, to_json

Record = Mapping[str, Any]

_LONGEST_LINE = 1 << 20


class LineFormat(Protocol):
    """How a record is one line (without its end)."""

    @property
    def head(self) -> str | None:
        """The first line of the file, if it has one that is no record."""
        ...

    def write(self, record: Record) -> str: ...

    def read(self, line: str) -> dict[str, Any] | None:
        """The record, or None for a line that this format never writes."""
        ...


@dataclass(frozen=True, slots=True)
class JsonLines:
    """An object a line; NaN and infinities are written as null."""

    head: None = None

    def write(self, record: Record) -> str:
        return to_json(record)

    def read(self, line: str) -> dict[str, Any] | None:
        try:
            record = from_json(line, "line")
        except UserError:
            return None
        return record if isinstance(record, dict) else None


@dataclass(frozen=True, slots=True)
class CsvRows:
    """A row a line below a head of column names; a missing or non-finite number is an empty cell, numbers come back as numbers."""

    columns: tuple[str, ...]

    @property
    def head(self) -> str:
        return _csv_line(self.columns)

    def write(self, record: Record) -> str:
        if unknown := set(record) - set(self.columns):
            raise ValueError(f"{sorted(unknown)} are no columns of {list(self.columns)}")
        return _csv_line([_cell(record.get(column)) for column in self.columns])

    def read(self, line: str) -> dict[str, Any] | None:
        try:
            rows = list(csv.reader([line], strict=True))
        except csv.Error:
            return None
        if len(rows) != 1 or len(rows[0]) != len(self.columns):
            return None
        return {column: _value(cell) for column, cell in zip(self.columns, rows[0], strict=True)}


JSON_LINES = JsonLines()


class Journal:
    """A journal open for appending; its unfinished tail is cut off first.

    Raises UserError if the file is something else (other columns, a link, a pipe), OSError if the disk fails.
    """

    def __init__(self, path: Path, lines: LineFormat = JSON_LINES) -> None:
        self.path = path
        self.lines = lines
        is_new = not path.exists()
        self._fd = open_descriptor(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            self._size = _good_end(path, lines)
            self._cut_torn_tail()
            if lines.head is not None and self._size == 0:
                self._append_line(lines.head)
            if is_new:
                fsync_folder(path.parent)
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, record: Record) -> None:
        """Adds a record, in the system's hands at once and on the disk after `sync`. After an error it is not in the journal."""
        self._append_line(self.lines.write(record))

    def rewind(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Cuts the journal back, durably, to before the first record that `keep` refuses."""
        end = 0 if self.lines.head is None else len(self.lines.head.encode()) + 1
        for end_of_line, record in _good_lines(self.path, self.lines):
            if not keep(record):
                break
            end = end_of_line
        self._size = end
        self._cut_torn_tail()
        self.sync()

    def sync(self) -> None:
        """Returns when all that was appended is on the disk."""
        fsync(self._fd, self.path)

    def close(self) -> None:
        os.close(self._fd)

    def _append_line(self, text: str) -> None:
        line = text.encode() + b"\n"
        if len(line) > _LONGEST_LINE:
            raise ValueError(f"{self.path}: a record of {len(line)} bytes; at most {_LONGEST_LINE} fit a line")
        self._cut_torn_tail()
        write_all(self._fd, line, self.path)
        self._size += len(line)

    def _cut_torn_tail(self) -> None:
        """Also heals an append that failed half-way."""
        if os.fstat(self._fd).st_size > self._size:
            truncate(self._fd, self._size, self.path)


def read_journal(path: Path, lines: LineFormat = JSON_LINES) -> Iterator[dict[str, Any]]:
    """The records of a journal, also while another process appends. Holds one line in memory; no file, no records."""
    for _, record in _good_lines(path, lines):
        yield record


def _good_end(path: Path, lines: LineFormat) -> int:
    """Length of the longest good prefix, head included."""
    head = len(lines.head.encode()) + 1 if lines.head is not None and _has_head(path, lines.head) else 0
    end = max((end for end, _ in _good_lines(path, lines)), default=head)
    lost = path.stat().st_size - end
    if lost > _LONGEST_LINE:
        warn(f"{path}: {lost} bytes after the last good line were cut off")
    return end


def _good_lines(path: Path, lines: LineFormat) -> Iterator[tuple[int, dict[str, Any]]]:
    """(offset of the end, record) of each line up to the first bad one."""
    if not path.exists() or (lines.head is not None and not _has_head(path, lines.head)):
        return
    with opened_plain(path) as (fd, _), os.fdopen(fd, "rb", closefd=False) as file:
        if lines.head is not None:
            file.readline(_LONGEST_LINE)
        while (line := file.readline(_LONGEST_LINE)).endswith(b"\n"):
            try:
                record = lines.read(line[:-1].decode())
            except UnicodeDecodeError:
                return
            if record is None:
                return
            yield file.tell(), record


def _has_head(path: Path, head: str) -> bool:
    """Whether the first line is `head`; False for a part of it, which a kill leaves. Any other first line is a UserError."""
    expected = head.encode() + b"\n"
    with opened_plain(path) as (fd, _):
        found = os.read(fd, len(expected))
    if not expected.startswith(found):
        raise UserError(f"{path}: its columns are not {head!r}, or it is another file")
    return found == expected


def _csv_line(cells: list[Any] | tuple[Any, ...]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str):
        text = " ".join(value.split())
        # A spreadsheet runs a cell that begins like a formula.
        return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return ""
    return "" if value is None else value


def _value(cell: str) -> Any:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell or None
