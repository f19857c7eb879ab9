"""Ctrl-C and SIGTERM ask for an end at the next step; a second one ends at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Request:
    """What arrived since the training began."""

    signal: int | None = None


@contextmanager
def listening() -> Iterator[Request]:
    """Turns the first signal into a request; handlers are put back at the end. Outside the main thread nothing is caught."""
    request = Request()

    def handle(number: int, frame: object) -> None:
        request.signal = number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL if each == signal.SIGTERM else signal.default_int_handler)

    try:
        previous = {number: signal.signal(number, handle) for number in SIGNALS}
    except ValueError:  # not the main thread: the caller's program handles its signals
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
