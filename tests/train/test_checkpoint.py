"""Checkpoints of a run: pointers, how many stay, which one is trusted, and what is refused."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.faults import ERRORS, armed, dies, operations
from laws.cases import MLP, NOISY, advance, all_tensors, begin, differing, ready, steady
from torchstone.core import store
from torchstone.core.errors import Damaged, UserError
from torchstone.core.protocols import Evaluation
from torchstone.models import MLPConfig
from torchstone.optim import SGD
from torchstone.train import checkpoint
from torchstone.train.loop import Job
from torchstone.train.precision import LossScale
from torchstone.train.state import Best, TrainState
from train.small import flip

FACTS = {"exactness": {"torch": "x"}, "fingerprint": "f"}


@pytest.fixture
def started(tmp_path: Path) -> tuple[Job, TrainState]:
    return begin(ready(NOISY, MLP), tmp_path)


def fresh(tmp_path: Path) -> TrainState:
    return begin(ready(NOISY, MLP), tmp_path)[1]


def save_at(state: TrainState, run: Path, step: int, *, best: int | None = None, keep: int = 2) -> None:
    state.step = step
    state.best = None if best is None else Best(best, 0.5)
    checkpoint.save(state, run, keep=keep, facts=FACTS)


def there(run: Path) -> dict[str, str]:
    """Folders, and what the pointers say."""
    names = sorted(path.name for path in (run / checkpoint.FOLDER).iterdir())
    return {name: (run / checkpoint.FOLDER / name).read_text().strip() if name in ("last", "best") else "" for name in names}


# --- round trip --------------------------------------------------------------------------------------------------------


def test_everything_comes_back(started: tuple[Job, TrainState], tmp_path: Path) -> None:
    job, state = started
    advance(job, state, 4)
    state.history.evaluations += [Evaluation(2, {"loss": 0.1, "accuracy": math.nan}), Evaluation(4, {"loss": math.inf, "accuracy": 1 / 3})]
    state.history.loss, state.best, state.seconds, state.ending = math.nan, Best(4, 1 / 3), 1.25, "no progress"
    state.skipped, state.scale = [1], LossScale(scale=8.0, good=3)
    checkpoint.save(state, tmp_path, keep=2, facts=FACTS)
    folder, tensors, numbers = checkpoint.newest_good(tmp_path)
    again = fresh(tmp_path)
    checkpoint.restore(again, tensors, numbers, folder)
    assert differing(all_tensors(state), all_tensors(again)) == []
    assert steady(again) == steady(state) and again.seconds == 1.25
    assert again.history.evaluations[0].step == 2 and math.isnan(again.history.evaluations[0].metrics["accuracy"])
    assert (numbers["exactness"], numbers["fingerprint"]) == (FACTS["exactness"], "f")


def test_restoring_is_in_place(started: tuple[Job, TrainState], tmp_path: Path) -> None:
    """The flat buffers stay the parameters' memory: an update after a resume reaches the model."""
    job, state = started
    advance(job, state, 2)
    checkpoint.save(state, tmp_path, keep=2, facts=FACTS)
    again = fresh(tmp_path)
    before = again.parameters.data.data_ptr()
    checkpoint.restore(again, *checkpoint.newest_good(tmp_path)[1:], tmp_path)
    assert again.parameters.data.data_ptr() == before
    assert torch.equal(again.parameters.data, state.parameters.data)
    again.parameters.data.zero_()
    assert all(not parameter.any() for parameter in again.model.parameters())


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert checkpoint.newest_good(tmp_path) is None
    with pytest.raises(UserError, match="no last checkpoint yet"):
        checkpoint.named(tmp_path, "last")


# --- pointers and age --------------------------------------------------------------------------------------------------


def test_the_newest_stay_and_last_names_the_newest(started: tuple[Job, TrainState], tmp_path: Path) -> None:
    for step in (5, 10, 100):
        save_at(started[1], tmp_path, step, keep=2)
    assert there(tmp_path) == {"last": "step-100", "step-10": "", "step-100": ""}
    assert checkpoint.named(tmp_path, "last").name == "step-100"


