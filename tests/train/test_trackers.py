"""Trackers write what happened and nothing else: whole lines, finite numbers, the same in any order, cut back on resume."""

import csv
import io
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from torchstone.core.errors import UserError
from torchstone.core.protocols import Evaluation, StepReport, Tracker
from torchstone.train.trackers import Console, Csv, Jsonl, TensorBoard
from torchstone.train.trackers.console import ConsoleTracker
from torchstone.train.trackers.csv import column

NAN, INF = float("nan"), float("inf")
PARTS = (Console(), Jsonl(), Csv(), TensorBoard())


def report(step: int, **changes: object) -> StepReport:
    fields = {"loss": 1 / step, "norm": 0.5, "numbers": {"optimizer.lr": 0.001}, "samples": 64, "seconds": 0.5}
    return StepReport(step=step, **(fields | changes))  # type: ignore[arg-type]


def drive(tracker: Tracker, first: int = 1, last: int = 30) -> None:
    """The calls that a run of `last` updates makes, with an evaluation after every tenth."""
    for step in range(first, last + 1):
        tracker.step(report(step))
        if step % 10 == 0:
            tracker.evaluation(Evaluation(step, {"loss": 1 / step, "accuracy": 1 - 1 / step}))


def lines(folder: Path) -> list[dict]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "log.jsonl").read_text().splitlines()]


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


# --- log.jsonl -------------------------------------------------------------------------------------------------------


def test_jsonl_writes_the_first_update_every_tenth_and_every_evaluation(run_dir: Path) -> None:
    tracker = Jsonl().open(run_dir)
    drive(tracker)
    tracker.close()
    found = lines(run_dir)
    assert [line["step"] for line in found if "loss" in line] == [1, 10, 20, 30]
    assert found[0] == {"step": 1, "loss": 1.0, "lr": 0.001, "samples_per_s": 128.0, "norm": 0.5}
    assert found[2] == {"step": 10, "eval": {"loss": 0.1, "accuracy": 0.9}}


def test_jsonl_counts_speed_over_all_updates_since_the_line_before(run_dir: Path) -> None:
    tracker = Jsonl(every=3).open(run_dir)
    for step, seconds in ((1, 1.0), (2, 1.0), (3, 3.0)):
        tracker.step(report(step, seconds=seconds, samples=8))
    tracker.close()
    assert [line["samples_per_s"] for line in lines(run_dir)] == [8.0, 4.0]


def test_jsonl_names_other_scheduled_numbers_by_their_path(run_dir: Path) -> None:
    tracker = Jsonl(every=1).open(run_dir)
    tracker.step(report(1, numbers={"optimizer.lr": 0.5, "loss.smoothing": torch.tensor(0.25)}))
    tracker.close()
    assert lines(run_dir)[0]["lr"] == 0.5
    assert lines(run_dir)[0]["loss.smoothing"] == 0.25


def test_tensors_become_floats_and_what_is_not_finite_null(run_dir: Path) -> None:
    tracker = Jsonl(every=1).open(run_dir)
    tracker.step(report(1, loss=torch.tensor(2.0), norm=torch.tensor(NAN)))
    tracker.step(report(2, loss=-INF, norm=INF, seconds=0.0))
    tracker.evaluation(Evaluation(2, {"accuracy": NAN}))
    tracker.close()
    first, second, evaluation = lines(run_dir)
    assert (first["loss"], first["norm"]) == (2.0, None)
    assert (second["loss"], second["norm"], second["samples_per_s"]) == (None, None, None)
    assert evaluation["eval"] == {"accuracy": None}


def test_a_tensor_is_read_only_where_it_is_written(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    item = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: reads.append(1) or item(tensor))
    trackers = [part.open(run_dir) for part in (Jsonl(every=10), TensorBoard(every=10), Csv())]
    for step in range(2, 10):
        for tracker in trackers:
            tracker.step(report(step, loss=torch.tensor(1.0)))
    assert not reads
    for tracker in trackers:
        tracker.step(report(10, loss=torch.tensor(1.0)))
        tracker.close()
    assert reads


