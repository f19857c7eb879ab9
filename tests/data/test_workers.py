"""However a worker fails, the parent gets a WorkError within seconds that names sample, worker and cause, and no process is left."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import pytest
import torch

from torchstone.core.errors import WorkError
from torchstone.data import load

SOURCE = Path(__file__).resolve().parents[2] / "src"
BAD = 13


class TwoArguments(Exception):
    def __init__(self, a: str, b: str) -> None:
        super().__init__(f"{a} and {b}")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def two_arguments() -> None:
    raise TwoArguments("this", "that")


def local_class() -> None:
    class Local(Exception):
        pass

    raise Local("nobody else knows my class")


def with_a_lock() -> None:
    raise ValueError("it holds", threading.Lock())


def mute() -> None:
    raise Mute


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def unpicklable_sample() -> object:
    return lambda: None


class Faulty:
    """Fails at sample BAD in the given way."""

    def __init__(self, fail: Callable[[], object]) -> None:
        self.fail = fail

    def __len__(self) -> int:
        return 64

    def fetch(self, indices: np.ndarray):
        if BAD in indices:
            result = self.fail()
            if result is not None:
                return result, torch.zeros(len(indices))
        return torch.zeros(len(indices), 2), torch.zeros(len(indices))


def batches(split, timeout: float = 60.0, workers: int = 2):
    rows = [[(np.arange(i, i + 4), np.ones(4, dtype=np.float32))] for i in range(0, 64, 4)]
    return load(split, rows, key=0, workers=workers, timeout=timeout)


CASES = {
    "SIGKILL": (kill, r"was killed by SIGKILL \(did memory run out\?\)"),
    "_exit(0)": (lambda: os._exit(0), "ended by itself with exit code 0"),
    "_exit(3)": (lambda: os._exit(3), "ended by itself with exit code 3"),
    "SystemExit": (lambda: sys.exit(5), "SystemExit: 5"),
    "KeyboardInterrupt": (lambda: (_ for _ in ()).throw(KeyboardInterrupt()), "KeyboardInterrupt"),
    "two arguments": (two_arguments, "TwoArguments: this and that"),
    "local class": (local_class, "Local: nobody else knows my class"),
    "unpicklable exception": (with_a_lock, "ValueError: .'it holds'"),
    "exception without words": (mute, "Mute"),
    "unpicklable sample": (unpicklable_sample, "TypeError: a sample is made of tensors"),
    "sleep": (lambda: time.sleep(60), r"was not ready after 2 s; workers = 0"),
}


@pytest.fixture(autouse=True)
def no_process_is_left():
    """Reaped as well as dead: a zombie would still be a child."""
    resource_tracker.ensure_running()  # multiprocessing's own, which spawning starts and which stays
    before = set(children())
    yield
    assert set(children()) <= before
    assert multiprocessing.active_children() == []


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.mark.parametrize("case", CASES)
def test_a_failing_worker_is_an_error_that_names_sample_worker_and_cause(case: str) -> None:
    fail, says = CASES[case]
    started = time.monotonic()
    with pytest.raises(WorkError, match=rf"sample {BAD} \(loader worker 1, pid \d+\) .*{says}"):
        list(batches(Faulty(fail), timeout=2.0 if case == "sleep" else 60.0))
    assert time.monotonic() - started < 50


def test_what_came_before_the_failure_is_delivered() -> None:
    delivered = []
    with pytest.raises(WorkError):
        delivered.extend(update[0].index[0].item() for update in batches(Faulty(two_arguments)))
    assert delivered == [0, 4, 8]


def test_a_worker_that_dies_while_the_parent_is_busy_does_not_disturb_it() -> None:
    """torch's DataLoader raises from a signal handler here, in whatever line the parent is at."""
    loader = batches(Faulty(kill))
    next(loader)
    time.sleep(0.5)
    with pytest.raises(WorkError, match="SIGKILL"):
        list(loader)


def test_an_idle_worker_killed_from_outside() -> None:
    loader = batches(Faulty(lambda: None))
    next(loader)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(WorkError, match="SIGKILL"):
        list(loader)


def test_a_slow_worker_that_moves_on_is_not_stuck() -> None:
    class Slow(Faulty):
        def fetch(self, indices: np.ndarray):
            time.sleep(0.6)
            return super().fetch(indices)

    rows = [[(np.arange(16, 20), np.ones(4, dtype=np.float32))]]
    assert len(list(load(Slow(kill), rows, key=0, workers=1, timeout=2.0))) == 1


def test_samples_of_different_shapes_are_an_error() -> None:
    with pytest.raises(WorkError, match="stack expects each tensor to be equal size"):
        list(batches(Faulty(lambda: torch.zeros(1, 3))))


def fails_in_a_loop_over(loader) -> None:
    for _ in loader:
        raise KeyError


@pytest.mark.parametrize("how", ["close", "drop", "error"])
def test_leaving_early_ends_the_workers_at_once(how: str) -> None:
    started = time.monotonic()
    loader = batches(Faulty(lambda: time.sleep(60)))
    next(loader)
    assert len(multiprocessing.active_children()) == 2
    if how == "close":
        loader.close()
    elif how == "drop":
        del loader
    else:
        with pytest.raises(KeyError):
            fails_in_a_loop_over(loader)
        del loader
    assert multiprocessing.active_children() == []
    assert time.monotonic() - started < 50


def test_a_split_that_cannot_be_sent_to_a_spawned_worker() -> None:
    loader = load(Faulty(lambda: None), [[(np.arange(4), np.ones(4, dtype=np.float32))]], key=0, workers=1, start_method="spawn")
    with pytest.raises(WorkError, match="loader worker 0 could not be started: .*workers = 0 needs none"):
        next(loader)


PROGRAM = """
    import os, signal, sys, time
    import numpy as np, torch
    from torchstone.data import load
    from torchstone.data.splits import TensorSplit

    split = TensorSplit(torch.zeros(640, 2), torch.zeros(640, dtype=torch.int64))
    rows = [[(np.arange(i, i + 4), np.ones(4, dtype=np.float32))] for i in range(0, 640, 4)]
    loader = load(split, rows, key=0, workers=2)
    next(loader)
    import multiprocessing
    print(*[p.pid for p in multiprocessing.active_children()], flush=True)
"""


def run_program(ending: str) -> tuple[subprocess.Popen, list[int]]:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    program = textwrap.dedent(PROGRAM) + ending
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    return process, [int(pid) for pid in process.stdout.readline().split()]


def gone(pids: list[int], within: float = 60.0) -> bool:
    """Dead: absent, or a zombie of whoever adopted it."""

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    until = time.monotonic() + within
    while time.monotonic() < until:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_a_program_that_ends_with_workers_running_ends() -> None:
    process, pids = run_program("sys.exit(7)\n")
    assert process.wait(120) == 7
    assert len(pids) == 2
    assert gone(pids)
    assert process.stderr.read() == ""


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed() -> None:
    process, pids = run_program("os.kill(os.getpid(), signal.SIGKILL)\n")
    assert process.wait(120) == -signal.SIGKILL
    assert len(pids) == 2
    assert gone(pids)


@pytest.mark.slow
def test_a_signal_to_the_group_is_the_parents_to_answer() -> None:
    ending = (
        "for s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, lambda *a: None)\n"
        "os.killpg(0, signal.SIGTERM); os.killpg(0, signal.SIGINT); time.sleep(0.3)\n"
        "sys.exit(len(list(loader)) % 100)\n"
    )
    process, pids = run_program(ending)
    assert process.wait(120) == 59
    assert gone(pids)