def test_the_best_stays_however_old(started: tuple[Job, TrainState], tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save_at(started[1], tmp_path, step, best=5, keep=1)
    assert there(tmp_path) == {"best": "step-5", "last": "step-20", "step-20": "", "step-5": ""}
    save_at(started[1], tmp_path, 25, best=25, keep=1)
    assert there(tmp_path) == {"best": "step-25", "last": "step-25", "step-25": ""}


def test_a_good_checkpoint_is_not_written_again(started: tuple[Job, TrainState], tmp_path: Path) -> None:
    save_at(started[1], tmp_path, 5)
    path = tmp_path / checkpoint.FOLDER / "step-5" / "model.safetensors"
    first = path.stat().st_ino
    save_at(started[1], tmp_path, 5)
    assert path.stat().st_ino == first
    flip(path, 8 * path.stat().st_size - 5)
    save_at(started[1], tmp_path, 5)
    store.verify_store(path.parent)


def test_a_damaged_pointer_is_moved(started: tuple[Job, TrainState], tmp_path: Path) -> None:
    save_at(started[1], tmp_path, 5)
    (tmp_path / checkpoint.FOLDER / "last").write_text("step-4\n")
    checkpoint.settle(started[1], tmp_path, keep=2)
    assert there(tmp_path)["last"] == "step-5"


@pytest.mark.parametrize("kind", [*ERRORS, "kill"])
def test_whatever_fails_there_is_a_good_checkpoint_and_settling_finishes_the_work(
    kind: Any, started: tuple[Job, TrainState], tmp_path: Path
) -> None:
    state, before, whole = started[1], tmp_path / "before", tmp_path / "whole"
    for step in (5, 10):
        save_at(state, before, step, best=5, keep=1)
    shutil.copytree(before, whole)
    count = operations(lambda: save_at(state, whole, 15, best=15, keep=1))
    for number in range(1, count + 1):
        run = tmp_path / f"{number}"
        shutil.copytree(before, run)
        if kind == "kill":
            assert dies(lambda run=run: save_at(state, run, 15, best=15, keep=1), kind, number)
        else:
            with armed(kind, number), pytest.raises(OSError):
                save_at(state, run, 15, best=15, keep=1)
        folder, _, numbers = checkpoint.newest_good(run)
        assert numbers["step"] in (10, 15)
        if numbers["step"] == 10:  # the new one is not there: the old pointers still hold
            assert there(run)["last"] == "step-10" and there(run)["best"] == "step-5"
        state.step, state.best = numbers["step"], Best(5 if numbers["step"] == 10 else 15, 0.5)
        checkpoint.settle(state, run, keep=1)
        found = {name: text for name, text in there(run).items() if not name.startswith(".partial-")}
        assert found == there(before if numbers["step"] == 10 else whole)
        shutil.rmtree(run)


# --- what is trusted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model.safetensors", "average.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_damaged_one_is_named_and_the_one_before_it_used(
    file: str, started: tuple[Job, TrainState], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (5, 10):
        save_at(started[1], tmp_path, step)
    path = tmp_path / checkpoint.FOLDER / "step-10" / file
    flip(path, 8 * path.stat().st_size - 9)
    folder, _, numbers = checkpoint.newest_good(tmp_path)
    assert (folder.name, numbers["step"]) == ("step-5", 5)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and warning.startswith("warning: ")
    assert f"step-10/{file}" in warning and "falling back to the checkpoint before it" in warning
    assert "tensor '" in warning or not file.endswith("safetensors")


def test_none_good_is_an_error_that_names_the_newest(started: tuple[Job, TrainState], tmp_path: Path) -> None:
    for step in (5, 10):
        save_at(started[1], tmp_path, step)
        (tmp_path / checkpoint.FOLDER / f"step-{step}" / "model.safetensors").unlink()
    with pytest.raises(Damaged, match=r"no good checkpoint is left; the newest: .*step-10/model\.safetensors: missing"):
        checkpoint.newest_good(tmp_path)


def test_only_checkpoints_are_looked_at(started: tuple[Job, TrainState], tmp_path: Path) -> None:
    for step in (9, 10):
        save_at(started[1], tmp_path, step)
    for name in (".partial-step-11-abcd", "step-12.old", "step-", "step--1", "step-x", "stepping-99"):
        shutil.copytree(tmp_path / checkpoint.FOLDER / "step-9", tmp_path / checkpoint.FOLDER / name)
    assert [path.name for path in checkpoint.by_age(tmp_path)] == ["step-10", "step-9"]


@pytest.mark.parametrize("content", ["../../../elsewhere", "/etc", "step-5/../..", "", "step-5\nstep-6", "x" * 100_000])
def test_a_pointer_names_a_checkpoint_of_the_run_or_nothing(content: str, started: tuple[Job, TrainState], tmp_path: Path) -> None:
    save_at(started[1], tmp_path, 5)
    (tmp_path / checkpoint.FOLDER / "last").write_text(content)
    with pytest.raises(UserError, match="last"):
        checkpoint.named(tmp_path, "last")


@pytest.mark.parametrize("kind", ["bytes", "folder", "link"])
def test_a_pointer_that_is_no_text_file_is_refused(kind: str, started: tuple[Job, TrainState], tmp_path: Path) -> None:
    save_at(started[1], tmp_path, 5)
    pointer = tmp_path / checkpoint.FOLDER / "last"
    pointer.unlink()
    if kind == "bytes":
        pointer.write_bytes(b"\xff\xfe\x00")
    elif kind == "folder":
        pointer.mkdir()
    else:
        (tmp_path / "elsewhere").write_text("step-5\n")
        pointer.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="last"):
        checkpoint.named(tmp_path, "last")


