"""Checkpoints (cases 26 to 30), and the verb that repeats and resumes itself.

Bugs that other training systems had, pinned: one test or more a case of `notes/reliability.md`, section 2, by its number. A case that a law
covers whole still has its own short test here, so that a failure says which old mistake came back.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from laws import cases
from laws.cases import GPT, MLP, NOISY, all_tensors, begin, differing, ready, run_whole
from regressions.seen import AUGMENTED
from torchstone import data
from torchstone.core import fault, store
from torchstone.core.errors import Damaged, UserError
from torchstone.experiment import train_experiment
from torchstone.models import MLPConfig
from torchstone.optim import AdamW, FlatParameters
from torchstone.train import checkpoint
from torchstone.train.loop import look, save


def test_26_tied_weights_are_tied_after_a_resume(tmp_path: Path) -> None:
    tied = replace(GPT, tie=True)
    run_whole(lambda: ready(NOISY, tied), tmp_path, until=4)
    source, tensors, numbers = checkpoint.newest_good(tmp_path)  # type: ignore[misc]
    job, state = begin(ready(NOISY, tied), tmp_path)
    checkpoint.restore(state, tensors, numbers, source)
    for model in (state.model, state.evaluated):
        assert model.head.weight is model.embedding.weight
        assert model.head.weight.data_ptr() == model.embedding.weight.data_ptr()
    assert tensors["model"]["head.weight"].equal(tensors["model"]["embedding.weight"])
    stored = (source / "model.safetensors").stat().st_size
    untied = begin(ready(NOISY, GPT), tmp_path / "untied")
    save(*untied)
    assert stored < (tmp_path / "untied/checkpoints/step-0/model.safetensors").stat().st_size, "stored once"
    cases.advance(job, state, 2)
    assert state.model.head.weight.equal(state.model.embedding.weight)
    assert "head.weight" not in {name.split("/")[-1] for name in state.tensors()["optimizer"]}


def test_26_aliases_come_from_storage(tmp_path: Path) -> None:
    """A model that ties without any setting that says so."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    store.write_store(tmp_path / "s", {"model": {k: v.detach() for k, v in model.state_dict(keep_vars=True).items()}}, {})
    tensors, _ = store.read_store(tmp_path / "s")
    assert tensors["model"]["1.weight"].data_ptr() == tensors["model"]["0.weight"].data_ptr()
    assert tensors["model"]["1.bias"].data_ptr() != tensors["model"]["0.bias"].data_ptr()


