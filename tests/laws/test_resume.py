"""Law: interrupted after any step and resumed in a fresh state = uninterrupted, bit for bit, noise on, for every part of every seat."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from laws import cases
from laws.cases import METHOD_PARTS, NOISY, Part, all_tensors, put_in, ready, run_whole, steady
from torchstone import data, losses, optim
from torchstone.data import AddNoise, Flip, Mixup, Normalize, PaddedCrop
from torchstone.experiment import Prepared
from torchstone.optim import SAM, ClipByNorm, Cosine, Muon, NoDecay, OneCycle, Patience
from torchstone.slim import DropPathRamp
from torchstone.train import checkpoint
from torchstone.train.method import Method
from torchstone.train.state import TrainState

POINTS = (1, 3, 5, 6, 8)
"""Of 9 steps, 3 an epoch: inside the first, at its end, inside the second, at its end, before the last step."""

ALL_ON = Method(
    sample_transforms=(AddNoise(std=0.1),),
    batch_transforms=(Normalize(), Flip(), PaddedCrop(padding=1), Mixup()),
    model_transforms=(DropPathRamp(rate=0.4),),
    loss=losses.CrossEntropy(smoothing=0.1),
    penalties=(losses.L2(strength=0.01),),
    gradient=SAM(),
    gradient_transforms=(ClipByNorm(max_norm=0.5),),
    groups=NoDecay(),
    optimizer=Muon(lr=0.02, weight_decay=0.1),
    schedules=(Cosine(path="optimizer.lr", warmup=0.3), OneCycle(path="loss.smoothing")),
    averaging=optim.EMA(decay=0.7),
    stop=Patience(patience=50),
)


@dataclass(frozen=True)
class Ending:
    status: str
    tensors: dict[str, bytes]
    numbers: dict[str, Any]


def ending(outcome: tuple[str, TrainState]) -> Ending:
    status, state = outcome
    return Ending(status, {name: cases.raw(tensor) for name, tensor in all_tensors(state).items()}, steady(state))


def must_equal(resumed: Ending, whole: Ending, where: object) -> None:
    names = [name for name in whole.tensors.keys() | resumed.tensors.keys() if whole.tensors.get(name) != resumed.tensors.get(name)]
    assert names == [], where
    assert resumed.numbers == whole.numbers, where
    assert resumed.status == whole.status, where


def resumes(prepared: Callable[[], Prepared], folder: Path, points: tuple[int, ...] = POINTS) -> Ending:
    """The uninterrupted run, and beside it one that is interrupted and resumed at each of `points`."""
    whole = ending(run_whole(prepared, folder / "whole"))
    for point in points:
        there = folder / str(point)
        assert run_whole(prepared, there, until=point)[0] == "interrupted"
        must_equal(ending(run_whole(prepared, there)), whole, point)
    return whole


@pytest.mark.parametrize("part", METHOD_PARTS, ids=str)
def test_every_part(part: Part, tmp_path: Path) -> None:
    model = cases.GPT if cases.WORLD.get(part.kind) == "tokens" else cases.CONV
    method = put_in(NOISY, part, part.make(tmp_path))
    resumes(lambda: ready(method, model), tmp_path, (2, 5))


@pytest.mark.parametrize("microbatch_size", [None, 4])
def test_everything_at_once(microbatch_size: int | None, tmp_path: Path) -> None:
    whole = resumes(lambda: ready(ALL_ON, microbatch_size=microbatch_size), tmp_path)
    assert whole.status == "done" and len(whole.numbers) > 5


def test_language_model_with_noise(tmp_path: Path) -> None:
    method = replace(NOISY, optimizer=Muon(), schedules=(Cosine(warmup=0.2),))
    resumes(lambda: ready(method, cases.GPT, microbatch_size=3), tmp_path)
    resumes(lambda: ready(method, replace(cases.GPT, tie=True, drop_path=0.3)), tmp_path / "tied", (4,))


def test_with_two_loader_workers(tmp_path: Path) -> None:
    """Interrupted in the middle of an epoch that workers have read ahead of; and workers may come or go on resuming."""
    method = replace(NOISY, sample_transforms=(AddNoise(),), batch_transforms=(Flip(),))
    whole = resumes(lambda: ready(method, workers=2), tmp_path, (4,))
    run_whole(lambda: ready(method, workers=2), tmp_path / "less", until=5)
    must_equal(ending(run_whole(lambda: ready(method), tmp_path / "less")), whole, "workers 2 -> 0")


def test_fp16_scale(tmp_path: Path) -> None:
    """The loss scale and how long it has been good are memory too: it starts so high that steps overflow."""

    def prepared() -> Prepared:
        return ready(replace(NOISY, gradient_transforms=(ClipByNorm(),)), cases.MLP, precision="fp16")

    whole = resumes(prepared, tmp_path, (2, 5))
    assert "scale" in whole.numbers["scale"]


def test_twice_interrupted(tmp_path: Path) -> None:
    whole = ending(run_whole(lambda: ready(ALL_ON), tmp_path / "whole"))
    for point in (2, 3, 7):
        assert run_whole(lambda: ready(ALL_ON), tmp_path / "often", until=point)[0] == "interrupted"
    must_equal(ending(run_whole(lambda: ready(ALL_ON), tmp_path / "often")), whole, "often")


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_killed_after_a_checkpoint(lost: int, tmp_path: Path) -> None:
    """What a kill leaves: the newest checkpoints never came to be. (A signal saves at once; a kill falls back to the last evaluation.)"""
    prepared = lambda: ready(ALL_ON, keep=20, evaluate_every=2)
    whole = ending(run_whole(prepared, tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    for folder in checkpoint.by_age(tmp_path / "killed")[:lost]:
        shutil.rmtree(folder)
    must_equal(ending(run_whole(prepared, tmp_path / "killed")), whole, lost)


def test_a_stop_that_would_have_come_with_the_signal(tmp_path: Path) -> None:
    """The signal arrives in the very step whose evaluation ends training: resuming must not train on."""
    method = replace(NOISY, stop=Patience(metric="accuracy", patience=1, min_delta=2.0))  # never better: stops at the second look
    whole = ending(run_whole(lambda: ready(method), tmp_path / "whole"))
    assert whole.status == "stopped" and "'step': 6" in whole.numbers["evaluations"]
    run_whole(lambda: ready(method), tmp_path / "signal", until=6)
    must_equal(ending(run_whole(lambda: ready(method), tmp_path / "signal")), whole, 6)


@pytest.mark.parametrize("stop", [optim.LossThreshold(threshold=1.2), Patience(patience=1)], ids=["loss_threshold", "patience"])
def test_a_stopped_run_stays_stopped(stop: Any, tmp_path: Path) -> None:
    prepared = lambda: ready(replace(NOISY, stop=stop), epochs=12)
    whole = ending(run_whole(prepared, tmp_path / "whole"))
    assert whole.status == "stopped"
    must_equal(ending(run_whole(prepared, tmp_path / "whole")), whole, "again")
    run_whole(prepared, tmp_path / "two", until=2)
    must_equal(ending(run_whole(prepared, tmp_path / "two")), whole, 2)


@pytest.mark.parametrize("forgotten", ["optimizer", "average", "updates", "step"])
def test_a_forgotten_memory_is_seen(forgotten: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The law fails when any one thing is not restored."""
    restore = checkpoint.restore

    def leaky(state: TrainState, tensors: dict, numbers: dict, source: Path) -> None:
        before = {name: tensor.clone() for name, tensor in all_tensors(state).items() if name.startswith(forgotten)}
        kept = getattr(state, forgotten) if forgotten in ("updates", "step") else None
        restore(state, tensors, numbers, source)
        for name, tensor in all_tensors(state).items():
            if name in before:
                tensor.copy_(before[name])
        if kept is not None:
            setattr(state, forgotten, kept)

    method = replace(NOISY, schedules=(Cosine(warmup=0.05),), sampler=data.Uniform())
    whole = ending(run_whole(lambda: ready(method), tmp_path / "whole"))
    run_whole(lambda: ready(method), tmp_path / "cut", until=5)
    monkeypatch.setattr(checkpoint, "restore", leaky)
    resumed = ending(run_whole(lambda: ready(method), tmp_path / "cut"))
    assert resumed.tensors != whole.tensors or resumed.numbers != whole.numbers