# --- of another model --------------------------------------------------------------------------------------------------


def refusal(state: TrainState, run: Path) -> str:
    with pytest.raises(UserError) as error:
        checkpoint.restore(state, *checkpoint.newest_good(run)[1:], run / "step-5")
    return str(error.value)


def test_another_model_or_method_is_refused_by_name_or_shape(started: tuple[Job, TrainState], tmp_path: Path) -> None:
    save_at(started[1], tmp_path, 5)
    deeper = begin(ready(NOISY, MLPConfig(hidden=(9, 9))), tmp_path)[1]
    assert "model.safetensors: not of this model and method (missing ['hidden.1." in refusal(deeper, tmp_path)
    wider = begin(ready(NOISY, MLPConfig(hidden=(10,))), tmp_path)[1]
    assert "is float32 [9, 64], the model's is float32 [10, 64]" in refusal(wider, tmp_path)
    no_average = begin(ready(replace(NOISY, averaging=None), MLP), tmp_path)[1]
    other_optimizer = begin(ready(replace(NOISY, optimizer=SGD(momentum=0.9)), MLP), tmp_path)[1]
    assert "optimizer.safetensors: not of this model and method" in refusal(other_optimizer, tmp_path)
    # What is not asked for may be there: a run without averaging is another tree, and refused as that.
    checkpoint.restore(no_average, *checkpoint.newest_good(tmp_path)[1:], tmp_path / "step-5")


def test_swapped_parameters_of_one_shape_are_told_apart_by_name(tmp_path: Path) -> None:
    """Matched by position they would silently take each other's moments (torch's own optimizers do)."""
    job, state = begin(ready(NOISY, MLPConfig(hidden=(8, 8, 8))), tmp_path)
    advance(job, state, 2)
    checkpoint.save(state, tmp_path, keep=1, facts=FACTS)
    folder, tensors, numbers = checkpoint.newest_good(tmp_path)
    reordered = {file: dict(reversed(held.items())) for file, held in tensors.items()}
    again = begin(ready(NOISY, MLPConfig(hidden=(8, 8, 8))), tmp_path)[1]
    checkpoint.restore(again, reordered, numbers, folder)
    assert differing(all_tensors(state), all_tensors(again)) == []


def test_another_type_of_numbers_is_refused(started: tuple[Job, TrainState], tmp_path: Path) -> None:
    save_at(started[1], tmp_path, 5)
    folder, tensors, numbers = checkpoint.newest_good(tmp_path)
    tensors["model"]["head.weight"] = tensors["model"]["head.weight"].half()
    with pytest.raises(UserError, match=r"head\.weight"):
        checkpoint.restore(fresh(tmp_path), tensors, numbers, folder)
