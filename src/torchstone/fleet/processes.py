"""Units on child processes that live as long as the crew: each takes the next unit when it has finished one.

A child that is killed is replaced; its unit goes on from its checkpoint once more, and has failed if its process dies again. When a
signal asks this process to end, the children save at their next step. When this process is killed, they end at once: their runs go on
from their checkpoints.
"""

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from torchstone.core.errors import Interrupted, UserError
from torchstone.fleet.signals import SIGNALS, handled
from torchstone.fleet.unit import Outcome, Unit, ended, train_unit, warm_up

MOST = 256
TRIES = 2
LOOK_EVERY = 0.5
"""Seconds between looks at whether a signal came."""


class Processes:
    """`count` children, started when there is work for them."""

    def __init__(self, count: int) -> None:
        if not 1 <= count <= MOST:
            raise UserError(f"--workers must be from 1 to {MOST}, got {count}")
        self.count = count
        self.children: list[_Child] = []
        self.asked: list[int] = []
        """The signals that came."""
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(handled(lambda number, frame: self.asked.append(number)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for child in self.children:
            child.end(at_once=error is not None)
        self.children = []
        self._open.close()

    def train(self, units: Iterable[Unit]) -> Iterator[Outcome]:
        """The outcome of each unit as it ends. Raises Interrupted, when every child has saved, after a signal."""
        waiting, again, tries = iter(units), list[Unit](), Counter[str]()
        while True:
            yield from self._give(waiting, again, tries)
            busy = [child for child in self.children if child.unit is not None]
            wait([child.connection for child in busy], LOOK_EVERY)
            if self.asked:
                self._stop()
            if not busy:
                return
            for child in busy:
                unit = child.unit
                assert unit is not None
                outcome = child.heard()
                if outcome is None and child.alive():
                    continue
                if outcome is not None:
                    yield outcome
                    continue
                self.children.remove(child)
                if tries[unit.name] < TRIES:
                    again.append(unit)
                else:
                    yield Outcome(unit=unit, status="failed", problem=f"its process {child.died()}, and so did the one that tried again")

    def _give(self, waiting: Iterator[Unit], again: list[Unit], tries: Counter[str]) -> Iterator[Outcome]:
        """Work for everybody who has none; the outcomes of units that are finished already."""
        while not self.asked and sum(child.unit is not None for child in self.children) < self.count:
            unit = again.pop() if again else next(waiting, None)
            if unit is None:
                return
            if (status := ended(unit.folder)) is not None:
                yield Outcome(unit=unit, status=status)
                continue
            child = next((each for each in self.children if each.unit is None and each.alive()), None)
            if child is None:
                self.children = [each for each in self.children if each.unit is not None]
                child = _Child()
                self.children.append(child)
            tries[unit.name] += 1
            child.give(unit)

    def _stop(self) -> None:
        """Every child saves and ends. A second signal does not wait for that."""
        number = self.asked[0]
        for child in self.children:
            child.ask()
        while any(child.unit is not None and child.alive() for child in self.children) and len(self.asked) == 1:
            wait([child.connection for child in self.children], LOOK_EVERY)
            for child in self.children:
                child.heard()
        raise Interrupted(number)


class _Child:
    """One process, seen from here."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), name="torchstone fleet")
        self.process.start()
        theirs.close()
        self.unit: Unit | None = None

    def give(self, unit: Unit) -> None:
        self.unit = unit
        with suppress(OSError):  # it has died: that is seen when it is listened to
            self.connection.send(unit)

    def heard(self) -> Outcome | None:
        """The outcome of its unit, if it has ended it."""
        try:
            message = self.connection.recv() if self.connection.poll() else None
        except (EOFError, OSError):
            self.process.join(5)
            return None
        if message is None:
            return None
        self.unit = None
        return message if isinstance(message, Outcome) else None

    def alive(self) -> bool:
        return self.process.is_alive()

    def died(self) -> str:
        code = self.process.exitcode or 0
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def ask(self) -> None:
        """Asks for the end at the next step."""
        with suppress(OSError, ValueError):
            os.kill(self.process.pid or 0, signal.SIGTERM) if self.process.pid and self.alive() else None

    def end(self, *, at_once: bool) -> None:
        with suppress(OSError):
            self.connection.send(None)
        if not at_once:
            self.process.join(5)
        if self.alive():
            self.process.kill()
        self.process.join()
        self.connection.close()


# --- in the child ----------------------------------------------------------------------------------------------------------


def serve(connection: Connection) -> None:
    """What a child does: trains what it is given until there is no more."""
    os.setpgrp()  # the terminal's Ctrl-C is for the parent, which passes one signal on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ending: list[int] = []

    def end(number: int, frame: Any) -> None:
        ending.append(number)
        if listening:
            raise Interrupted(number)

    listening = False
    for number in SIGNALS:
        signal.signal(number, end)
    warm = False
    while not ending:
        try:
            unit = connection.recv()
        except (EOFError, OSError):
            return
        if unit is None:
            return
        message: Any = "interrupted"
        try:
            listening = True
            if not ending:
                if not warm:
                    warm_up(unit)
                    warm = True
                message = train_unit(unit)
        except Interrupted:
            ending.append(signal.SIGTERM)
        finally:
            listening = False
        with suppress(OSError):
            connection.send(message)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
