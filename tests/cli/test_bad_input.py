"""The issue's table of bad input, through the command line: the exit code, one line that says what would do, nothing written or lost."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cli.small import SHORT, refused, snapshot, train
from core.faults import armed, operations
from torchstone.cli import main
from torchstone.core.lock import Lock

MINI = ["train", "digits-mini", *SHORT]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "digitz"], ("digitz", 'did you mean "digits"?')),
        (["train", "none.toml"], ("none.toml: no such file",)),
        ([*MINI, "optimiser=sgd"], ("optimiser=sgd", "optimizer")),
        ([*MINI, "no edit"], ("no edit", "path=value")),
        ([*MINI, "loss=fokal"], ("loss=fokal", 'did you mean "focal"?')),
        ([*MINI, "optimizer.lr=fast"], ("optimizer.lr=fast", "a number")),
        ([*MINI, "run.epochs=1.5"], ("run.epochs=1.5", "an integer")),
        ([*MINI, "run.epochs=0"], ("run.epochs=0", ">= 1")),
        ([*MINI, "optimizer.lr=0.1", "optimizer=sgd"], ("undo the earlier edit optimizer.lr=0.1",)),
        ([*MINI, "weighting=balanced", "loss=focal"], ("undo the earlier edit",)),
        ([*MINI, "run.batch_size=5000"], ("5000", "1257")),
        ([*MINI, "--seed", "-1"], ("run.seed=-1",)),
        ([*MINI, "--seed", "x"], ("run.seed=x", "an integer")),
        ([*MINI, "--seed", "1", "run.seed=2"], ("--seed 1", "run.seed=2", "leave one out")),
        ([*MINI, "--device", "tpu"], ("run.device=tpu",)),
        ([*MINI, "--device", "cpu", "device=cpu"], ("--device cpu", "leave one out")),
        ([*MINI, "task=language"], ("task=language needs text",)),
        ([*MINI, "model=gpt"], ("model=gpt",)),
        ([*MINI, "data=plain_text", "data.path=none.txt", "task=language", "model=gpt"], ("none.txt",)),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_wrong_arguments(arguments: list[str], words: tuple[str, ...], dry: bool, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused([*arguments, "--dry-run"] if dry else arguments, *words, capsys=capsys)
    assert list(in_tmp.iterdir()) == []


def test_an_ambiguous_short_path_names_the_candidates(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["train", "digits-mini", "every=3"], "ambiguous", "run.trackers", capsys=capsys)  # the log and TensorBoard both have an `every`
    assert list(in_tmp.iterdir()) == []


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x, y: (x, np.where(np.arange(40) == 7, 5, y)), ("array y, row 7", "label 5", "0 to 2")),
        (lambda x, y: (x, np.where(np.arange(40) == 7, -1, y)), ("array y, row 7", "label -1")),
        (lambda x, y: (np.where(np.arange(40)[:, None] == 9, np.nan, x), y), ("array x, row 9", "NaN")),
        (lambda x, y: (x[:-1], y), ("39", "40")),
        (lambda x, y: (x.astype(object), y), ("array x", "Python objects")),
    ],
)
def test_wrong_arrays(change: object, words: tuple[str, ...], in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = change(np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 3)  # type: ignore[operator]
    np.savez(in_tmp / "a.npz", x=x, y=y)
    edits = ["data=arrays", "data.path=a.npz", "data.classes=[a,b,c]", "batch_size=8", *SHORT]
    refused(["train", "digits-mini", *edits], "a.npz", *words, capsys=capsys)
    assert [path.name for path in in_tmp.iterdir()] == ["a.npz"]


def test_a_broken_file_names_line_and_column(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_tmp / "a.toml").write_text('[data]\nkind = "digits"\n[task\n')
    refused(["train", "a.toml"], "a.toml, line 3, column", capsys=capsys)
    (in_tmp / "a.toml").write_text('[data]\nkind = "digits"\nsize = 3\n')
    refused(["train", "a.toml"], "a.toml", 'no setting "size"', capsys=capsys)


def test_a_run_is_no_recipe(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("run.epochs=1", out=in_tmp / "a")
    refused(["train", "a"], "a is a run", "a/experiment.toml", capsys=capsys)


@pytest.mark.parametrize("rest", [[], ["--dry-run"]])
def test_out_that_exists(rest: list[str], in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_tmp / "a").mkdir()
    (in_tmp / "a/mine").write_text("mine")
    refused([*MINI, "--out", "a", *rest], "--out a", "exists", "--resume", capsys=capsys)
    assert snapshot(in_tmp) == {"a/mine": b"mine"}


def test_resume_of_what_is_no_run(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_tmp / "a").mkdir()
    refused([*MINI, "--out", "a", "--resume"], "not a run folder", capsys=capsys)
    (in_tmp / "file").touch()
    refused([*MINI, "--out", "file", "--resume"], "no such run folder", capsys=capsys)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train(out=out)
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_resume_with_a_changed_tree(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(run)
    refused([*MINI, "optimizer.lr=0.5", "--out", str(run), "--resume"], "method.optimizer.lr", "0.003", "0.5", capsys=capsys)
    refused([*MINI, "--seed", "8", "--out", str(run), "--resume"], "run.seed: 0 there, 8 here", capsys=capsys)
    assert snapshot(run) == before


def test_resume_of_another_version(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((run / "artifact.json").read_text())
    (run / "artifact.json").write_text(json.dumps({**document, "version": 0}))
    refused([*MINI, "--out", str(run), "--resume"], "another version of torchstone", capsys=capsys)


def test_resume_of_a_half_written_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "artifact.json").unlink()
    refused([*MINI, "--out", str(run), "--resume"], "artifact.json is missing", capsys=capsys)


def test_a_second_process_names_the_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import os

    (run / "metrics.json").unlink()
    before = {name: content for name, content in snapshot(run).items() if name != ".lock"}
    with Lock(run):
        refused([*MINI, "--out", str(run), "--resume"], "in use by process", str(os.getpid()), capsys=capsys)
    assert {name: content for name, content in snapshot(run).items() if name != ".lock"} == before


def test_resume_past_a_flipped_bit(run: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.json").unlink()
    path = run / "checkpoints/step-40/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert main([*MINI, "--out", str(run), "--resume"]) == 0
    assert "warning: " in (error := capsys.readouterr().err) and "step-40/model.safetensors" in error and "tensor" in error
    assert path.read_bytes() == (trained / "checkpoints/step-40/model.safetensors").read_bytes()


def test_a_full_disk_leaves_the_checkpoint_before(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = operations(lambda: train("run.epochs=1", out=in_tmp / "a")) + 5
    with armed("enospc", number):
        refused([*MINI, "--out", str(in_tmp / "b")], "No space left on device", capsys=capsys, code=1)
    assert main([*MINI, "--out", str(in_tmp / "b"), "--resume"]) == 0


def test_divergence_names_the_step_and_the_last_good_checkpoint(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edits = ["optimizer=sgd", "optimizer.lr=1e30", "schedules=none"]
    error = refused([*MINI, *edits, "--out", "a"], "diverged at step", "checkpoint", capsys=capsys, code=1)
    assert "no update was made" in error
    assert json.loads((in_tmp / "a/metrics.json").read_text())["status"] == "diverged"
