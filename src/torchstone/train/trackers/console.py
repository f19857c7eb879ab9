"""Progress for a person: one live line on a terminal, a line now and then anywhere else.

Everything goes to stderr, so that stdout stays what `--json` promises. No color and no cursor control but the carriage return
(NO_COLOR has nothing to switch off); names that came from a file are stripped of terminal escapes.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar, Protocol

from torchstone.core.errors import clean
from torchstone.core.protocols import Evaluation, StepReport

SHOWN = 3
"""Metrics of an evaluation that fit on a line; the others are in results.csv and in the report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Console:
    """Step, loss, metric, speed and time left, on stderr."""

    every_seconds: float = 0.2
    """Seconds between two changes of the live line on a terminal."""
    plain_every_seconds: float = 10.0
    """Seconds between two lines where stderr is no terminal (a file, a pipe, CI)."""

    neutral: ClassVar["Console"]

    def __post_init__(self) -> None:
        for name in ("every_seconds", "plain_every_seconds"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"Console.{name} must be >= 0, got {getattr(self, name)}")

    def open(self, folder: Path) -> "ConsoleTracker":
        """The tracker of one run; `folder` is not touched."""
        stream = sys.stderr
        live = bool(stream and stream.isatty()) and os.environ.get("TERM") != "dumb"
        return ConsoleTracker(stream, live=live, every=self.every_seconds if live else self.plain_every_seconds)


Console.neutral = Console()


class Stream(Protocol):
    """What the console writes to."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


class ConsoleTracker:
    """Writes progress to one stream. A stream that fails goes silent; training does not end for it."""

    def __init__(self, stream: Stream | None, *, live: bool, every: float) -> None:
        self._stream = stream
        self._live = live
        self._every = every
        self._total = 0
        self._shown = 0  # width of the live line on the screen
        self._metric = ""
        self._start_step = 0
        self._start = self._last = perf_counter()
        self._next = self._start + (0.0 if live else every)
        self._samples = 0

    def start(self, run: Mapping[str, Any]) -> None:
        """Reads `total` (updates in all; 0: unknown) and `step` (updates done before: a resumed run)."""
        self._total = int(run.get("total", 0))
        self._start_step = int(run.get("step", 0))
        self._start = self._last = perf_counter()

    def step(self, report: StepReport) -> None:
        self._samples += report.samples
        now = perf_counter()
        if now < self._next:
            return
        self._next = now + self._every
        speed = self._samples / max(now - self._last, 1e-9)
        self._last, self._samples = now, 0
        words = [f"step {report.step}" + (f"/{self._total}" if self._total else ""), f"loss {float(report.loss):.4f}"]
        words += [self._metric] if self._metric else []
        words += [f"{speed:,.0f} samples/s"]
        done = report.step - self._start_step
        if self._total and done > 0:
            words.append(f"{clock((now - self._start) / done * max(0, self._total - report.step))} left")
        self._progress("  ".join(words))

    def evaluation(self, evaluation: Evaluation) -> None:
        pairs = [f"{name_of(name)} {value:.4f}" for name, value in evaluation.metrics.items() if isinstance(value, int | float)]
        self._metric = next((pair for pair in pairs if not pair.startswith("loss ")), "")
        of = f"/{self._total}" if self._total else ""
        self._line("  ".join([f"step {evaluation.step}{of}", "validation", *pairs[:SHOWN]]))

    def rewind(self, step: int) -> None:
        """What was shown stays shown."""

    def sync(self) -> None:
        """Every line is out at once."""

    def close(self) -> None:
        if self._shown:
            self._write("\n")
            self._shown = 0

    def _progress(self, text: str) -> None:
        """Shows `text` in place of the live line; the cursor waits at its start, so that a warning never joins it."""
        if not self._live:
            self._line(text)
            return
        text = text[: max(20, shutil.get_terminal_size().columns - 1)]
        self._write(text.ljust(self._shown) + "\r")
        self._shown = len(text)

    def _line(self, text: str) -> None:
        """Prints a line that stays."""
        self._write(text.ljust(self._shown) + "\n")
        self._shown = 0

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # closed pipe, closed file
            self._stream = None


def name_of(name: str) -> str:
    """A metric's name as the terminal may show it: one line, no escapes."""
    return " ".join(clean(name).split())


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(59.6), clock(3725)
    ('1:00', '1:02:05')
    """
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
