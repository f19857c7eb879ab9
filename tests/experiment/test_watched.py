"""Schedules and stops that wait for a metric: one that no evaluation gives is refused before anything is written."""

from pathlib import Path

import pytest

from cli.small import TINY_GPT, refused
from torchstone.cli import main
from torchstone.experiment import prepare
from torchstone.experiment.preparing import metric_names
from torchstone.recipes import RECIPES
from train.small import MLP, train

PATIENT = ("stop=patience", "stop.metric=accuracy")


@pytest.mark.parametrize(
    ("recipe", "edits", "words"),
    [
        (["digits-mini"], ["stop=patience", "stop.metric=acuracy"], ("method.stop.metric", 'did you mean "accuracy"?', "macro_f1")),
        (["digits-mini"], ["schedules=[plateau]", "schedules.0.metric=val_loss"], ("method.schedules.0.metric", 'did you mean "loss"?')),
        (["digits-mini"], ["stop=patience", "stop.metric=roc_auc"], ("gives no 'roc_auc'", "task.also=[roc_auc] measures it")),
        (["digits-mini"], ["stop=patience", "stop.metric=per_class"], ("gives no 'per_class'",)),
        (TINY_GPT, ["stop=patience", "stop.metric=balanced_accuracy"], ("task=language", "(loss, bits_per_byte, accuracy)")),
    ],
)
def test_a_metric_that_no_evaluation_gives(
    recipe: list[str],
    edits: list[str],
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(["train", *recipe, *edits], *words, capsys=capsys)
    assert not list(tmp_path.iterdir())


def test_what_is_measured_may_be_waited_for(tmp_path: Path) -> None:
    done = train(tmp_path / "run", "task.also=[roc_auc]", "stop=patience", "stop.metric=roc_auc", "schedules=[plateau]")
    assert done.status in ("done", "stopped") and "roc_auc" in done.metrics["final"]


@pytest.mark.parametrize("recipe", ["digits-mini", "digits"])
def test_the_names_are_those_of_a_real_evaluation(recipe: str, tmp_path: Path) -> None:
    prepared = prepare(RECIPES[recipe](), "run.threads=1")
    names = metric_names(prepared.experiment, prepared.model, prepared.splits)
    final = train(tmp_path / "run", "run.epochs=1").metrics["final"]
    assert set(names) == {name for name, value in final.items() if isinstance(value, float)}


def test_nothing_is_measured_for_those_who_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchstone.experiment.preparing.metric_names", lambda *_: pytest.fail("measured"))
    prepare(RECIPES["digits-mini"](), *MLP)
    with pytest.raises(pytest.fail.Exception):
        prepare(RECIPES["digits-mini"](), *MLP, *PATIENT)


def test_outputs_are_made_only_for_a_loss_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("torchstone.experiment.preparing.few_outputs", lambda *found: asked.append(found))
    for loss, times in (("mse", 0), ("cross_entropy", 1)):
        prepare(RECIPES["digits-mini"](), *MLP, f"loss={loss}")
        assert len(asked) == times, loss


def test_the_dry_run_refuses_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    refused(["train", "digits-mini", "stop=patience", "stop.metric=x", "--dry-run"], "gives no 'x'", capsys=capsys)
    assert main(["train", "digits-mini", *PATIENT, "--dry-run"]) == 0
