"""Units one after the other in this process."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from torchstone.core.errors import Interrupted
from torchstone.fleet.signals import handled
from torchstone.fleet.unit import Outcome, Unit, ended, train_unit, warm_up


class Here:
    """This process; `warm`: it has made a few steps already."""

    def __init__(self, warm: bool = False) -> None:
        self._open = ExitStack()
        self._warm = warm

    def __enter__(self) -> Self:
        def end(number: int, frame: Any) -> None:
            raise Interrupted(number)

        self._open.enter_context(handled(end))  # between trainings: a training itself saves first
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def train(self, units: Iterable[Unit]) -> Iterator[Outcome]:
        """The outcome of each unit as it ends. Raises Interrupted after a checkpoint when a signal asked for the end."""
        for unit in units:
            if not self._warm and ended(unit.folder) is None:
                self._warm = True
                warm_up(unit)
            yield train_unit(unit)
