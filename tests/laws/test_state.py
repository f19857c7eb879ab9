"""Law: one state. Everything that training changes is in `TrainState` and comes back from a checkpoint.

Walks all that is reachable by attributes from the state and the job, before and after some steps, and after restoring into a fresh state.
"""

import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import cases
from laws.cases import METHOD_PARTS, NOISY, Part, begin, put_in, ready, snapshot
from torchstone.optim import EMA, ClipByNorm, Cosine, Muon, NoDecay
from torchstone.slim import DropPathRamp
from torchstone.train import checkpoint
from torchstone.train.loop import fit, look
from torchstone.train.method import Method
from torchstone.train.signals import Request
from torchstone.train.state import TrainState

DERIVED = {
    ".grad": "scratch: every step fills it anew",
    "._grads": "views of the same scratch",
    ".guard": "sticky until the process ends; nothing is stored once it trips",
    "_buffers['rate']": "DropPath's: a function of the update index, written before each forward",
    ".forward": "the model as the step calls it",
    ".seconds": "wall time",
    ".__beartype_": "of the type checker that tests put on functions",
    ".looked": "what this process's newest evaluation measured; a process that has none measures again",
}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {path for path in paths if not any(word in path for word in DERIVED)}


def used(state: TrainState) -> TrainState:
    """Computes now what the layout of the parameters computes once, on its first use."""
    for flat in (state.parameters, state.average):
        for name, kept in vars(type(flat)).items():
            if isinstance(kept, cached_property):
                getattr(flat, name)
    return state


def one_state(prepared: Any, folder: Path, steps: int = 4) -> set[str]:
    """What `steps` updates and an evaluation changed; fails if any of it is not what a fresh state gets from the checkpoint."""
    job, state = begin(prepared(), folder)
    roots = lambda s: {"state": s, "method": job.method, "run": job.run, "splits": job.splits, "metrics": job.metrics}
    before = snapshot(roots(used(state)))
    cases.advance(job, state, steps)
    look(job, state, [])
    after = snapshot(roots(state))
    # Rates that the groups move are no state: a pure function of the step, written before every update (protocols.MovingGroups).
    before, after = ({path: value for path, value in s.items() if not path.endswith(".lr_scale")} for s in (before, after))
    moved = changed(before, after)
    checkpoint.save(state, folder, keep=1, facts=job.facts)

    _, fresh = begin(prepared(), folder)
    source, tensors, numbers = checkpoint.newest_good(folder)  # type: ignore[misc]
    checkpoint.restore(fresh, tensors, numbers, source)
    restored = {path: value for path, value in snapshot(roots(used(fresh))).items() if not path.endswith(".lr_scale")}
    lost = {path for path in moved if restored.get(path) != after.get(path)}
    assert lost == set()
    assert changed(restored, after) == set(), "restoring left something else behind"
    return moved


@pytest.mark.parametrize("part", METHOD_PARTS, ids=str)
def test_every_part(part: Part, tmp_path: Path) -> None:
    model = cases.GPT if cases.WORLD.get(part.kind) == "tokens" else cases.CONV
    moved = one_state(lambda: ready(put_in(NOISY, part, part.make(tmp_path)), model), tmp_path)
    assert not [path for path in moved if not path.startswith("['state']")], "a step changed what is no state"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_all_kinds_of_memory_are_walked(precision: str, tmp_path: Path) -> None:
    """Dropout, batch norm, moments, average, loss scale, history: each is met, so the law can see it."""
    method = Method(
        loss=NOISY.loss,
        model_transforms=(DropPathRamp(),),
        gradient_transforms=(ClipByNorm(),),
        groups=NoDecay(),
        optimizer=Muon(),
        schedules=(Cosine(warmup=0.05),),
        averaging=EMA(decay=0.5),
    )
    model = replace(cases.CONV, widths=(4,), blocks_per_stage=2)
    moved = one_state(lambda: ready(method, model, precision=precision), tmp_path)
    expected = [
        "running_mean",
        "num_batches_tracked",
        "['exp_avg']",
        "['exp_avg_sq']",
        "['step']",
        ".average",
        ".updates",
        ".evaluations",
        ".best",
    ]
    if precision == "fp16":
        expected.append(".scale")
    for word in expected:
        assert any(word in path for path in moved), word


def test_tensors_are_views_not_copies(tmp_path: Path) -> None:
    job, state = begin(ready(NOISY), tmp_path)
    tensors = state.tensors()
    held = {name: cases.raw(tensor) for name, tensor in cases.all_tensors(state).items()}
    cases.advance(job, state, 3)  # the last norm of a branch starts at 0 and holds back what lies before it
    now = {f"{file}/{name}": tensor for file, named in tensors.items() for name, tensor in named.items()}
    still = [name for name, tensor in now.items() if cases.raw(tensor) == held[name]]
    assert still == [], "all of them moved"


def test_moments_are_filed_under_the_parameters_names(tmp_path: Path) -> None:
    _, state = begin(ready(replace(NOISY, groups=NoDecay())), tmp_path)
    names = {name for name, _ in state.model.named_parameters()}
    filed = state.tensors()["optimizer"]
    assert {f"{moment}/{name}" for moment in ("exp_avg", "exp_avg_sq") for name in names} | {"step"} == set(filed)
    shapes = {name: p.shape for name, p in state.model.named_parameters()}
    assert all(tensor.shape == shapes[name.split("/")[1]] for name, tensor in filed.items() if "/" in name)


class Counting:
    """A loss that remembers how often it was called, on itself: what the law is there to catch."""

    couples = False

    def __init__(self, inner: Any) -> None:
        self.inner, self.calls = inner, 0

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(outputs, target)

    def weight(self, target: Tensor) -> Tensor:
        return self.inner.weight(target)


def test_a_hidden_counter_is_seen(tmp_path: Path) -> None:
    """In a part, and on the model."""
    loss = Counting(NOISY.loss)

    def prepared() -> Any:
        made = ready(NOISY)
        method = replace(made.experiment.method, loss=copy.copy(loss))
        return replace(made, experiment=replace(made.experiment, method=method))

    moved_elsewhere = False
    try:
        moved_elsewhere = any(path.startswith("['method']") for path in one_state(prepared, tmp_path / "a"))
    except AssertionError:
        moved_elsewhere = True
    assert moved_elsewhere

    job, state = begin(ready(NOISY), tmp_path / "b")
    before = snapshot({"state": state})
    state.model.blocks[0].hidden = torch.zeros(())
    assert any(path.endswith(".hidden") for path in changed(before, snapshot({"state": state})))
    assert fit(job, state, [], Request()) == "done"
