"""Cross-validation: a run a fold, what they say together, their ensemble, and going on after an interruption."""

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torchstone
from cli.small import only_json, refused, snapshot
from torchstone.cli import main
from torchstone.cli.eval_ import evaluated
from torchstone.core.errors import Interrupted, UserError
from torchstone.core.protocols import History, ImageShape, Splits
from torchstone.data.facts import describe
from torchstone.data.splits import TensorSplit
from torchstone.experiment import running
from torchstone.experiment.folds import train_folds
from torchstone.ship import load

SETTINGS = ["run.epochs=2", "run.threads=1", "run.trackers=[]"]
SMALL = ["train", "digits-mini", *SETTINGS]


def recipe() -> Any:
    return torchstone.recipes.RECIPES["digits-mini"]()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of the digits."""
    where = tmp_path_factory.mktemp("folds") / "three"
    train_folds(recipe(), *SETTINGS, folds=3, out=where)
    return where


def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_each_fold_is_an_ordinary_run(three: Path) -> None:
    for number in (1, 2, 3):
        run = three / f"fold-{number}"
        said = tomllib.loads((run / "experiment.toml").read_text())
        assert said["data"] == {
            "kind": "fold", "number": number, "of": 3, "by": "stratified", "seed": 0, "source": {"kind": "digits"}
        }  # fmt: skip
        facts = json.loads((run / "artifact.json").read_text())
        assert facts["preprocess"]["batch"][0]["mean"] == facts["facts"]["mean"], "normalized by its own training part"
        assert evaluated(run)["final"] == json.loads((run / "metrics.json").read_text())["final"]
    means = {json.loads((three / f"fold-{number}/artifact.json").read_text())["facts"]["mean"][0] for number in (1, 2, 3)}
    assert len(means) == 3


def test_a_fold_s_own_file_repeats_it(three: Path, tmp_path: Path) -> None:
    assert main(["train", str(three / "fold-2/experiment.toml"), "--out", str(tmp_path / "again")]) == 0
    for name in ("experiment.toml", "artifact.json", "checkpoints/step-32/model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (three / "fold-2" / name).read_bytes()


def test_results_are_what_the_folds_measured(three: Path) -> None:
    results = document(three)
    assert (results["folds"], results["by"], results["metric"]) == (3, "stratified", "accuracy")
    for number, member in enumerate(results["members"], 1):
        metrics = json.loads((three / f"fold-{number}/metrics.json").read_text())
        assert member["run"] == f"fold-{number}" and member["status"] == "done"
        assert member["test"] == {name: value for name, value in metrics["final"].items() if isinstance(value, int | float)}
        for name, value in member["validation"].items():  # the run kept its last weights, which its last evaluation looked at
            assert name not in metrics["best"] or metrics["best"]["step"] != metrics["steps"] or value == metrics["best"][name]
    assert sum(member["sizes"]["validation"] for member in results["members"]) == 1797 - 270
    for split in ("validation", "test"):
        for name in results["mean"][split]:
            values = np.array([member[split][name] for member in results["members"]])
            np.testing.assert_allclose(results["mean"][split][name], values.mean(), rtol=1e-12)
            np.testing.assert_allclose(results["std"][split][name], values.std(ddof=1), rtol=1e-9)


def test_the_ensemble_is_the_mean_of_probabilities(three: Path) -> None:
    splits = recipe().data.open()
    images, target = splits.test.inputs, splits.test.target
    together, members = load(three), [load(three / f"fold-{number}") for number in (1, 2, 3)]
    assert len(together.members) == 3
    mean = np.mean([member.logits(images).double().softmax(1).numpy() for member in members], axis=0)
    np.testing.assert_allclose(together.logits(images).double().softmax(1).numpy(), mean, atol=1e-7)
    answers = together.predict(images[:20])
    for row, answer in enumerate(answers):
        np.testing.assert_allclose(list(answer["probabilities"].values()), mean[row], atol=1e-7)
        assert answer["label"] == str(mean[row].argmax())
    found = document(three)["ensemble"]["test"]
    assert found["accuracy"] == pytest.approx(float((mean.argmax(1) == target.numpy()).mean()), abs=1e-12)
    np.testing.assert_allclose(found["loss"], -np.log(mean[np.arange(270), target.numpy()]).mean(), rtol=1e-6)


def test_bytes_go_through_each_member_s_own_preprocessing(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    labels = (np.arange(80) % 4 == 0).astype(np.int64)
    pixels = (draw.integers(0, 128, (80, 6, 6)) + 100 * labels[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x=pixels, y=labels)
    edits = ["data=arrays", f"data.path={tmp_path / 'd.npz'}", *SETTINGS, "run.batch_size=8", "loss.weighting=balanced"]
    made = train_folds(recipe(), *edits, folds=2, out=tmp_path / "two")
    for number in (1, 2):  # weights of the classes in this fold's own training part: n / (C n_c)
        said = tomllib.loads((tmp_path / f"two/fold-{number}/experiment.toml").read_text())
        counts = np.array(json.loads((tmp_path / f"two/fold-{number}/artifact.json").read_text())["facts"]["class_counts"])
        np.testing.assert_allclose(said["method"]["loss"]["class_weights"], counts.sum() / (2 * counts), rtol=1e-12)
    members = [load(tmp_path / f"two/fold-{number}").logits(pixels[:9]).double().softmax(1) for number in (1, 2)]
    together = load(tmp_path / "two")
    torch.testing.assert_close(together.logits(pixels[:9]).double().softmax(1), sum(members) / 2, rtol=0, atol=1e-7)
    assert evaluated(tmp_path / "two")["final"] == made.results["ensemble"]["test"]


def test_eval_and_predict_take_the_folder(three: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(three), "--json"]) == 0
    told = only_json(capsys)
    assert told["ensemble"] == 3
    assert told["final"] == document(three)["ensemble"]["test"]
    assert main(["eval", str(three)]) == 0
    assert "an ensemble of 3" in capsys.readouterr().out
    np.save(in_tmp / "x.npy", recipe().data.open().test.inputs[:4].numpy())
    assert main(["predict", str(three), "x.npy", "--json"]) == 0
    shown = capsys.readouterr()
    assert len(json.loads(shown.out)) == 4 and "an ensemble of 3" in shown.err
    refused(["predict", str(three), "x.npy", "--snapshots"], "is an ensemble of 3 runs", capsys=capsys)


def test_runs_lists_the_folds(in_tmp: Path, three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(three), "--json"]) == 0
    assert {Path(row["run"]).name for row in only_json(capsys)} == {"fold-1", "fold-2", "fold-3"}


# --- the command line ----------------------------------------------------------------------------------------------------


def test_the_table_and_the_document(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--folds", "2", "--fold-by", "plain"]) == 0
    shown = capsys.readouterr()
    where = in_tmp / "runs/digits-mini/run-folds"
    results = document(where)
    lines = shown.out.splitlines()
    assert lines[0].split() == ["fold", "validation", "accuracy", "validation", "loss", "test", "accuracy", "test", "loss", "run"]
    assert f"{results['mean']['test']['accuracy']:.4f}" in next(line for line in lines if line.startswith("mean"))
    assert any(line.startswith("ensemble") and line.endswith("runs/digits-mini/run-folds") for line in lines)
    assert "fold 2 of 2 (plain)" in shown.err and (where / "fold-1/report.html").is_file()
    assert main([*SMALL, "--resume", "--folds", "2", "--json", "--out", str(where)]) == 0, "a finished one says so and ends well"
    assert only_json(capsys) == results


def test_interrupted_and_gone_on_with(in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real, calls = running.fit, []

    def fit(job: Any, state: Any, trackers: Any, request: Any) -> str:
        calls.append(job.folder.name)
        if job.folder.name == "fold-2" and len(calls) == 2:
            request.signal = 2
        return real(job, state, trackers, request)

    monkeypatch.setattr(running, "fit", fit)
    with pytest.raises(Interrupted, match=r"fold 2 of 3; --folds 3 --out .*a --resume"):
        train_folds(recipe(), *SETTINGS, folds=3, out=in_tmp / "a")
    assert not (in_tmp / "a/fold-3").exists() and not (in_tmp / "a/results.json").exists()
    first = snapshot(in_tmp / "a/fold-1")
    refused(["predict", "a", "x.npy"], "run 3 of 3 (fold-3) is not trained yet", capsys=capsys)
    refused([*SMALL, "--folds", "2", "--out", "a", "--resume"], "was divided into 3 folds, not 2", capsys=capsys)
    refused([*SMALL, "--folds", "3", "--fold-by", "plain", "--out", "a", "--resume"], "its folds are stratified", capsys=capsys)
    assert main([*SMALL, "--out", "a", "--resume"]) == 0, "the folder knows its folds"
    assert calls == ["fold-1", "fold-2", "fold-2", "fold-3"]
    assert {name: text for name, text in snapshot(in_tmp / "a/fold-1").items() if name in first} == first
    monkeypatch.undo()
    train_folds(recipe(), *SETTINGS, folds=3, out=in_tmp / "whole")
    assert document(in_tmp / "a") == document(in_tmp / "whole")


def test_a_changed_recipe_is_refused(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused([*SMALL, "optimizer.lr=0.5", "--out", str(three), "--resume"], "with a changed experiment", capsys=capsys)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--folds", "1"], "--folds must be from 2 to 1000, got 1"),
        (["--folds", "900"], "of every class; class "),
        (["--folds", "3", "--fold-by", "grouped"], "which samples belong together"),
        (["--folds", "3", "--fold-by", "temporal"], "data.split=temporal"),
        (["--folds", "3", "data=fold"], "data=fold has done it already"),
        (["--fold-by", "plain"], "give --folds too"),
        (["--folds", "3", "--out", "taken"], "--out taken: it exists already"),
        (["--folds", "3", "--out", "taken", "--resume"], "holds no folds to go on with"),
        (["--folds", "3", "--resume"], "no unfinished folds to resume"),
    ],
)
def test_bad_input_in_one_line(arguments: list[str], words: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_tmp / "taken").mkdir()
    refused([*SMALL, *arguments], words, capsys=capsys)
    assert [path.name for path in in_tmp.iterdir()] == ["taken"]


def test_texts_are_refused(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["train", "gpt-bytes", "data.max_bytes=9000", "--folds", "2"], "a text is one stretch", capsys=capsys)


def test_the_dry_run_is_of_the_first_fold(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--folds", "3", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "3 (stratified), about" in shown and "fold 1 of 3" in shown and not list(in_tmp.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        '{"version": 1, "members": ["../elsewhere"], "origin": {}}',
        '{"version": 1, "members": [], "origin": {}}',
        '{"version": 9}',
        "[]",
        "{",
    ],
)
def test_a_hostile_ensemble_file_is_refused(content: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_tmp / "e").mkdir()
    (in_tmp / "e/ensemble.json").write_text(content)
    refused(["predict", "e", "x.npy"], "ensemble.json: ", capsys=capsys)


def test_members_must_answer_the_same_question(three: Path, in_tmp: Path) -> None:
    (in_tmp / "odd").mkdir()
    np.savez(in_tmp / "d.npz", x=np.random.default_rng(0).normal(size=(30, 8, 8)), y=np.arange(30) % 2)
    torchstone.train_experiment(
        recipe(), *SETTINGS, "data=arrays", f"data.path={in_tmp / 'd.npz'}", "run.batch_size=8", out=in_tmp / "odd/b"
    )
    (in_tmp / "odd/a").symlink_to(three / "fold-1")
    (in_tmp / "odd/ensemble.json").write_text('{"version": 1, "members": ["a", "b"], "origin": {}}')
    with pytest.raises(UserError, match="classes of .* is not that of the first member"):
        load(in_tmp / "odd")


# --- snapshots -----------------------------------------------------------------------------------------------------------


RESTARTS = 'method.schedules=[{kind="cosine_restarts",path="optimizer.lr",first=0.3333333333333333,growth=1}]'


@pytest.fixture(scope="module")
def cycles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 updates in three cycles, with a snapshot of each."""
    where = tmp_path_factory.mktemp("cycles") / "run"
    torchstone.train_experiment(recipe(), *SETTINGS, RESTARTS, "run.snapshots=3", "run.keep=1", out=where)
    return where


