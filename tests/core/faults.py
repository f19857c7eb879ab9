"""What crash tests share: run a piece of work in a forked child with a fault armed, or in this process."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torchstone.core import fault
from torchstone.core.fault import Kind

ERRORS: tuple[Kind, ...] = ("enospc", "eio")
DEATHS: tuple[Kind, ...] = ("kill", "torn")


def operations(work: Callable[[], object]) -> int:
    """How many operations on the disk `work` makes."""
    fault.disarm()
    work()
    made = fault.count()
    fault.disarm()
    return made


@contextmanager
def armed(kind: Kind, number: int) -> Iterator[None]:
    fault.arm(kind, number)
    try:
        yield
    finally:
        fault.disarm()


def dies(work: Callable[[], object], kind: Kind, number: int) -> bool:
    """Whether `work`, in a child with the fault armed, is killed; False if it ends by itself. Any other end is a failure."""
    pid = os.fork()
    if pid == 0:
        try:
            fault.arm(kind, number)
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False
