"""A piece of work on hostile input, in a forked child with little memory, small files and little time; and the one oracle:
refused with one line that names the input, nothing written, no child left, no memory taken."""

import hashlib
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401 - what counts operations loads it: here, so that no child has to

from torchstone.cli.main import main

MEMORY = 2 << 30
"""Address space beyond what the child starts with."""
LARGEST_FILE = 1 << 22
SECONDS, PATIENCE = 10, 240
"""Of the processor; and by the clock, whatever else the machine does."""
SAID = ("warning: ", "data: ", "classes: ", "groups: ")
"""How what is said before an error begins."""
MOST_GROWTH = 300 << 20
"""Resident bytes that a refusal may take: a manifest at its limit of 64 MB, parsed."""


@dataclass(frozen=True)
class Outcome:
    code: int
    """The exit code; negative: the signal that killed it."""
    stdout: str
    stderr: str
    grown: int
    """Resident bytes at most, beyond those at the start."""
    children: bool
    """A child of the child was left running."""


def in_child(work: Callable[[], int]) -> Outcome:
    """Runs `work`, which returns an exit code, in a fork under limits."""
    streams = [os.pipe() for _ in range(3)]
    pid = os.fork()
    if pid == 0:
        _limited(work, [write for _, write in streams])
    for _, write in streams:
        os.close(write)
    texts = [_drained(read) for read, _ in streams]  # short ones: a pipe holds 64 KB
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    facts = json.loads(texts[2] or "{}")
    return Outcome(code, texts[0], texts[1], facts.get("grown", 0), facts.get("children", False))


def _limited(work: Callable[[], int], streams: list[int]) -> None:
    code = 99
    try:
        for number, stream in enumerate(streams[:2], start=1):
            os.dup2(stream, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        start = _resident()
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(PATIENCE)
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            left = os.waitpid(-1, os.WNOHANG) is not None
        except ChildProcessError:
            left = False
        os.write(streams[2], json.dumps({"grown": max(0, _resident(peak=True) - start), "children": left}).encode())
    except BaseException:
        os.write(2, traceback.format_exc().encode()[-4000:])
    os._exit(code)


def _resident(peak: bool = False) -> int:
    name = "VmHWM:" if peak else "VmRSS:"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def _drained(fd: int) -> str:
    with os.fdopen(fd, "rb") as pipe:
        return pipe.read().decode(errors="replace")


def command(*words: str | Path) -> Outcome:
    """One command line, as `torchstone …` would run it."""
    return in_child(lambda: main([str(word) for word in words]))


def contents(folder: Path) -> dict[str, Any]:
    """Names, kinds, sizes and times of everything inside; the lock's own file apart."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name != ".lock":
            facts = path.lstat()
            changed = facts.st_mtime_ns if not path.is_dir() else 0
            found[str(path.relative_to(folder))] = (oct(facts.st_mode), facts.st_size if not path.is_dir() else 0, changed)
    return found


def require_refusal(folder: Path, *words: str | Path, names: str, code: int = 2) -> str:
    """Runs the command, whose input is in `folder`, and holds it to the oracle; returns the one line."""
    before = contents(folder)
    outcome = command(*words)
    error = outcome.stderr
    assert outcome.code == code, (outcome.code, error[-3000:])
    lines = error.splitlines()
    assert lines and lines[-1].startswith("error: ") and all(line.startswith(SAID) for line in lines[:-1]), error[-3000:]
    assert names in lines[-1], error
    assert len(error) < 4000 and all(character.isprintable() for character in error.replace("\n", "")), error[:4000]
    assert outcome.stdout == ""
    assert contents(folder) == before
    assert not outcome.children
    assert outcome.grown < MOST_GROWTH, outcome.grown
    return lines[-1]


def forge(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrites a store's manifest with a right digest, as whoever wants to deceive would."""
    document = json.loads((store / "manifest.json").read_text())
    change(document)
    document.pop("digest")
    digest = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    (store / "manifest.json").write_text(json.dumps({**document, "digest": digest}, indent=1))
