"""Worker processes that prepare micro-batches ahead of time, and an error that says why whenever they cannot.

Not torch's DataLoader: its SIGCHLD handler raises in the middle of whatever the program is doing when a worker dies, and what
cannot be pickled hangs it for ever (pytorch#142884). Tensors travel as torch's shared memory. Everything that can fail in a
worker fails inside one `try` there, sending included, and arrives as text; a dead or stuck worker is seen by the parent.
"""

import atexit
import itertools
import multiprocessing
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import numpy as np
import torch

from torchstone.core.errors import WorkError, clean
from torchstone.core.protocols import PyTree

Prepare = Callable[[np.ndarray, Callable[[int], None]], PyTree]
"""(positions, note) -> what to send; calls `note` with each position before it touches that sample."""

AHEAD = 2
"""Micro-batches that a worker has in hand: one in the making, one waiting to be fetched or begun."""
TICK = 0.2
"""Seconds between two looks at whether a silent worker moves on."""
START_LIMIT = 60.0
"""Seconds that a worker may take to start (a spawned one imports torch first)."""


class Workers:
    """A pool for one pass over `map`'s tasks; a context manager, which ends the processes whatever happens."""

    def __init__(self, prepare: Prepare, count: int, *, timeout: float, start_method: str | None = None) -> None:
        context = multiprocessing.get_context(start_method or ("fork" if sys.platform == "linux" else "spawn"))
        self._workers: list[_Worker] = []
        # Before multiprocessing's own exit handler, which sends SIGTERM, ignored here, and waits.
        atexit.register(self.close)
        try:
            for number in range(count):
                self._workers.append(_Worker(number, prepare, context, timeout))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def map(self, tasks: Iterable[np.ndarray]) -> Iterator[PyTree]:
        """What `prepare` makes of each task, in order. Worker i makes tasks i, i + count, ..."""
        tasks = iter(tasks)
        busy: deque[_Worker] = deque()
        for worker, task in zip(itertools.cycle(self._workers), itertools.islice(tasks, AHEAD * len(self._workers)), strict=False):
            worker.send(task)
            busy.append(worker)
        while busy:
            worker = busy.popleft()
            result = worker.receive()
            for task in itertools.islice(tasks, 1):
                worker.send(task)
                busy.append(worker)
            yield result

    def close(self) -> None:
        """Kills and reaps every worker: they hold nothing that would be lost."""
        for worker in self._workers:
            worker.kill()
        self._workers = []
        atexit.unregister(self.close)


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, number: int, prepare: Prepare, context: Any, timeout: float) -> None:
        self.number = number
        self.timeout = timeout
        # (notes so far, last noted sample), in memory that outlives a killed worker.
        self.progress = context.RawArray("q", [0, -1])
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, prepare, self.progress), daemon=True, name=f"torchstone-loader-{number}"
        )
        try:
            self.process.start()
        except Exception as error:
            self.connection.close()
            raise WorkError(f"loader worker {number} could not be started: {told(error)}; workers = 0 needs none") from error
        finally:
            theirs.close()

    def send(self, task: np.ndarray) -> None:
        try:
            self.connection.send(task)
        except OSError as error:
            raise self._died() from error

    def receive(self) -> PyTree:
        self._await_message()
        try:
            failed, result = self.connection.recv()
        except Exception as error:
            if isinstance(error, EOFError | OSError) and wait([self.process.sentinel], 1.0):
                raise self._died() from error
            raise WorkError(f"a batch up to {self._where()} could not be received: {told(error)}") from error
        if failed is not None:
            raise WorkError(f"{self._where(failed)} could not be prepared: {result}")
        return result

    def _await_message(self) -> None:
        """Returns when there is something to read; raises when the worker is dead, or has not moved for too long."""
        notes, moved = self.progress[0], time.monotonic()
        while True:
            ready = wait([self.connection, self.process.sentinel], TICK)
            if self.connection in ready:
                return
            if ready:
                raise self._died()
            if self.progress[0] != notes:
                notes, moved = self.progress[0], time.monotonic()
            limit = self.timeout if notes else max(self.timeout, START_LIMIT)
            if time.monotonic() - moved > limit:
                raise WorkError(f"{self._where()} was not ready after {limit:g} s; workers = 0 shows what it waits for")

    def _died(self) -> WorkError:
        self.process.join(1.0)
        code = self.process.exitcode
        if code is None:
            cause = "closed its connection"
        elif code < 0:
            cause = f"was killed by {signal.Signals(-code).name}" + (" (did memory run out?)" if -code == signal.SIGKILL else "")
        else:
            cause = f"ended by itself with exit code {code}"
        return WorkError(f"{self._where()} could not be prepared: the worker {cause}")

    def _where(self, index: int | None = None) -> str:
        """The worker and a sample of it: the one it is at, if none is given."""
        index = int(self.progress[1]) if index is None else index
        return f"{f'sample {index}' if index >= 0 else 'the first sample'} (loader worker {self.number}, pid {self.process.pid})"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


def told(error: BaseException) -> str:
    """An error as one line of harmless text, even where the error cannot print itself."""
    try:
        text = " ".join(clean(str(error)).split())
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text[:1000]}" if text else type(error).__name__


def _serve(connection: Connection, prepare: Prepare, progress: Any) -> None:
    """The worker's life: it ends when it is killed, or when its parent is gone."""
    # A signal to the whole process group is the parent's to answer: it may need these workers to reach the next step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def note(index: int) -> None:
        progress[1] = index
        progress[0] += 1

    progress[0] += 1
    try:
        while True:
            while not connection.poll(1.0):
                if parent is None or not parent.is_alive():
                    return
            task = connection.recv()
            try:
                connection.send((None, prepare(task, note)))
            except BaseException as error:
                connection.send((progress[1], told(error)))
    except (EOFError, OSError):
        return
