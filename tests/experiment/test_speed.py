"""`run.speed=auto`: what is tried, what is written down, and that nothing but the settings changes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import torchstone
from torchstone.experiment import load_experiment, prepare, train_experiment
from torchstone.train import speed
from torchstone.train.settings import Run
from train.small import MLP, ending

CPU = torch.device("cpu")
FAST = (*MLP, "run.speed=auto")


class FakeJob:
    """A training of so many steps; its settings are all that the fake clock reads."""

    def __init__(self, run: Run, total: int) -> None:
        self.run, self.total = run, total


def chosen(monkeypatch: pytest.MonkeyPatch, seconds: Any, *, total: int = 10**6, cores: int = 2) -> tuple[Run, speed.Trial]:
    monkeypatch.setattr(speed, "_measured", lambda model, run, device, job: seconds(run))
    monkeypatch.setattr(speed, "fast_bf16", lambda device: True)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/c++")
    run = Run(speed="auto", threads=1)
    return speed.choose(torch.nn.Linear(1, 1), run, CPU, lambda run: FakeJob(run, total), cores)  # type: ignore[arg-type,return-value]


def test_what_is_faster_is_kept_one_setting_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(run: Run) -> float:
        return (
            1.0 * (0.5 if run.precision == "bf16" else 1) * (0.8 if run.memory_format == "channels_last" else 1) / (run.threads or 1) ** 0.5
        )

    run, trial = chosen(monkeypatch, seconds)
    assert (run.precision, run.memory_format, run.threads, run.compile, run.speed) == ("bf16", "channels_last", 2, False, "measured")
    tried = [(row.precision, row.memory_format, row.threads, row.compile) for row in trial.rows]
    assert tried == [
        ("fp32", "contiguous", 1, False),
        ("fp32", "contiguous", 2, False),
        ("bf16", "contiguous", 2, False),
        ("bf16", "channels_last", 2, False),
        ("bf16", "channels_last", 2, True),
    ]
    assert [row.chosen for row in trial.rows] == [False, False, False, True, False]
    assert json.loads(json.dumps(trial.document()))["rows"][3]["chosen"] is True


def test_what_is_no_faster_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    run, trial = chosen(monkeypatch, lambda run: 1.0 if run.precision == "fp32" and not run.compile else 0.98 - 0.1 * run.compile)
    assert (run.precision, run.memory_format, run.compile) == ("fp32", "contiguous", False) and trial.rows[0].chosen


def test_a_short_run_is_not_spent_on_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 % of 50 steps is less than the 3 that another setting would take."""
    _, trial = chosen(monkeypatch, lambda run: 1.0, total=50)
    assert len(trial.rows) == 1
    _, trial = chosen(monkeypatch, lambda run: 1.0, total=1000)
    assert not any(row.compile for row in trial.rows)  # 30 s are not enough to compile


def test_what_was_chosen_is_written_and_repeated_without_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = torchstone.train(torchstone.recipes.digits_mini(), *FAST, out=tmp_path / "a")
    stored = load_experiment(run.folder / "experiment.toml")
    assert stored.run.speed == "measured" and stored.run.threads is not None
    table = json.loads((run.folder / "environment.json").read_text())["speed"]
    kept = next(row for row in table["rows"] if row["chosen"])
    assert all(kept[name] == getattr(stored.run, name) for name in ("precision", "memory_format", "compile", "threads"))
    assert table["seconds"] > 0 and all(row["seconds_per_step"] > 0 for row in table["rows"])

    def no_trial(*arguments: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(speed, "choose", no_trial)
    again = train_experiment(stored, out=tmp_path / "b")
    assert ending(run.folder) == ending(again.folder)
    # a resume of the recipe itself goes on with what was chosen then
    shutil.rmtree(run.folder / "checkpoints" / "step-15")
    (run.folder / "metrics.json").unlink()
    torchstone.train(torchstone.recipes.digits_mini(), *FAST, out=run.folder, resume=True)
    assert ending(run.folder) == ending(again.folder)


def test_the_trial_leaves_the_model_and_the_generators_alone() -> None:
    torch.manual_seed(3)
    plain = prepare(torchstone.recipes.digits(), "run.epochs=2", "run.threads=1")
    before = torch.random.get_rng_state()
    timed = prepare(torchstone.recipes.digits(), "run.epochs=2", "run.threads=1", "run.speed=auto")
    assert torch.equal(before, torch.random.get_rng_state())
    assert timed.trial is not None and plain.trial is None
    for mine, other in zip(timed.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


def test_channels_last_reaches_the_model_and_changes_the_numbers_by_rounding_alone() -> None:
    from torchstone.train.build import build_state
    from torchstone.train.loop import updates
    from torchstone.train.step import train_step

    losses = {}
    for layout in ("contiguous", "channels_last"):
        prepared = prepare(torchstone.recipes.digits(), f"run.memory_format={layout}", "run.threads=1")
        job, seen = prepared.job(Path(), {}), []
        state = build_state(prepared.model, job.method, job.run, job.device)
        prepared.model.stem.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        epoch, batch = next(updates(job, 0))
        losses[layout] = float(train_step(state, batch, job.method, job.setting, epoch).loss)
        wanted = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        assert seen[0].is_contiguous(memory_format=wanted)
    assert losses["contiguous"] == pytest.approx(losses["channels_last"], rel=1e-6)
    assert replace(Run(), memory_format="channels_last").memory_format == "channels_last"