# --- results.csv -----------------------------------------------------------------------------------------------------


def test_csv_has_a_row_an_evaluation(run_dir: Path) -> None:
    tracker = Csv().open(run_dir)
    drive(tracker, last=20)
    tracker.close()
    assert (run_dir / "results.csv").read_text() == "step,loss,accuracy\n10,0.1,0.9\n20,0.05,0.95\n"


def test_the_first_evaluation_makes_the_columns(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Csv().open(run_dir)
    tracker.evaluation(Evaluation(1, {"a": 1.0, "b": NAN}))
    tracker.evaluation(Evaluation(2, {"b": INF, "new": 3.0}))
    tracker.close()
    assert (run_dir / "results.csv").read_text() == "step,a,b\n1,1.0,\n2,,\n"
    assert "no column new" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-2", "@sum"])
def test_no_column_is_a_formula(run_dir: Path, name: str) -> None:
    assert column(name) == f"'{name}"
    tracker = Csv().open(run_dir)
    tracker.evaluation(Evaluation(1, {name: -1.5}))
    tracker.close()
    again = Csv().open(run_dir)
    again.evaluation(Evaluation(2, {name: 2.5}))
    again.close()
    assert rows(run_dir) == [{"step": "1", f"'{name}": "-1.5"}, {"step": "2", f"'{name}": "2.5"}]


def test_a_name_cannot_break_the_table(run_dir: Path) -> None:
    tracker = Csv().open(run_dir)
    tracker.evaluation(Evaluation(1, {'a,"b"\nc\x1b[2J': 1.0}))
    tracker.close()
    assert rows(run_dir) == [{"step": "1", 'a,"b" c': "1.0"}]


def test_another_file_in_its_place_is_refused(run_dir: Path) -> None:
    (run_dir / "results.csv").write_text("name,salary\nA,1\n")
    with pytest.raises(UserError, match=r"results\.csv"):
        Csv().open(run_dir)
    assert (run_dir / "results.csv").read_text() == "name,salary\nA,1\n"


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [Jsonl(every=1), Csv()], ids=["jsonl", "csv"])
@pytest.mark.parametrize("cut", [0, 1, 10, 15, 30])
def test_rewound_and_run_again_equals_uninterrupted(tmp_path: Path, part: Jsonl | Csv, cut: int) -> None:
    contents = []
    for name, restarts in (("once", False), ("again", True)):
        folder = tmp_path / name
        folder.mkdir()
        tracker = part.open(folder)
        drive(tracker)
        if restarts:
            tracker.close()
            tracker = part.open(folder)
            tracker.rewind(cut)
            drive(tracker, first=cut + 1)
        tracker.close()
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("part", [Jsonl(every=1), Csv()], ids=["jsonl", "csv"])
def test_any_torn_tail_is_cut_off(tmp_path: Path, part: Jsonl | Csv) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    tracker = part.open(whole)
    drive(tracker, last=20)
    tracker.close()
    (path,) = whole.iterdir()
    content = path.read_bytes()
    end_of_first = content.index(b"\n")
    for length in (0, 1, end_of_first, end_of_first + 1, len(content) - 20, len(content) - 1):
        path.write_bytes(content[:length])
        tracker = part.open(whole)
        tracker.evaluation(Evaluation(99, {"loss": 0.5, "accuracy": 0.5}))
        tracker.close()
        found = path.read_bytes()
        kept = content[: content[:length].rfind(b"\n") + 1]
        assert found.startswith(kept)
        assert found.endswith(b"\n")
        head = 0 if kept or isinstance(part, Jsonl) else 1
        assert found[len(kept) :].count(b"\n") == 1 + head


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_every_tracker_may_rewind_before_it_wrote_and_close_twice(run_dir: Path, part: Console | Jsonl | Csv | TensorBoard) -> None:
    tracker = part.open(run_dir)
    tracker.rewind(0)
    tracker.start({"name": "run", "total": 30, "step": 0})
    drive(tracker)
    tracker.rewind(20)
    drive(tracker, first=21)
    tracker.close()
    tracker.close()
    assert isinstance(tracker, Tracker)


