"""What a run keeps for its report: outputs, mistakes, samples."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import torchstone
import torchstone.report
from laws.cases import TinyImages
from torchstone.core.protocols import Facts, ImageShape
from torchstone.data.splits import TensorSplit
from torchstone.experiment import load_experiment, prepare
from torchstone.experiment.keepsakes import confident_mistakes, label_of, samples_of_every_class
from torchstone.tasks import Classify
from torchstone.train.results import Predictions
from train.small import CONV, MLP, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("kept") / "run", "run.epochs=1", base=CONV).folder


def test_predictions_are_the_final_metrics(run: Path) -> None:
    kept = load_file(run / "predictions.safetensors")
    final = json.loads((run / "metrics.json").read_text())["final"]
    assert kept["outputs"].shape == (270, 10) and kept["outputs"].dtype == torch.float32
    assert kept["index"].tolist() == list(range(270))
    assert (kept["outputs"].argmax(1) == kept["target"]).double().mean().item() == final["accuracy"]
    truth = prepare(load_experiment(run / "experiment.toml")).splits.test.fetch(np.arange(270))[1]
    assert torch.equal(kept["target"], truth)


def test_mistakes_are_the_confident_ones_with_their_pictures(run: Path) -> None:
    kept = load_file(run / "predictions.safetensors")
    told = json.loads((run / "pictures" / "index.json").read_text())["mistakes"]
    probability, answer = kept["outputs"].softmax(1).max(1)
    wrong = (answer != kept["target"]).nonzero().flatten()
    assert len(told) == min(24, len(wrong)) > 3
    assert [row["probability"] for row in told] == sorted((row["probability"] for row in told), reverse=True)
    assert told[0]["probability"] == pytest.approx(float(probability[wrong].max()))
    pixels = prepare(load_experiment(run / "experiment.toml")).splits.test.fetch(np.array([told[0]["index"]]))[0][0, 0]
    picture = np.asarray(Image.open(run / "pictures" / told[0]["file"]).convert("L"))
    assert np.array_equal(picture[::8, ::8], np.rint(pixels.double().numpy() * 255))
    for row in told:
        assert row["truth"] == str(int(kept["target"][row["index"]])) != row["label"] == str(int(answer[row["index"]]))


def test_samples_before_and_after_augmentation(run: Path) -> None:
    document = json.loads((run / "pictures" / "index.json").read_text())
    assert [row["label"] for row in document["originals"]] == [*map(str, range(10)), "0", "1"]
    assert len(document["augmented"]) == 12 and any("+" in row["label"] for row in document["augmented"])  # mixup
    for row in document["originals"] + document["augmented"]:
        assert Image.open(run / "pictures" / row["file"]).size == (64, 64)


def test_a_resumed_run_makes_them_anew(run: Path, tmp_path: Path) -> None:
    again = train(tmp_path / "run", "run.epochs=1", base=CONV).folder
    before = {path.name: path.read_bytes() for path in (again / "pictures").iterdir()}
    (again / "metrics.json").unlink()
    train(again, "run.epochs=1", base=CONV, resume=True)
    assert {path.name: path.read_bytes() for path in (again / "pictures").iterdir()} == before


def test_vectors_and_interrupted_runs_have_no_pictures(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", x=np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), y=np.arange(60) % 3)
    folder = train(
        tmp_path / "run", "data=arrays", f"data.path={tmp_path}/v.npz", "run.batch_size=16", base=(*MLP, "batch_transforms=[]")
    ).folder
    assert not (folder / "pictures").exists() and load_file(folder / "predictions.safetensors")["outputs"].shape[1] == 3


def test_the_origin_is_kept(tmp_path: Path) -> None:
    experiment = torchstone.recipes.digits_mini()
    folder = torchstone.train(experiment, *MLP, "averaging=ema", out=tmp_path / "run", recipe="digits-mini").folder
    told = json.loads((folder / "environment.json").read_text())
    assert told["recipe"] == "digits-mini"
    assert {"path": "run.epochs", "before": "20", "after": "3"} in told["edits"]
    assert any(edit["path"] == "method.averaging" and edit["before"] == "None" for edit in told["edits"])
    assert not any(edit["path"].startswith("method.batch_transforms") for edit in told["edits"])  # resolved, not edited


def test_closed_forms() -> None:
    outputs = torch.tensor([[9.0, 0.0], [0.0, 1.0], [5.0, 0.0], [0.0, 2.0]])
    predictions = Predictions(torch.tensor([4, 5, 6, 7]), outputs, torch.tensor([1, 1, 1, 0]))
    assert [(index, truth, answer) for index, truth, answer, _ in confident_mistakes(predictions, 2)] == [(4, 1, 0), (6, 1, 0)]
    assert label_of(torch.tensor([0.25, 0.75]), ("a", "b")) == "75% b + 25% a" and label_of(torch.tensor(1), ("a", "b")) == "b"
    target = torch.tensor([0] * 30 + [1] * 2 + [2])
    facts = Facts(inputs=ImageShape(1, 2, 2), classes=("a", "b", "c"))
    rows = samples_of_every_class(TensorSplit(torch.zeros(33, 1, 2, 2), target), facts, 5)
    assert target[torch.from_numpy(rows)].tolist() == [0, 1, 2, 0, 1]
    assert TinyImages  # the laws' own data have pictures too


def test_a_mistake_is_what_the_threshold_gets_wrong() -> None:
    """Of four samples the likelier class is wrong for one, the threshold of 20 % for another two."""
    second = torch.tensor([0.3, 0.1, 0.4, 0.9])
    outputs, target = torch.stack([(1 - second).log(), second.log()], dim=1), torch.tensor([0, 0, 1, 0])
    predictions = Predictions(torch.arange(4), outputs, target)
    at_half = [(index, answer) for index, _, answer, _ in confident_mistakes(predictions, 9, Classify())]
    at_fifth = [(index, answer) for index, _, answer, _ in confident_mistakes(predictions, 9, Classify(threshold=0.2))]
    assert at_half == [(3, 1), (2, 0)] == [(index, answer) for index, _, answer, _ in confident_mistakes(predictions, 9)]
    assert at_fifth == [(3, 1), (0, 1)]


def test_the_kept_mistakes_are_those_of_the_fitted_threshold(tmp_path: Path) -> None:
    """Precision is asked for, so that the threshold lies high; prediction and the album agree on who is wrong."""
    draw = np.random.default_rng(0)
    y = (np.arange(400) % 4 == 0).astype(np.int64)
    x = draw.integers(0, 120, size=(400, 8, 8, 1), dtype=np.uint8) + (40 * y)[:, None, None, None].astype(np.uint8)
    x[::3] = draw.integers(0, 160, size=x[::3].shape, dtype=np.uint8)
    np.savez(tmp_path / "two.npz", x=x, y=y)
    edits = ("data=arrays", f"data.path={tmp_path}/two.npz", "task.threshold_by=f_score", "task.threshold_by.beta=3", "run.epochs=3")
    folder = train(tmp_path / "run", *edits, base=("model.hidden=[8]", "run.batch_size=32", "run.threads=1", "run.trackers=[]")).folder
    kept, fitted = load_file(folder / "predictions.safetensors"), json.loads((folder / "artifact.json").read_text())["task"]["threshold"]
    told = json.loads((folder / "pictures" / "index.json").read_text())["mistakes"]
    answer = (kept["outputs"].double().softmax(1)[:, 1] >= fitted).long()
    wrong = set((answer != kept["target"]).nonzero().flatten().tolist())
    assert not torch.equal(answer, kept["outputs"].argmax(1)), "the threshold changes an answer"
    assert {row["index"] for row in told} <= wrong and len(told) == min(24, len(wrong)) > 0
    labels = [
        row["label"]
        for row in torchstone.load(folder, device="cpu").predict(
            prepare(load_experiment(folder / "experiment.toml")).splits.test.fetch(np.array([row["index"] for row in told]))[0].numpy()
        )
    ]
    assert labels == [row["label"] for row in told]
    assert f"from a probability of {100 * fitted:.1f}" in torchstone.report.page(folder).replace("\u202f", " ")
