"""Evaluations: each sample once, nothing changed by looking, NaN never the best."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from laws.cases import CONV, GPT, NOISY, TinyImages, advance, all_tensors, begin, differing, ready, run_whole, snapshot, steady, trained
from torchstone.data import AddNoise, Flip, Normalize, Resize
from torchstone.losses import CrossEntropy
from torchstone.metrics import Accuracy, MeanLoss
from torchstone.optim import Patience
from torchstone.train.evaluate import evaluate, evaluating
from torchstone.train.loop import look, score


def scored(model: nn.Module, **options: Any) -> dict[str, Any]:
    split = TinyImages().open().validation
    options = {"loss": CrossEntropy(), "metrics": (MeanLoss(), Accuracy()), "device": torch.device("cpu"), "batch_size": 5} | options
    return evaluate(model, split, **options)


def test_modes_are_put_back_one_by_one() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    model.train()
    model[1].eval()
    model[2][0].eval()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == before


def test_looking_changes_nothing_at_all(tmp_path: Path) -> None:
    job, state = begin(ready(NOISY), tmp_path)
    advance(job, state, 3)
    before, noise = snapshot(state), torch.random.get_rng_state()
    score(job, state, job.splits.validation)
    assert snapshot(state) == before
    assert torch.equal(torch.random.get_rng_state(), noise)


@pytest.mark.parametrize("model", [CONV, GPT], ids=["conv_net", "gpt"])
def test_evaluating_after_every_step_or_at_the_end_trains_the_same(model: Any, tmp_path: Path) -> None:
    often = run_whole(lambda: ready(NOISY, model, evaluate_every=1), tmp_path / "often")
    never = run_whole(lambda: ready(NOISY, model, evaluate_every=1000), tmp_path / "never")
    assert len(often[1].history.evaluations) == often[1].step > len(never[1].history.evaluations) == 1
    assert differing(all_tensors(often[1]), all_tensors(never[1])) == []


@pytest.mark.parametrize("batch_size", [1, 2, 4, 12, 13, 100])
def test_the_batch_size_is_no_matter(batch_size: int, tmp_path: Path) -> None:
    model = trained(NOISY, tmp_path).model
    reference, here = scored(model, batch_size=13), scored(model, batch_size=batch_size)
    assert here["accuracy"] == reference["accuracy"]
    assert here["loss"] == pytest.approx(reference["loss"], rel=1e-6)


def test_against_the_definition(tmp_path: Path) -> None:
    model, split = trained(NOISY, tmp_path).model, TinyImages().open().validation
    model.eval()
    with torch.no_grad():
        logits = model(split.inputs)
    found = scored(model)
    assert found["accuracy"] == int((logits.argmax(1) == split.target).sum()) / 13
    assert found["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, split.target)), rel=1e-6)


def test_only_what_is_not_for_training_alone_is_applied(tmp_path: Path) -> None:
    model = trained(NOISY, tmp_path).model
    plain = scored(model)
    assert scored(model, batch_transforms=(Flip(p=1.0),), sample_transforms=(AddNoise(std=9.0),)) == plain
    assert scored(model, batch_transforms=(Normalize(mean=(0.5,), std=(2.0,)),)) != plain
    assert scored(model, sample_transforms=(Resize(height=4, width=4),)) != plain


def test_the_averaged_weights_are_the_ones_looked_at(tmp_path: Path) -> None:
    job, state = begin(ready(NOISY), tmp_path)
    advance(job, state, 4)
    assert state.evaluated is state.average.module
    averaged = score(job, state, job.splits.validation)
    assert averaged != score(job, replace(state, average=None), job.splits.validation)
    assert averaged == score(job, replace(state, model=nn.Identity()), job.splits.validation)


def test_outputs_are_kept_on_demand(tmp_path: Path) -> None:
    kept: list[Any] = []
    scored(trained(NOISY, tmp_path).model, keep=kept)
    assert torch.cat([rows for rows, _, _ in kept]).tolist() == list(range(13))
    assert torch.cat([outputs for _, outputs, _ in kept]).shape == (13, 3)


# --- the best ----------------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """A metric that says what it is told to, one value a look."""

    values: list[float]

    def measure(self, outputs: Any, target: Any, weight: torch.Tensor, terms: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"count": weight.sum(dtype=torch.float64)}

    def result(self, sums: Any) -> dict[str, Any]:
        return {"told": self.values.pop(0)}


@pytest.mark.parametrize(
    "mode, values, best",
    [
        ("max", [0.5, math.nan, 0.4], 1),
        ("max", [math.nan, math.nan], None),
        ("max", [math.nan, 0.1, math.nan, 0.3, 0.3], 4),
        ("min", [2.0, math.nan, 1.0, 1.0], 3),
        ("min", [math.nan, -math.inf, math.nan], 2),
    ],
)
def test_nan_is_never_the_best_and_of_equals_the_first_is(mode: str, values: list[float], best: int | None, tmp_path: Path) -> None:
    job, state = begin(ready(NOISY), tmp_path)
    job = replace(job, metrics=(Told(list(values)),), selection=("told", mode))
    for step in range(1, len(values) + 1):
        state.step = step
        look(job, state, ())
    assert (None if state.best is None else state.best.step) == best
    assert [repr(evaluation.metrics["told"]) for evaluation in state.history.evaluations] == [repr(value) for value in values]


def test_a_step_is_looked_at_once(tmp_path: Path) -> None:
    job, state = begin(ready(NOISY), tmp_path)
    look(job, state, ())
    look(job, state, ())
    assert len(state.history.evaluations) == 1


def test_a_metric_of_nan_does_not_end_patience(tmp_path: Path) -> None:
    job, state = begin(ready(NOISY, evaluate_every=1), tmp_path)
    method = replace(job.method, stop=Patience(metric="told", patience=2))
    job = replace(job, method=method, metrics=(Told([0.9, math.nan, math.nan, math.nan, 0.8]),), selection=("told", "max"))
    for step in range(1, 5):
        state.step = step
        look(job, state, ())
        assert job.method.stop(state.history) is None
    state.step = 5
    look(job, state, ())
    assert steady(state)["best"] == repr({"step": 1, "value": 0.9})