# --- tensorboard -----------------------------------------------------------------------------------------------------


def test_tensorboard_shows_the_curves(run_dir: Path) -> None:
    tracker = TensorBoard().open(run_dir)
    drive(tracker)
    tracker.step(report(40, loss=NAN))
    tracker.close()
    shown = curves(run_dir)
    assert set(shown) == {
        "train/loss",
        "train/norm",
        "train/samples_per_s",
        "numbers/optimizer.lr",
        "validation/loss",
        "validation/accuracy",
    }
    assert shown["train/loss"] == [(1, 1.0), (10, pytest.approx(0.1)), (20, pytest.approx(0.05)), (30, pytest.approx(1 / 30))]
    assert [step for step, _ in shown["validation/accuracy"]] == [10, 20, 30]


def test_tensorboard_forgets_what_came_after_the_checkpoint(run_dir: Path) -> None:
    first = TensorBoard().open(run_dir)
    drive(first, last=30)
    first.close()
    second = TensorBoard().open(run_dir)
    second.rewind(10)
    second.step(report(20, loss=7.0))
    second.close()
    assert curves(run_dir)["train/loss"] == [(1, 1.0), (10, pytest.approx(0.1)), (20, 7.0)]


# --- console ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that says ticks[0]."""
    now = [0.0]
    monkeypatch.setattr("torchstone.train.trackers.console.perf_counter", lambda: now[0])
    return now


def test_plain_lines_now_and_then(ticks: list[float]) -> None:
    stream = io.StringIO()
    tracker = ConsoleTracker(stream, live=False, every=10.0)
    tracker.start({"total": 100})
    for step in range(1, 31):
        ticks[0] += 1.0
        tracker.step(report(step, loss=0.25))
    tracker.evaluation(Evaluation(30, {"loss": 0.5, "accuracy": 0.75}))
    tracker.close()
    assert stream.getvalue().splitlines() == [
        "step 10/100  loss 0.2500  64 samples/s  1:30 left",
        "step 20/100  loss 0.2500  64 samples/s  1:20 left",
        "step 30/100  loss 0.2500  64 samples/s  1:10 left",
        "step 30/100  validation  loss 0.5000  accuracy 0.7500",
    ]


def test_one_live_line_on_a_terminal(ticks: list[float]) -> None:
    stream = Terminal()
    tracker = ConsoleTracker(stream, live=True, every=1.0)
    tracker.start({"total": 4})
    for step in range(1, 5):
        ticks[0] += 0.5
        tracker.step(report(step))
        if step == 2:
            tracker.evaluation(Evaluation(2, {"loss": 0.5, "accuracy": 0.75}))
    tracker.close()
    text = stream.getvalue()
    assert "\x1b" not in text
    live = [piece for line in text.split("\n") for piece in line.split("\r")]
    assert live[0].startswith("step 1/4  loss 1.0000")
    assert live[1].startswith("step 2/4  validation  loss 0.5000  accuracy 0.7500")
    assert len(live[1]) >= len(live[0].rstrip()), "the old line is covered"
    assert "accuracy 0.7500" in live[2], "the newest metric stays in sight"
    assert text.endswith("\r\n")


def test_a_resumed_run_tells_the_time_left_from_its_own_updates(ticks: list[float]) -> None:
    stream = io.StringIO()
    tracker = ConsoleTracker(stream, live=False, every=1.0)
    tracker.start({"total": 100, "step": 90})
    ticks[0] += 5.0
    tracker.step(report(95))
    assert stream.getvalue().strip().endswith("0:05 left")


