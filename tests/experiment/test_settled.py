"""What a task fits on the validation split when training is over: in artifact.json, in the final numbers, in every answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score, precision_score, recall_score, roc_auc_score

import torchstone
from torchstone.cli.eval_ import evaluated
from torchstone.core.errors import UserError
from torchstone.experiment import load_experiment
from torchstone.metrics import FScore
from torchstone.tasks import Classify
from torchstone.train import results
from torchstone.train.results import load_best

SHORT = (
    *("model=mlp", "model.hidden=[8]", "averaging=none", "optimizer.lr=0.02", "batch_transforms=[]", "run.epochs=4"),
    *("run.threads=1", "run.trackers=[]", "run.batch_size=16"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, one in five the second, that overlap."""
    path, draw = tmp_path_factory.mktemp("data") / "two.npz", np.random.default_rng(0)
    y = (np.arange(400) % 5 == 0).astype(np.int64)
    np.savez(path, x=(draw.normal(size=(400, 4)) + 0.8 * y[:, None]).astype(np.float32), y=y)
    return path


def train(data: Path, out: Path, *edits: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """metrics.json and artifact.json."""
    edits = ("data=arrays", f"data.path={data}", *SHORT, *edits)
    done = torchstone.train(torchstone.recipes.digits_mini(), *edits, out=out)
    assert done.status == "done"
    return json.loads((out / "metrics.json").read_text()), json.loads((out / "artifact.json").read_text())


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any], dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("runs")
    fitting = ("task.calibration=temperature", "task.threshold_by=f_score", "task.threshold_by.beta=2", "task.also=[log_loss]")
    plain = ("task.also=[log_loss]",)
    return {name: (folder / name, *train(data, folder / name, *edits)) for name, edits in {"plain": plain, "fitted": fitting}.items()}


def test_training_is_the_same_and_only_the_artifact_s_task_differs(runs: Any) -> None:
    (plain, _, before), (fitted, metrics, after) = runs["plain"], runs["fitted"]
    one, other = (torchstone.load(run).model.state_dict() for run in (plain, fitted))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {**before, "task": None} == {**after, "task": None}
    assert after["task"]["temperature"] == metrics["fitted"]["temperature"] != 1
    assert after["task"]["threshold"] == metrics["fitted"]["threshold"]
    assert "fitted" not in runs["plain"][1]
    stored = load_experiment(fitted / "experiment.toml").task  # what was asked for stays what it was
    assert isinstance(stored, Classify) and stored.temperature == 1 and stored.threshold is None and stored.threshold_by == FScore(beta=2)


def test_both_numbers_are_of_the_validation_split(runs: Any) -> None:
    plain, fitted = (torchstone.load(runs[name][0]) for name in ("plain", "fitted"))
    experiment = load_experiment(runs["plain"][0] / "experiment.toml")
    x, y = (torch.as_tensor(each) for each in experiment.data.open().validation.fetch(np.arange(60)))
    logits = plain.logits(x.numpy()).double()
    best = minimize_scalar(
        lambda t: float(torch.nn.functional.cross_entropy(logits / np.exp(t), y)),
        bounds=(-4, 4),
        method="bounded",
        options={"xatol": 1e-10},
    )
    task = fitted.artifact.task
    assert isinstance(task, Classify)
    assert task.temperature == pytest.approx(np.exp(best.x), rel=1e-5)
    p = (logits / task.temperature).softmax(1)[:, 1].numpy()
    scores = {t: 5 * ((p >= t) & (y.numpy() == 1)).sum() / ((p >= t).sum() + 4 * (y == 1).sum().item()) for t in p}
    assert scores[min(p, key=lambda t: abs(t - task.threshold))] == max(scores.values())
    assert task.threshold == pytest.approx(min(p, key=lambda t: abs(t - task.threshold)), abs=1e-6)


def test_the_final_numbers_are_those_of_the_answers(runs: Any, data: Path) -> None:
    run, metrics, artifact = runs["fitted"]
    test = load_experiment(run / "experiment.toml").data.open().test
    x, y = test.fetch(np.arange(len(test)))
    answers = torchstone.load(run).predict(np.asarray(x))
    p, said, truth = np.array([a["probabilities"]["1"] for a in answers]), np.array([int(a["label"]) for a in answers]), np.asarray(y)
    final = metrics["final"]
    assert (said == (p >= artifact["task"]["threshold"])).all() and 0 < said.mean() < 1
    assert (said != (p > 0.5)).any()  # a threshold of its own
    assert final["threshold_precision"] == pytest.approx(precision_score(truth, said), abs=1e-12)
    assert final["threshold_recall"] == pytest.approx(recall_score(truth, said), abs=1e-12)
    assert final["threshold_f1"] == pytest.approx(f1_score(truth, said), abs=1e-12)
    assert final["roc_auc"] == pytest.approx(roc_auc_score(truth, p), abs=1e-12)
    assert final["average_precision"] == pytest.approx(average_precision_score(truth, p), abs=1e-12)
    assert final["confusion"] == confusion_matrix(truth, p > 0.5).tolist()
    assert evaluated(run)["final"] == final


def test_the_temperature_moves_no_label_and_calibrates(runs: Any) -> None:
    plain, fitted = (runs[name][1]["final"] for name in ("plain", "fitted"))
    assert fitted["accuracy"] == plain["accuracy"] and fitted["roc_auc"] == pytest.approx(plain["roc_auc"], abs=1e-12)
    assert fitted["log_loss"] < plain["log_loss"]


def test_a_threshold_needs_two_classes() -> None:
    for edit in ("task.threshold=0.3", "task.threshold_by=youden"):
        name = edit.partition("=")[0]
        with pytest.raises(UserError, match=f"{name} cuts the probability of the second of two classes; these data have 10"):
            torchstone.train(torchstone.recipes.digits_mini(), edit, "run.epochs=1", out="never")
    for edit, message in (("task.temperature=0", "must be > 0 and finite"), ("task.threshold=2", r"must be in \[0, 1\]")):
        with pytest.raises(UserError, match=message):
            torchstone.train(torchstone.recipes.digits_mini(), edit, out="never")


@pytest.mark.parametrize("edits", [(), ("task.calibration=temperature",)])
def test_the_best_weights_are_read_once(data: Path, tmp_path: Path, edits: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(job: Any, state: Any) -> None:
        read.append(job.folder)
        load_best(job, state)

    monkeypatch.setattr(results, "load_best", counted)
    metrics, _ = train(data, tmp_path / "run", "run.select=best", "optimizer.lr=1", *edits)
    assert len(read) == 1 and metrics["best"]["step"] < metrics["steps"]
    assert evaluated(tmp_path / "run")["final"]["accuracy"] == metrics["final"]["accuracy"]
