"""`train`: where runs go, what is printed, resuming and dry runs."""

import json
import os
import tomllib
from pathlib import Path

import pytest

from cli.small import SHORT, TINY_GPT, only_json, refused, snapshot, train
from torchstone.cli import main
from torchstone.cli.train import file_recipe


def test_runs_get_new_folders_and_a_summary(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train()
    shown = capsys.readouterr().out
    accuracy = json.loads((in_tmp / "runs/digits-mini/run/metrics.json").read_text())["final"]["accuracy"]
    assert f"accuracy {accuracy:.4f}" in shown
    assert "torchstone predict runs/digits-mini/run INPUT" in shown and "torchstone eval runs/digits-mini/run" in shown
    assert "runs/digits-mini/run/checkpoints/step-40" in shown
    train("run.epochs=1")
    assert "runs/digits-mini/run-2" in capsys.readouterr().out


def test_options_stand_anywhere(in_tmp: Path) -> None:
    assert main(["train", "--out", "a", "digits-mini", *SHORT, "--seed", "3", "optimizer=sgd", "--device", "cpu", "optimizer.lr=0.1"]) == 0
    said = tomllib.loads((in_tmp / "a/experiment.toml").read_text())
    assert said["run"]["seed"] == 3 and said["method"]["optimizer"]["kind"] == "sgd" and said["method"]["optimizer"]["lr"] == 0.1


def test_json_is_the_metrics_document(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("--json", out=in_tmp / "a")
    assert only_json(capsys) == json.loads((in_tmp / "a/metrics.json").read_text())


def test_a_run_s_own_file_repeats_it_bit_for_bit(in_tmp: Path) -> None:
    train("run.seed=5", out=in_tmp / "a")
    train(str(in_tmp / "a/experiment.toml"), out=in_tmp / "b")
    for name in ("checkpoints/step-40/model.safetensors", "checkpoints/step-40/optimizer.safetensors", "experiment.toml", "artifact.json"):
        assert (in_tmp / "a" / name).read_bytes() == (in_tmp / "b" / name).read_bytes()


@pytest.mark.parametrize(
    "path, recipe", [("x/my.toml", "my"), ("runs/digits/run-2/experiment.toml", "digits"), ("elsewhere/experiment.toml", "elsewhere")]
)
def test_files_are_filed_under(path: str, recipe: str) -> None:
    assert file_recipe(Path(path)) == recipe


# --- resume ----------------------------------------------------------------------------------------------------------


def unfinished(folder: Path, seed: int = 0) -> None:
    """A run that was killed after its first epoch."""
    train("run.epochs=2", f"run.seed={seed}", out=folder)
    (folder / "metrics.json").unlink()
    last = folder / "checkpoints" / "step-40"
    for path in last.iterdir():
        path.unlink()
    last.rmdir()


def test_resume_ends_as_if_uninterrupted(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(out=in_tmp / "whole")
    unfinished(in_tmp / "a")
    train("--resume", out=in_tmp / "a")
    name = "checkpoints/step-40/model.safetensors"
    assert (in_tmp / "whole" / name).read_bytes() == (in_tmp / "a" / name).read_bytes()


def test_resume_of_a_finished_run_says_so_and_changes_nothing(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(out=in_tmp / "a")
    before = snapshot(in_tmp / "a")
    capsys.readouterr()
    train("--resume", out=in_tmp / "a")
    assert "finished already" in capsys.readouterr().err
    assert snapshot(in_tmp / "a") == before


def test_resume_where_there_is_nothing_starts_at_0(in_tmp: Path) -> None:
    train("--resume", out=in_tmp / "a")
    assert json.loads((in_tmp / "a/metrics.json").read_text())["steps"] == 40


def test_resume_without_out_takes_the_newest_unfinished(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = in_tmp / "runs/digits-mini"
    refused(["train", "digits-mini", "--resume"], "no unfinished run to resume (there is none at all)", capsys=capsys)
    unfinished(runs / "old")
    unfinished(runs / "young")
    train(out=runs / "done")
    for name, when in (("old", 100), ("young", 200), ("done", 300)):
        os.utime(runs / name / "experiment.toml", (when, when))
    train("--resume")
    assert (runs / "young/metrics.json").exists() and not (runs / "old/metrics.json").exists()
    train("--resume")
    assert (runs / "old/metrics.json").exists()
    refused(["train", "digits-mini", *SHORT, "--resume"], "the 3 there are finished", capsys=capsys)


# --- dry run ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_and_prints_a_file_that_trains(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("--dry-run", out=in_tmp / "a")
    text = capsys.readouterr().out
    assert list(in_tmp.iterdir()) == []
    for word in ("train 1257, validation 270, test 270", "parameters  4,810", "macs        4,736", "steps       40 (20 an epoch)", "time "):
        assert word in text
    (in_tmp / "mine.toml").write_text(text)
    assert main(["train", "mine.toml"]) == 0
    train(out=in_tmp / "a")
    name = "checkpoints/step-40/model.safetensors"
    assert (in_tmp / "runs/mine/run" / name).read_bytes() == (in_tmp / "a" / name).read_bytes()


def test_a_dry_run_in_json(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TINY_GPT, "--dry-run", "--json"]) == 0
    document = only_json(capsys)
    assert document["steps"] == 2 and document["estimated_seconds"] > 0
    assert document["memory"]["total"] == sum(count for name, count in document["memory"].items() if name != "total")
    assert document["experiment"]["method"]["optimizer"]["kind"] == "muon"
    assert list(in_tmp.iterdir()) == []
