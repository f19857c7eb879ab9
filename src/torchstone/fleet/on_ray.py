"""Units as tasks of a Ray cluster (https://docs.ray.io). Their folders must lie on a file system that every machine of it sees.

With RAY_ADDRESS, or on a machine that belongs to a cluster, that cluster is used; else one is started here and ended with the crew.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

from torchstone.core.errors import Interrupted, UserError
from torchstone.fleet.signals import handled
from torchstone.fleet.unit import Outcome, Unit, ended, train_unit, warm_up

LOOK_EVERY = 0.5


WARM: list[bool] = []
"""Of a process of Ray, which takes task after task: it has made a few steps already."""


def warm_and_train(unit: Unit) -> Outcome | None:
    """A task; None: it was asked to end, and has saved."""
    try:
        if not WARM and ended(unit.folder) is None:
            WARM.append(True)
            warm_up(unit)
        return train_unit(unit)
    except (Interrupted, KeyboardInterrupt):
        return None


class OnRay:
    """As many tasks at a time as there are `workers`; each asks Ray for as many cores as its run has threads."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise UserError(f"--workers must be 1 or more, got {workers}")
        try:
            import ray  # type: ignore

            self.ray: Any = ray
            self.ray.init  # noqa: B018 - a folder called ray in the working directory is no Ray
        except (ImportError, AttributeError):
            raise UserError("--on ray needs Ray, which is not installed: pip install 'torchstone[ray]'") from None
        self.count = workers
        self.asked: list[int] = []
        self._open = ExitStack()
        self._started = False

    def __enter__(self) -> Self:
        self._started = not self.ray.is_initialized()
        if self._started:
            self.ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        self._open.enter_context(handled(lambda number, frame: self.asked.append(number)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()
        if self._started:
            self.ray.shutdown()

    def train(self, units: Iterable[Unit]) -> Iterator[Outcome]:
        """The outcome of each unit as it ends; Ray tries the unit of a killed process once more. Raises Interrupted after a signal."""
        waiting, running = iter(units), dict[Any, Unit]()
        while True:
            while len(running) < self.count and not self.asked:
                unit = next(waiting, None)
                if unit is None:
                    break
                if (status := ended(unit.folder)) is not None:
                    yield Outcome(unit=unit, status=status)
                    continue
                task = self.ray.remote(num_cpus=unit.experiment.run.threads or 1, max_retries=1)(warm_and_train)
                running[task.remote(unit)] = unit
            if not running and not self.asked:
                return
            done, _ = self.ray.wait(list(running), num_returns=1, timeout=LOOK_EVERY) if running else ([], [])
            for reference in done:
                outcome = self._outcome(reference, running.pop(reference))
                if outcome is not None:
                    yield outcome
            if self.asked:
                self._stop(running)

    def _outcome(self, reference: Any, unit: Unit) -> Outcome | None:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            problem = " ".join(str(error).split())[:300]
            return Outcome(unit=unit, status="failed", problem=f"its task failed twice on Ray: {problem}")

    def _stop(self, running: dict[Any, Unit]) -> None:
        for reference in running:
            with suppress(Exception):
                self.ray.cancel(reference, force=False)
        self.ray.wait(list(running), num_returns=len(running), timeout=60) if running else None
        raise Interrupted(self.asked[0])