class Named(nn.Module):
    """Two layers of one shape under names given in an order."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            setattr(self, name, nn.Linear(3, 3))


def test_27_moments_follow_names_not_positions() -> None:
    torch.manual_seed(0)
    flats = [FlatParameters(Named(*names)) for names in (("a", "b"), ("b", "a"))]
    memory = AdamW().init(flats[0])
    memory["exp_avg"].copy_(torch.arange(len(memory["exp_avg"])))
    saved = flats[0].named(memory["exp_avg"])
    other = AdamW().init(flats[1])
    flats[1].load(other["exp_avg"], saved)
    for name in flats[0].names:
        assert torch.equal(flats[1].view(other["exp_avg"], name), saved[name])
    assert not torch.equal(other["exp_avg"], memory["exp_avg"])


def test_27_another_name_or_shape_is_an_error(tmp_path: Path) -> None:
    run_whole(lambda: ready(NOISY, MLP), tmp_path, until=4)
    source, tensors, numbers = checkpoint.newest_good(tmp_path)  # type: ignore[misc]
    for model, words in ((MLPConfig(hidden=(10,)), "shape"), (MLPConfig(hidden=(9, 9)), "missing")):
        _, state = begin(ready(NOISY, model), tmp_path / "other")
        before = {name: tensor.clone() for name, tensor in all_tensors(state).items()}
        with pytest.raises(UserError, match=words) as caught:
            checkpoint.restore(state, tensors, numbers, source)
        assert "hidden" in str(caught.value)
        assert state.step == 0 and differing(all_tensors(state), before) == [], "refused before anything is written"
    renamed = {**tensors, "optimizer": {name.replace("hidden.0", "hidden.9"): tensor for name, tensor in tensors["optimizer"].items()}}
    _, state = begin(ready(NOISY, MLP), tmp_path / "other")
    with pytest.raises(UserError, match="hidden"):
        checkpoint.restore(state, renamed, numbers, source)


def test_30_old_checkpoints_go_only_after_the_new_one_stands(tmp_path: Path) -> None:
    """At every file operation of a save: dying there leaves a checkpoint that verifies, and `last` names one."""
    job, state = begin(ready(NOISY, MLP, keep=1), tmp_path / "run")
    cases.advance(job, state, 1)
    save(job, state)
    cases.advance(job, state, 1)
    number = 0
    while True:
        number += 1
        there = tmp_path / f"at-{number}"
        shutil.copytree(tmp_path / "run", there)
        fault.arm("eio", number)
        try:
            checkpoint.save(state, there, keep=1, facts=job.facts)
        except OSError:
            pass
        else:
            break
        finally:
            fault.disarm()
        source, _, numbers = checkpoint.newest_good(there)  # type: ignore[misc]
        assert numbers["step"] in (1, 2)
        store.verify_store(checkpoint.named(there, "last"))
    assert number > 10
    assert [folder.name for folder in checkpoint.by_age(there)] == ["step-2"]


def test_30_a_damaged_newest_is_passed_over_and_none_left_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_whole(lambda: ready(NOISY, MLP, keep=3), tmp_path)
    newest, second, third = checkpoint.by_age(tmp_path)
    for folder, name in ((newest, "model.safetensors"), (second, "state.json")):
        path = folder / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    found = checkpoint.newest_good(tmp_path)
    assert found is not None and found[0] == third
    assert "falling back" in capsys.readouterr().err
    (third / "optimizer.safetensors").unlink()
    with pytest.raises(Damaged):
        checkpoint.newest_good(tmp_path)


def test_30_best_is_kept_however_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchstone.train import loop

    values = iter([0.1, 0.9, 0.2, 0.3, 0.4, 0.5])
    monkeypatch.setattr(loop, "score", lambda *a: {"accuracy": next(values)})
    job, state = begin(ready(NOISY, MLP, keep=2), tmp_path)
    for step in range(1, 7):
        state.step = step
        look(job, state, [])
        save(job, state)
    assert sorted(folder.name for folder in checkpoint.by_age(tmp_path)) == ["step-2", "step-5", "step-6"]
    assert checkpoint.named(tmp_path, "best").name == "step-2" and checkpoint.named(tmp_path, "last").name == "step-6"
    store.verify_store(checkpoint.named(tmp_path, "best"))


def test_the_verb_repeats_and_resumes_itself(tmp_path: Path) -> None:
    """Cases 1 to 4 through the front door: `train` twice, and once with more steps of the same run after an end."""
    experiment = replace(ready(NOISY).experiment, data=data.Digits(), model=MLP, method=AUGMENTED)
    edits = ("run.steps=6", "run.batch_size=64", "run.evaluate_every=2")
    first = train_experiment(experiment, *edits, out=tmp_path / "a")
    second = train_experiment(experiment, *edits, out=tmp_path / "b")
    assert first.metrics["final"] == second.metrics["final"]
    for name in ("model.safetensors", "average.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "a/checkpoints/step-6" / name).read_bytes() == (tmp_path / "b/checkpoints/step-6" / name).read_bytes()
    for folder in checkpoint.by_age(tmp_path / "b")[:1]:
        shutil.rmtree(folder)
    (tmp_path / "b/metrics.json").unlink()
    train_experiment(experiment, *edits, out=tmp_path / "b", resume=True)
    for name in ("model.safetensors", "average.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "a/checkpoints/step-6" / name).read_bytes() == (tmp_path / "b/checkpoints/step-6" / name).read_bytes()
