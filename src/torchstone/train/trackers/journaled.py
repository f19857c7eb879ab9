"""What trackers that write a journal share: an object a line, cut back on a resume, durable before a checkpoint that comes after it."""

from typing import Any

from torchstone.core.journal import Journal


class JournalTracker:
    """Owns a journal until `close`; without one nothing is written."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal

    @property
    def closed(self) -> bool:
        return self._journal is None

    def append(self, line: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.append(line)

    def rewind(self, step: int) -> None:
        """Lines after `step` are cut off, durably."""
        if self._journal is not None:
            self._journal.rewind(lambda line: isinstance(line.get("step"), int) and line["step"] <= step)

    def sync(self) -> None:
        """Returns when the lines are on the disk: for who writes a checkpoint that comes after them."""
        if self._journal is not None:
            self._journal.sync()

    def close(self) -> None:
        if self._journal is not None:
            journal, self._journal = self._journal, None
            journal.close()