def test_escapes_in_names_do_not_reach_the_terminal() -> None:
    stream = Terminal()
    tracker = ConsoleTracker(stream, live=True, every=0.0)
    tracker.evaluation(Evaluation(1, {"acc\x1b[31m\x1b]0;title\x07\nuracy\x9b2J": 0.5}))
    tracker.step(report(2))
    tracker.close()
    assert "\x1b" not in stream.getvalue()
    assert "\x9b" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 2


def test_a_terminal_that_goes_away_does_not_end_the_training() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    tracker = ConsoleTracker(Closed(), live=False, every=0.0)
    drive(tracker)
    tracker.close()
    ConsoleTracker(None, live=False, every=0.0).step(report(1))


def test_progress_goes_to_stderr(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Console(plain_every_seconds=0).open(run_dir)
    drive(tracker)
    tracker.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "step 30" in captured.err
    assert not list(run_dir.iterdir())


# --- all -------------------------------------------------------------------------------------------------------------


def test_their_order_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticks: list[float]) -> None:
    outputs = []
    for number, order in enumerate(itertools.permutations((Console(plain_every_seconds=0), Jsonl(), Csv(), TensorBoard(every=30)))):
        folder = tmp_path / str(number)
        folder.mkdir()
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        ticks[0] = 0.0
        trackers = [part.open(folder) for part in order]
        for step in range(1, 31):
            ticks[0] += 1.0
            for tracker in trackers:
                tracker.step(report(step))
                if step % 10 == 0:
                    tracker.evaluation(Evaluation(step, {"accuracy": math.sqrt(step)}))
        for tracker in trackers:
            tracker.close()
        outputs.append((stream.getvalue(), (folder / "log.jsonl").read_bytes(), (folder / "results.csv").read_bytes()))
        assert len(list((folder / "tensorboard").iterdir())) == 1
    assert all(output == outputs[0] for output in outputs)


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        (Jsonl, {"every": 0}, r"Jsonl\.every must be >= 1, got 0"),
        (TensorBoard, {"every": -1}, r"TensorBoard\.every must be >= 1, got -1"),
        (Console, {"every_seconds": -1.0}, r"Console\.every_seconds must be >= 0, got -1"),
        (Console, {"plain_every_seconds": NAN}, r"Console\.plain_every_seconds must be >= 0, got nan"),
    ],
)
def test_values_that_make_no_sense_are_refused(part: type, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        part(**fields)


SPEED = """
import io, sys, time, pathlib, tempfile
from torchstone.core.protocols import StepReport
from torchstone.train.trackers import Console, Csv, Jsonl, TensorBoard
folder = pathlib.Path(tempfile.mkdtemp())
parts = Console(plain_every_seconds=1e9), Jsonl(every=10**9), Csv(), TensorBoard(every=10**9)
trackers = [part.open(folder) for part in parts]
report = StepReport(2, 1.0, 1.0, {"optimizer.lr": 0.1}, 64, 0.1)
for tracker in trackers:
    best = 1e9
    for _ in range(50):
        start = time.process_time()
        for _ in range(1000):
            tracker.step(report)
        best = min(best, (time.process_time() - start) * 1e3)
    print(best)
"""


@pytest.mark.slow
def test_an_update_that_is_not_written_costs_less_than_five_microseconds(tmp_path: Path) -> None:
    source = str(Path(__file__).resolve().parents[2] / "src")
    environment = os.environ | {"PYTHONPATH": source, "TMPDIR": str(tmp_path)}
    out = subprocess.run([sys.executable, "-c", SPEED], env=environment, capture_output=True, text=True, check=True, timeout=240).stdout
    costs = [float(line) for line in out.split()]
    assert len(costs) == 4
    assert max(costs) < 5.0, f"microseconds a step: {costs}"