def test_snapshots_are_kept_at_the_ends_of_the_cycles(cycles: Path) -> None:
    named = {number: (cycles / f"checkpoints/snapshot-{number}").read_text().strip() for number in (1, 2, 3)}
    assert named == {1: "step-14", 2: "step-27", 3: "step-40"}
    schedule = torchstone.optim.CosineRestarts(path="optimizer.lr", first=1 / 3, growth=1)
    factors = [schedule(step, 40, History()) for step in range(40)]
    for step in (14, 27):
        assert factors[step - 1] < 0.05 and factors[step] > 0.95, "kept when the rate is at its lowest"


def test_snapshots_answer_together(cycles: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = recipe().data.open().test.inputs[:30]
    together = load(cycles, snapshots=True)
    assert [place.name for place in together.members] == ["step-14", "step-27", "step-40"]
    alone = []
    for step in (14, 27, 40):
        (cycles / "checkpoints/last").write_text(f"step-{step}\n")
        alone.append(load(cycles).logits(images).double().softmax(1).numpy())
    np.testing.assert_allclose(together.logits(images).double().softmax(1).numpy(), np.mean(alone, axis=0), atol=1e-7)
    assert main(["eval", str(cycles), "--snapshots"]) == 0
    assert "an ensemble of 3" in capsys.readouterr().out


def test_snapshots_after_an_interruption(cycles: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = [*SETTINGS, RESTARTS, "run.snapshots=3", "run.keep=1"]
    real = running.fit

    def fit(job: Any, state: Any, trackers: Any, request: Any) -> str:
        request.signal = 2
        return real(job, state, trackers, request)

    monkeypatch.setattr(running, "fit", fit)
    with pytest.raises(Interrupted):
        torchstone.train_experiment(recipe(), *edits, out=in_tmp / "a")
    monkeypatch.setattr(running, "fit", real)
    torchstone.train_experiment(recipe(), *edits, out=in_tmp / "a", resume=True)
    for number, step in ((1, 14), (2, 27), (3, 40)):
        assert (in_tmp / f"a/checkpoints/snapshot-{number}").read_text() == f"step-{step}\n"
        path = f"checkpoints/step-{step}/model.safetensors"
        assert (in_tmp / "a" / path).read_bytes() == (cycles / path).read_bytes()


def test_snapshots_that_are_not_there(three: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["eval", str(three / "fold-1"), "--snapshots"], "has no snapshots; train it with run.snapshots=M", capsys=capsys)
    refused([*SMALL, "run.snapshots=41"], "the run has 40 updates only", capsys=capsys)
    refused([*SMALL, "run.snapshots=-1"], "run.snapshots must be from 0", capsys=capsys)


# --- from Python, and on several ranks -----------------------------------------------------------------------------------


class Stripes:
    """A source of the user's own."""

    def open(self) -> Splits:
        draw = np.random.default_rng(0)
        made = {}
        for name, count in (("train", 40), ("validation", 20), ("test", 20)):
            target = torch.arange(count) % 2
            inputs = torch.from_numpy(draw.normal(size=(count, 1, 4, 4))).float()
            inputs[:, 0, 0] += 3 * target[:, None]
            made[name] = TensorSplit(inputs, target)
        facts = describe(made, ImageShape(1, 4, 4), ("no", "yes"), "given")
        return Splits(train=made["train"], validation=made["validation"], test=made["test"], facts=facts)


def test_a_source_of_one_s_own(in_tmp: Path) -> None:
    experiment = replace(recipe(), data=Stripes())
    made = torchstone.train_folds(experiment, *SETTINGS, "run.batch_size=8", "run.epochs=5", folds=4)
    assert made.folder == in_tmp / "runs/python/run-folds" and len(made.runs) == 4
    assert [member["sizes"]["validation"] for member in made.results["members"]] == [15] * 4
    assert made.results["ensemble"]["test"]["accuracy"] > 0.65, "half are of each class"
    assert torchstone.load(made.folder).predict(Stripes().open().test.inputs[:1])[0]["label"] in ("no", "yes")  # type: ignore[attr-defined]


@pytest.mark.slow
def test_two_ranks_measure_the_same(in_tmp: Path) -> None:
    told = ["-m", "torchstone", *SMALL, "--folds", "2", "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *told, "one"], check=True, env=environment, cwd=in_tmp, capture_output=True)
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([sys.executable, *ranks, *told, "two"], check=True, env=environment, cwd=in_tmp, capture_output=True)
    one, two = document(in_tmp / "one"), document(in_tmp / "two")
    assert one["mean"]["test"] == pytest.approx(two["mean"]["test"], rel=1e-5)
    assert one["ensemble"]["test"]["accuracy"] == two["ensemble"]["test"]["accuracy"]
