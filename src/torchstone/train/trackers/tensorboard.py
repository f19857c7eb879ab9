"""TensorBoard event files of a run: `tensorboard --logdir runs`.

Written by `torch.utils.tensorboard`, in a thread of its own, so these files are the one thing in a run folder that does not go through
`core/files`: nothing reads them back, and a run is complete without them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torchstone.core.protocols import Evaluation, StepReport
from torchstone.train.trackers.reading import Pace, number


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorBoard:
    """Scalars as TensorBoard event files under tensorboard/."""

    every: int = 10
    """Updates between two points of the training curves."""

    neutral: ClassVar["TensorBoard"]

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"TensorBoard.every must be >= 1, got {self.every}")

    def open(self, folder: Path) -> "TensorBoardTracker":
        """The tracker of one run; event files go to `folder`/tensorboard."""
        return TensorBoardTracker(folder / "tensorboard", self.every)


TensorBoard.neutral = TensorBoard()


class TensorBoardTracker:
    """Opens its event file with the first number, so that `rewind` can still say where the curves go on."""

    def __init__(self, folder: Path, every: int) -> None:
        self._folder = folder
        self._pace = Pace(every)
        self._purge: int | None = None
        self._writer: Any = None

    def start(self, run: Mapping[str, Any]) -> None:
        pass

    def step(self, report: StepReport) -> None:
        if not self._pace.due(report):
            return
        values = {"train/loss": report.loss, "train/norm": report.norm, "train/samples_per_s": self._pace.samples_per_s()}
        self._write(values | {f"numbers/{path}": value for path, value in report.numbers.items()}, report.step)

    def evaluation(self, evaluation: Evaluation) -> None:
        self._write({f"validation/{name}": value for name, value in evaluation.metrics.items()}, evaluation.step)
        if self._writer is not None:
            self._writer.flush()

    def rewind(self, step: int) -> None:
        """Points after `step` disappear from the curves: TensorBoard drops them when it meets the new file."""
        self.close()
        self._purge = step + 1

    def sync(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, values: Mapping[str, Any], step: int) -> None:
        """One event for all values: a third of the time of one event each (`SummaryWriter.add_scalar`)."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        finite = {name: value for name, value in ((name, number(value)) for name, value in values.items()) if value is not None}
        if finite:
            points = [Summary.Value(tag=name, simple_value=value) for name, value in finite.items()]
            self._opened().add_summary(Summary(value=points), step)

    def _opened(self) -> Any:
        if self._writer is None:
            # Imported here: it takes a sixth of a second, and a run without this tracker need not wait for it.
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
            from torch.utils.tensorboard.writer import FileWriter

            self._writer = FileWriter(str(self._folder), flush_secs=10)
            if self._purge is not None:
                self._writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)), self._purge)
        return self._writer
