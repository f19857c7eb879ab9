"""Fault points: every operation of `core.files` on the disk is counted here, and a test may make the n-th one fail.

By the environment (`TORCHSTONE_FAULT=kill@17`) or, in a forked child, by `arm("kill", 17)`; operations count from 1.

| kind | at the n-th operation |
|---|---|
| kill | the process kills itself (SIGKILL) before it |
| torn | a write: half of it, then SIGKILL; anything else: as kill |
| enospc | a write: half of it, then "No space left on device"; anything else: the error before it |
| eio | "Input/output error" instead of it |
| short | a write: half of it, which is no error to the system; anything else: nothing |
"""

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["kill", "torn", "enospc", "eio", "short"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on the disk, as tests of crashes replay it."""

    number: int
    name: str
    """create, write, fsync, fsync_folder, rename, unlink, truncate, mkdir or rmdir."""
    path: str
    detail: bytes | str | int | None
    """The bytes to be written, the new name, or the length left."""


@dataclass(slots=True)
class _Plan:
    count: int = 0
    kind: Kind | None = None
    number: int = 0
    trace: Callable[[Operation], None] | None = None


def arm(kind: Kind, number: int) -> None:
    """The operation `number`, counted from now on from 1, fails as `kind` says; later ones succeed."""
    if kind not in get_args(Kind) or number < 1:
        raise ValueError(f"a fault is one of {'|'.join(get_args(Kind))} at an operation from 1, got {kind}@{number}")
    _plan.kind, _plan.number, _plan.count = kind, number, 0


def disarm() -> None:
    """No operation fails; the count starts again."""
    _plan.kind, _plan.number, _plan.count = None, 0, 0


def count() -> int:
    """Operations of this process since its start, `arm` or `disarm`."""
    return _plan.count


def trace(observer: Callable[[Operation], None] | None) -> None:
    """`observer` sees every operation before it happens; None ends that."""
    _plan.trace = observer


def point(name: str, path: str, detail: str | int | None = None) -> None:
    """Counts an operation that writes nothing, and fails if it is its turn. Raises OSError or does not return."""
    kind = _turn(name, path, detail)
    if kind is not None and kind != "short":
        _fail(kind, path)


def write(fd: int, data: memoryview, path: str) -> int:
    """`os.write` with a fault point; returns the number of bytes written, which may be less than asked."""
    kind = _turn("write", path, data)
    if kind is None:
        return os.write(fd, data)
    if kind in ("kill", "eio"):
        _fail(kind, path)
    written = os.write(fd, data[: len(data) // 2]) if len(data) > 1 else 0
    if kind != "short":
        _fail(kind, path)
    return written


def _turn(name: str, path: str, detail: memoryview | str | int | None) -> Kind | None:
    _plan.count += 1
    if _plan.trace is not None:
        held = bytes(detail) if isinstance(detail, memoryview) else detail
        _plan.trace(Operation(_plan.count, name, path, held))
    return _plan.kind if _plan.count == _plan.number else None


def _fail(kind: Kind, path: str) -> None:
    if kind in ("kill", "torn"):
        os.kill(os.getpid(), signal.SIGKILL)
    code = errno.EIO if kind == "eio" else errno.ENOSPC
    raise OSError(code, os.strerror(code), path)


def _from_environment(text: str) -> _Plan:
    kind, _, number = text.partition("@")
    if kind not in get_args(Kind) or not number.isdigit() or int(number) < 1:
        raise ValueError(f"TORCHSTONE_FAULT must be {'|'.join(get_args(Kind))}@N with N from 1, got {text!r}")
    return _Plan(kind=kind, number=int(number))  # type: ignore[arg-type]


_plan = _from_environment(os.environ["TORCHSTONE_FAULT"]) if "TORCHSTONE_FAULT" in os.environ else _Plan()
