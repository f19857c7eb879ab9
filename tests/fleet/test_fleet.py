"""Units here and on child processes: trained once, the same everywhere, and one that dies takes no other with it."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fleet.deadly import Deadly
from torchstone import fleet, recipes
from torchstone.core.errors import Interrupted, UserError
from torchstone.fleet import Unit
from torchstone.fleet.memory import reset_peak_memory
from torchstone.fleet.unit import ended
from torchstone.train.results import peak_memory_mb
from train.small import MLP, ending


def units(folder: Path, *edits: str, count: int = 2, experiment=None) -> list[Unit]:
    base = experiment or recipes.digits_mini()
    return [Unit(name=f"u{n}", experiment=base, edits=(*MLP, *edits, f"run.seed={n}"), folder=folder / f"u{n}") for n in range(count)]


def train(crew: fleet.Crew, work: list[Unit]) -> dict[str, fleet.Outcome]:
    with crew:
        return {outcome.unit.name: outcome for outcome in crew.train(work)}


def test_a_finished_unit_is_never_trained_again(tmp_path):
    work = units(tmp_path)
    first = train(fleet.crew(), work)
    assert {name: each.status for name, each in first.items()} == {"u0": "done", "u1": "done"}
    assert all(each.seconds > 0 for each in first.values())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = train(fleet.crew(), work)
    assert {name: (each.status, each.seconds) for name, each in again.items()} == {"u0": ("done", 0.0), "u1": ("done", 0.0)}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_failing_unit_is_an_outcome_and_the_others_go_on(tmp_path):
    good = units(tmp_path)
    bad = replace(good[0], name="bad", edits=(*good[0].edits, "model.norm=batch", "run.batch_size=1"), folder=tmp_path / "bad")
    lost = replace(good[0], name="lost", edits=(*good[0].edits, "optimizer=sgd", "optimizer.lr=1e30"), folder=tmp_path / "lost")
    found = train(fleet.crew(), [bad, lost, *good])
    assert found["bad"].status == "failed" and "batch norm" in found["bad"].problem and "\n" not in found["bad"].problem
    assert found["lost"].status == "diverged" and "not finite" in found["lost"].problem
    assert ended(tmp_path / "lost") == "diverged" and ended(tmp_path / "bad") is None
    assert [found[name].status for name in ("u0", "u1")] == ["done", "done"]


@pytest.mark.slow
def test_processes_train_what_one_process_trains(tmp_path):
    train(fleet.crew(), units(tmp_path / "one"))
    found = train(fleet.crew(2), units(tmp_path / "two"))
    assert {each.status for each in found.values()} == {"done"}
    for name in ("u0", "u1"):
        assert ending(tmp_path / "one" / name) == ending(tmp_path / "two" / name)


def test_a_killed_worker_is_replaced_and_its_unit_tried_once_more(tmp_path):
    counter = tmp_path / "openings"
    data = Deadly(counter=str(counter), parent=os.getpid(), deaths=1)
    work = units(tmp_path, count=1, experiment=replace(recipes.digits_mini(), data=data))
    healthy = units(tmp_path / "others", count=1)
    found = train(fleet.crew(2), [*work, replace(healthy[0], name="healthy")])
    assert found["u0"].status == "done" and found["healthy"].status == "done"
    assert counter.stat().st_size >= 2


@pytest.mark.slow
def test_a_unit_whose_process_dies_twice_has_failed_and_the_others_go_on(tmp_path):
    data = Deadly(counter=str(tmp_path / "openings"), parent=os.getpid(), deaths=2)
    work = units(tmp_path, count=1, experiment=replace(recipes.digits_mini(), data=data))
    healthy = [replace(unit, name=f"healthy{unit.name}") for unit in units(tmp_path / "others")]
    found = train(fleet.crew(2), [*work, *healthy])
    assert found["u0"].status == "failed" and "killed by SIGKILL" in found["u0"].problem
    assert {found[unit.name].status for unit in healthy} == {"done"}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_signal_saves_and_says_so(tmp_path, workers):
    work = units(tmp_path, "run.epochs=2000", count=workers)

    def ask() -> None:
        until = time.monotonic() + 120
        while not all(list((unit.folder / "checkpoints").glob("step-*")) for unit in work) and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted) as caught:
        train(fleet.crew(workers), work)
    asking.join()
    assert caught.value.signal == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    for unit in work:
        metrics = json.loads((unit.folder / "metrics.json").read_text())
        assert metrics["status"] == "interrupted" and 0 < metrics["steps"] < 10_000
        last = (unit.folder / "checkpoints" / "last").read_text().strip()
        assert last == f"step-{metrics['steps']}"


def test_the_peak_is_the_units_own(tmp_path):
    """A large unit before a small one: without setting the mark back, the small one would be charged the large one's memory."""
    if not reset_peak_memory():
        pytest.skip("this system's mark cannot be set back")
    cpu = torch.device("cpu")
    start = peak_memory_mb(cpu)
    big = torch.ones(100_000_000)  # 400 MB
    del big
    assert peak_memory_mb(cpu) > start + 380
    assert reset_peak_memory()
    assert peak_memory_mb(cpu) < start + 100
    work = units(tmp_path, count=1)
    big = torch.ones(100_000_000)
    del big
    train(fleet.crew(), work)
    charged = json.loads((work[0].folder / "metrics.json").read_text())["cost"]["peak_memory_mb"]
    assert charged < start + 200


@pytest.mark.parametrize("workers", [0, -1, 1000])
def test_a_number_of_workers_that_is_none(workers):
    with pytest.raises(UserError, match="--workers must be"):
        fleet.crew(workers)


def test_ray_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'torchstone\[ray\]'"):
        fleet.crew(2, "ray")


@pytest.mark.slow
def test_ray_trains_what_one_process_trains(tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is an optional extra: pip install 'torchstone[ray]'")
    if not hasattr(ray, "init"):
        pytest.skip("a folder called ray is in the way")
    train(fleet.crew(), units(tmp_path / "one"))
    found = train(fleet.crew(2, "ray"), units(tmp_path / "ray"))
    assert {name: each.status for name, each in found.items()} == {"u0": "done", "u1": "done"}
    for name in ("u0", "u1"):
        assert ending(tmp_path / "one" / name) == ending(tmp_path / "ray" / name)
