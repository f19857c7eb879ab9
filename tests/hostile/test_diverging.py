"""A training that diverges stops before the first bad update, says where, and keeps what was good."""

import json
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import torchstone
from hostile.child import command
from laws.cases import NOISY, advance, all_tensors, begin, ready
from torchstone.core import store
from torchstone.core.errors import WorkError
from torchstone.losses import CrossEntropy
from train.small import MLP, train


def test_a_rate_of_a_million(tmp_path: Path) -> None:
    out = tmp_path / "run"
    edits = (*MLP, "run.evaluate_every=1", "optimizer=sgd", "optimizer.lr=1e6", "gradient_transforms=[]")
    outcome = command("train", "digits-mini", *edits, "--out", out)
    assert outcome.code == 1 and outcome.stdout == ""
    assert [line.split(":")[0] for line in outcome.stderr.splitlines()] == ["data", "data", "classes", "groups", "error"]
    step = int(re.search(r"diverged at step (\d+)", outcome.stderr)[1])
    assert f"the last good checkpoint is {out}/checkpoints/step-{step}" in outcome.stderr
    document = json.loads((out / "metrics.json").read_text())
    assert document["status"] == "diverged" and document["final"] == {}
    tensors, _ = store.read_store(out / "checkpoints" / f"step-{step}", finite=("model", "optimizer"))
    assert tensors["model"]
    again = command("train", "digits-mini", *edits, "--out", out, "--resume")
    assert again.code == 1 and f"diverged at step {step}" in again.stderr


@dataclass(frozen=True)
class Broken(CrossEntropy):
    """NaN from one call on, as a bad batch or kernel would give."""

    calls: list[int] = field(default_factory=list, compare=False)
    at: int = 7
    bad: float = math.nan

    def __call__(self, outputs: Any, target: Any) -> Tensor:
        terms = super().__call__(outputs, target)
        if torch.is_grad_enabled():
            self.calls.append(1)
            if len(self.calls) == self.at:
                return terms * self.bad
        return terms


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nothing_moves_from_the_bad_step_on(bad: float, tmp_path: Path) -> None:
    job, state = begin(ready(replace(NOISY, loss=Broken(at=3, bad=bad))), tmp_path)
    advance(job, state, 2)
    memory = {"optimizer": {k: v.clone() for k, v in state.optimizer.items()}, "data": state.parameters.data.clone()}
    advance(job, state, 4)
    assert (state.guard.tripped_at, state.updates, state.step) == (2, 2, 6)
    assert torch.equal(state.parameters.data, memory["data"])
    assert all(torch.equal(state.optimizer[k], v) for k, v in memory["optimizer"].items())
    trained = [name for name, tensor in all_tensors(state).items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    assert trained == []


def test_an_injected_nan_names_step_and_checkpoint(tmp_path: Path) -> None:
    experiment = torchstone.recipes.digits_mini()
    experiment = replace(experiment, method=replace(experiment.method, loss=Broken(at=8)))
    with pytest.raises(WorkError, match=r"diverged at step 7: .*no update was made from it; the last good checkpoint is .*/step-5$"):
        torchstone.train(experiment, *MLP, out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["status"] == "diverged"
    store.verify_store(tmp_path / "run" / "checkpoints" / "step-5")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")] == ["step-5"]


def test_before_the_first_checkpoint_it_says_so(tmp_path: Path) -> None:
    experiment = torchstone.recipes.digits_mini()
    experiment = replace(experiment, method=replace(experiment.method, loss=Broken(at=1)))
    with pytest.raises(WorkError, match="diverged at step 0: .*there is no checkpoint yet"):
        torchstone.train(experiment, *MLP, out=tmp_path / "run")


def test_a_sane_run_does_not_diverge(tmp_path: Path) -> None:
    assert train(tmp_path / "run").status == "done"
