"""Stores: whatever fails while one is written, the one before it is there."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core.crash_states import every_state, load, save
from core.faults import DEATHS, ERRORS, armed, dies
from core.small_store import Files, example, same
from torchstone.core import fault, files
from torchstone.core.errors import UserError
from torchstone.core.store import read_store, write_store


def checkpoint(parent: Path, step: int) -> None:
    write_store(parent / f"step-{step}", *example(step))
    files.write_text(parent / "last", f"step-{step}\n")


def resumed(parent: Path) -> int:
    """The step that a resume would go on from, all checked."""
    step = int((parent / "last").read_text().removeprefix("step-"))
    tensors, state = read_store(parent / f"step-{step}")
    expected, expected_state = example(step)
    assert same(tensors, expected) and repr(state) == repr(expected_state)
    return step


def traced(work: Callable[[], object]) -> list[fault.Operation]:
    seen: list[fault.Operation] = []
    fault.disarm()
    fault.trace(seen.append)
    try:
        work()
    finally:
        fault.trace(None)
    return seen


def test_whatever_fails_the_previous_checkpoint_is_there(tmp_path: Path) -> None:
    first, run = tmp_path / "first", tmp_path / "run"
    first.mkdir()
    checkpoint(first, 1)

    def fresh() -> None:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(first, run)

    def partial() -> list[str]:
        return [name for name in os.listdir(run) if name.startswith(files.PARTIAL)]

    fresh()
    trace = traced(lambda: checkpoint(run, 2))
    assert resumed(run) == 2 and [operation.name for operation in trace].count("write") == 5
    for operation in trace:
        for kind in ERRORS:
            fresh()
            with armed(kind, operation.number), pytest.raises(OSError, match="No space|Input/output"):
                checkpoint(run, 2)
            assert resumed(run) == (2 if operation is trace[-1] else 1) and not partial()
        for kind in DEATHS if operation.name == "write" else ("kill",):
            fresh()
            assert dies(lambda: checkpoint(run, 2), kind, operation.number)
            assert resumed(run) == (2 if operation is trace[-1] else 1)
            files.remove_partial(run)
            assert not partial()
        fresh()
        with armed("short", operation.number):
            checkpoint(run, 2)
        assert resumed(run) == 2


def bad_states(tmp_path: Path, name: str, forgotten: str | None = None) -> tuple[int, int]:
    """(states that load neither the old nor the new checkpoint, all states) of a power cut while the second is made.

    forgotten: an operation whose effect is left out, as if the program did not do it.
    """
    run = tmp_path / name
    run.mkdir()
    checkpoint(run, 1)
    start = load(run)
    trace = traced(lambda: checkpoint(run, 2))
    states = every_state(run, start, [operation for operation in trace if operation.name != forgotten])
    bad = 0
    for i, state in enumerate(states):
        save(state, tmp_path / f"{name}-{i}")
        try:
            assert resumed(tmp_path / f"{name}-{i}") in (1, 2)
        except (UserError, OSError, ValueError):
            bad += 1
    return bad, len(states)


def test_no_power_cut_loses_the_checkpoint(tmp_path: Path) -> None:
    bad, total = bad_states(tmp_path, "run")
    assert bad == 0 and total > 50


@pytest.mark.parametrize("forgotten", ["fsync", "fsync_folder"])
def test_the_search_finds_what_a_careless_writer_would_lose(forgotten: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def smaller(seed: int = 0) -> tuple[Files, dict[str, Any]]:
        return {"m": {"w": torch.full((2,), float(seed))}}, {"step": seed}

    monkeypatch.setitem(globals(), "example", smaller)
    bad, _ = bad_states(tmp_path, "run", forgotten)
    assert bad > 0
