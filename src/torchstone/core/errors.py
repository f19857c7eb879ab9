"""What may go wrong, by who has to act: the user, the machine, or nobody. The command line maps each to an exit code."""

import os
import re
import sys

_ESCAPE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating-system command (window title, link), ended by BEL or ESC \
    r"|\x1b\[[0-?]*[ -/]*[@-~]?"  # control sequence (color, cursor)
    r"|\x1b[ -/]*[0-~]?"  # any other escape
)
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1, but for tab and newline
    r"\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]"  # reordering marks, other line ends, lone surrogates
)
_warned: set[str] = set()


class UserError(ValueError):
    """The user's input was wrong (exit 2). The message is one line: where, what was found, and what would do."""


class Damaged(UserError):
    """A file does not hold what its manifest says."""


class WorkError(RuntimeError):
    """The work itself failed (exit 1): it diverged, memory ran out, a disk filled up."""

    def __init__(self, message: str, finding: str = "") -> None:
        super().__init__(message)
        self.finding = finding
        """What the doctor makes of it; empty where nothing is known."""


class Interrupted(Exception):
    """A signal asked the program to end (exit 128 + `signal`: 130 for Ctrl-C, 143 for SIGTERM)."""

    def __init__(self, signal: int, message: str = "") -> None:
        super().__init__(message or f"interrupted by signal {signal}")
        self.signal = signal


def warn(message: str) -> None:
    """Prints `warning: message` to stderr, once per distinct message; of several ranks, the first one does."""
    if message in _warned or os.environ.get("RANK", "0") != "0":
        return
    _warned.add(message)
    print(f"warning: {clean(message)}", file=sys.stderr, flush=True)


def plural(count: int, noun: str, many: str = "") -> str:
    """
    >>> plural(1, "picture"), plural(2, "picture"), plural(0, "class", "classes")
    ('1 picture', '2 pictures', '0 classes')
    """
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def clean(text: str) -> str:
    """`text` without terminal escapes and control characters (tabs and newlines stay): safe to print whatever file it came from.

    >>> clean("a\\x1b[31mred\\x1b[0m\\x07")
    'ared'
    """
    return _CONTROL.sub("", _ESCAPE.sub("", text))
