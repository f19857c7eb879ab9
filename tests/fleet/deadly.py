"""Data that end the process that opens them, as the system does when memory runs out: importable where a child unpickles them."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torchstone.core.protocols import Splits
from torchstone.data import Digits


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadly:
    """The digits, for who survives: the first `deaths` openings outside the parent kill their process."""

    neutral: ClassVar[None] = None
    neutral_reason: ClassVar[str] = "a test's"

    counter: str
    """A file that grows by a byte an opening."""
    parent: int
    deaths: int = 1

    def open(self) -> Splits:
        if os.getpid() != self.parent:
            with Path(self.counter).open("ab") as file:
                file.write(b"x")
            if Path(self.counter).stat().st_size <= self.deaths:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
        return Digits().open()
