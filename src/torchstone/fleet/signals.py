"""Signals of a program that trains many units: what ends one training must end them all, and be told."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def handled(handle: Callable[[int, Any], Any]) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to `handle` inside. Outside the main thread nothing is caught."""
    try:
        previous = {number: signal.signal(number, handle) for number in SIGNALS}
    except ValueError:  # not the main thread: the caller's program handles its signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
