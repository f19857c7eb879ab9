"""What is refused before training, and in what words; targets that are no class; probabilities in place of logits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from laws import cases
from losses.test_every_loss import ALL, C, N, draw, whole
from torchstone import losses
from torchstone.core import errors
from torchstone.core.errors import UserError
from torchstone.data.splits import TensorSplit
from torchstone.experiment import preparing
from torchstone.losses.layouts import require_fit, tell_probabilities
from torchstone.losses.targets import OutsideClasses
from torchstone.slim import CosineHead
from torchstone.tasks import Classify, Language
from torchstone.train.loop import fit
from torchstone.train.signals import Request


@pytest.fixture(autouse=True)
def nothing_told() -> Iterator[None]:
    before = set(errors._warned)
    errors._warned.clear()
    yield
    errors._warned.update(before)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_a_loss_of_other_outputs_is_refused_by_name(loss: Any) -> None:
    for task in (Classify(), Language()):
        if "classes" in loss.takes:
            require_fit(loss, task)
            continue
        with pytest.raises(UserError) as caught:
            require_fit(loss, task)
        message = str(caught.value)
        assert f"method.loss={cases.kind_of(loss)} takes" in message and f"task={cases.kind_of(task)} gives logits" in message
        assert "method.loss=cross_entropy fits" in message and "\n" not in message
        if "cosines" in loss.takes:
            assert "model_transforms+=cosine_head" in message
            require_fit(loss, task, (CosineHead(),))


def test_refused_before_training_and_a_loss_of_ones_own_is_let_through() -> None:
    with pytest.raises(UserError, match=r"method\.loss=giou takes predicted boxes .* task=classify gives"):
        cases.ready(replace(cases.PLAIN, loss=losses.GIOU()))
    require_fit(object(), Classify())


@pytest.mark.parametrize(
    "loss",
    [losses.CrossEntropy(), losses.Focal(), losses.NLL(), losses.BCE(), losses.KLDiv(), losses.MSE(), losses.MAE(), losses.MultiMargin()],
    ids=str,
)
@pytest.mark.parametrize("found", [C, -1])
def test_a_target_outside_the_classes_names_its_row(loss: Any, found: int) -> None:
    target = whole(N)
    target[3] = found
    with pytest.raises(OutsideClasses, match=rf"the target of row 3 of the batch is class {found}; the outputs have classes 0 to 4"):
        loss(draw(N, C), target)


def test_class_weights_and_tokens_name_the_row_too() -> None:
    target = whole(2, 3)
    target[1, 2] = 9
    with pytest.raises(OutsideClasses, match="row 1 of the batch is class 9"):
        losses.CrossEntropy(class_weights=(1.0, 2.0, 3.0, 4.0, 5.0))(draw(2, 3, C), target)
    with pytest.raises(OutsideClasses, match="is class 9"):
        losses.CrossEntropy(class_weights=(1.0, 2.0, 3.0, 4.0, 5.0)).weight(target)


def test_in_training_it_names_the_sample(tmp_path: Path) -> None:
    job, state = cases.begin(cases.ready(cases.PLAIN), tmp_path)
    split = job.splits.train
    target = split.target.clone()  # type: ignore[attr-defined]
    target[17] = 3
    job = replace(job, splits=replace(job.splits, train=TensorSplit(split.inputs, target)))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"the target of training sample 17 is class 3; the outputs have classes 0 to 2"):
        fit(job, state, [], Request())


def test_probabilities_in_place_of_logits_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert tell_probabilities(losses.CrossEntropy(), draw(N, C).softmax(1))
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("warning: ") and f"no number of {N} rows is negative" in error
    assert "each row adds up to 1" in error and "method.loss=cross_entropy takes logits" in error
    for outputs in (draw(N, C), draw(N, C).sigmoid(), torch.zeros(N, C), draw(N, 1).sigmoid(), draw(0, C)):
        assert not tell_probabilities(losses.CrossEntropy(), outputs)
    assert not tell_probabilities(losses.MSE(), draw(N, C).softmax(1)), "squared error may well be taken of probabilities"
    assert capsys.readouterr().err == ""


def test_a_model_that_ends_in_a_softmax_is_told_before_training(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = preparing.build_model
    monkeypatch.setattr(preparing, "build_model", lambda *given: nn.Sequential(build(*given), nn.Softmax(dim=-1)))
    cases.ready(replace(cases.PLAIN, loss=losses.Focal(gamma=1.125)))
    assert "look like probabilities" in capsys.readouterr().err
