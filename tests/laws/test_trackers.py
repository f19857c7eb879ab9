"""Law: trackers read only. Any order of them, any set of them, and none at all train the same weights and leave the same history."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from laws.cases import NOISY, all_tensors, begin, differing, parts_of, raw, ready, run_whole, steady
from torchstone.core.protocols import Evaluation, StepReport
from torchstone.train.loop import fit
from torchstone.train.signals import Request

TRACKERS = [part.cls() for part in parts_of("trackers")]
ORDERS: list[Sequence[Any]] = [
    (),
    *((part,) for part in TRACKERS),
    TRACKERS,
    TRACKERS[::-1],
    *itertools.islice(itertools.permutations(TRACKERS), 5, 24, 9),
]


def outcome(parts: Sequence[Any], folder: Path) -> tuple[Any, ...]:
    folder.mkdir()
    opened = [part.open(folder) for part in parts]
    try:
        for tracker in opened:
            tracker.start({"total": 9, "step": 0, "folder": str(folder)})
        status, state = run_whole(lambda: ready(NOISY), folder, trackers=opened)
    finally:
        for tracker in opened:
            tracker.close()
    return status, {name: raw(tensor) for name, tensor in all_tensors(state).items()}, steady(state)


@pytest.mark.parametrize("order", ORDERS[1:], ids=lambda parts: "+".join(type(part).__name__ for part in parts))
def test_order_and_presence_change_nothing(order: Sequence[Any], tmp_path: Path) -> None:
    assert outcome(order, tmp_path / "with") == outcome((), tmp_path / "without")


def test_each_file_is_the_same_in_any_order(tmp_path: Path) -> None:
    """What one tracker writes does not depend on the others. (Times and speeds do differ.)"""
    for number, order in enumerate((TRACKERS, TRACKERS[::-1])):
        outcome(order, tmp_path / str(number))
    steps = [[line.split(",")[0] for line in (tmp_path / name / "results.csv").read_text().splitlines()] for name in "01"]
    assert steps[0] == steps[1] and len(steps[0]) > 1


class Nosy:
    """Looks at everything it is given and keeps what it can."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def start(self, run: Any) -> None:
        self.seen.append(dict(run))

    def step(self, report: StepReport) -> None:
        self.seen.append(report)

    def evaluation(self, evaluation: Evaluation) -> None:
        self.seen.append(evaluation)

    def rewind(self, step: int) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


def test_what_a_tracker_is_given_is_no_way_into_the_state(tmp_path: Path) -> None:
    """Reports are frozen and hold plain numbers on the CPU; clearing what an evaluation holds does not reach the history's numbers."""
    nosy = Nosy()
    job, state = begin(ready(NOISY), tmp_path)
    fit(job, state, [nosy], Request())
    assert len(nosy.seen) == 12
    for report in nosy.seen:
        if isinstance(report, StepReport):
            assert isinstance(report.loss, float) and isinstance(report.norm, float)
            with pytest.raises(AttributeError):
                report.loss = 0.0  # type: ignore[misc]


def test_a_meddling_tracker_is_seen(tmp_path: Path) -> None:
    """The law fails for one that writes."""

    class Meddler(Nosy):
        def step(self, report: StepReport) -> None:
            if report.step == 2:
                state.updates += 1

    job, state = begin(ready(NOISY), tmp_path)
    fit(job, state, [Meddler()], Request())
    _, honest = run_whole(lambda: ready(NOISY), tmp_path / "honest")
    assert steady(state) != steady(honest)
    assert differing(all_tensors(state), all_tensors(honest)) != []
