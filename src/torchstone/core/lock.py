"""One process at a time in a folder, by `flock`: the system gives the lock back when its holder dies, however it dies."""

import fcntl
import os
import socket
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torchstone.core.errors import UserError, clean
from torchstone.core.files import open_descriptor, truncate, write_all
from torchstone.core.json_text import from_json, to_json

_MOST_BYTES = 4096
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class InUse(UserError):
    """Another process holds the lock; it may well give it back."""


class Lock:
    """The lock of an existing folder, taken at once or refused with a UserError (InUse) that names the holder.

    Forked children do not hold it: they outlive their parent without keeping the folder. Take it on rank 0 only.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._fd: int | None = _take(self.path)
        _held.add(self)

    def release(self) -> None:
        """Gives the lock back; nothing the second time, or in a forked child."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            try:
                truncate(fd, 0, self.path)
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def _forget(self) -> None:
        """In a forked child: closing a copy of the descriptor leaves the parent's lock as it is."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


_held: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _forget_all() -> None:
    for lock in _held:
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)


def _take(path: Path) -> int:
    fd = open_descriptor(path, os.O_RDWR | os.O_CREAT)
    try:
        _flock(fd, path)
        truncate(fd, 0, path)
        write_all(fd, to_json(_holder()).encode(), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _flock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _named(os.pread(fd, _MOST_BYTES, 0))
        raise InUse(f"{path.parent} is in use by {holder}; wait until it ends, or choose another folder") from None
    except OSError as error:
        raise UserError(f"{path.parent}: its file system has no locks ({error.strerror}); choose a folder on a local disk") from None


def _holder() -> dict[str, Any]:
    """Who holds it. The boot id tells a process of before a restart from one of now with the same number."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "boot": _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "",
    }


def _named(content: bytes) -> str:
    try:
        holder = from_json(content, "lock")
        return clean(f"process {holder['pid']} on {holder['host']} since {holder['since']}")
    except (UserError, KeyError, TypeError):
        return "another process"
