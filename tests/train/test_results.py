"""metrics.json: what the resulting weights are scored on at the end of a run, and how often."""

import json

import pytest

from torchstone import data
from torchstone.experiment import load_experiment
from torchstone.experiment.measuring import measured
from torchstone.ship import load
from torchstone.train import loop, results
from train.small import CONV, MLP, train


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the splits that are scored, in order."""
    sizes: list[int] = []
    original = loop.score

    def count(job, state, split, keep=None):
        sizes.append(len(split))
        return original(job, state, split, keep)

    for module in (loop, results):
        monkeypatch.setattr(module, "score", count)
    return sizes


def test_the_validation_split_is_not_scored_again_where_the_last_evaluation_was_of_the_result(tmp_path, scored, monkeypatch):
    splits = data.Digits().open()
    looks = [len(splits.validation)] * 3
    for base in (MLP, CONV):
        scored.clear()
        once = train(tmp_path / f"once-{len(base)}", base=base).metrics
        assert scored == [*looks, len(splits.test)]
        with monkeypatch.context() as patch:
            patch.setattr(results, "validation", lambda job, state: results.score(job, state, job.splits.validation))
            scored.clear()
            twice = train(tmp_path / f"twice-{len(base)}", base=base).metrics
        assert scored == [*looks, len(splits.test), len(splits.validation)]
        assert once["validation"] == twice["validation"] and once["final"] == twice["final"]


@pytest.mark.parametrize("edit", ["run.select=best", "task.calibration=temperature"])
def test_it_is_where_the_result_may_be_another(tmp_path, scored, edit):
    train(tmp_path / "run", edit)
    assert scored.count(len(data.Digits().open().test)) >= 1 and scored[-1] == len(data.Digits().open().validation)


def test_the_training_split_is_scored_if_asked_for_as_an_evaluation_does(tmp_path):
    run = train(tmp_path / "run", "batch_transforms=[normalize,mixup]", "run.evaluate_training=true", "averaging=ema")
    found = measured(load_experiment(run.folder / "experiment.toml"), load(run.folder), data.Digits().open().train)
    assert run.metrics["training"] == json.loads(json.dumps(found)) != run.metrics["validation"]
    assert "training" not in train(tmp_path / "plain").metrics
