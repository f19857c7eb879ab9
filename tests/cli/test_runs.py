"""`runs` shows what is there and survives what is half there."""

import json
import os
import shutil
from pathlib import Path

import pytest

from cli.small import only_json, refused, train
from torchstone.cli import main
from torchstone.core.lock import Lock


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    train("run.epochs=1", out=out)
    return out


def test_nothing_there(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    assert "no runs in runs" in capsys.readouterr().out
    assert main(["runs", "--json"]) == 0
    assert only_json(capsys) == []
    refused(["runs", "elsewhere"], "elsewhere: no such folder", capsys=capsys)


def test_every_state_of_a_run(in_tmp: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = in_tmp / "runs/digits-mini"
    for name in ("done", "unfinished", "running", "dead", "damaged", "torn", "odd"):
        shutil.copytree(finished, folder / name)
    for name in ("unfinished", "running", "dead"):
        (folder / name / "metrics.json").unlink()
    (folder / "dead/.lock").write_text(json.dumps({"pid": 2**22 + 1, "host": "x", "since": "", "boot": ""}))
    (folder / "damaged/artifact.json").write_text("{")
    (folder / "damaged/metrics.json").unlink()
    (folder / "torn/metrics.json").write_text('{"final": {"acc')
    (folder / "odd/metrics.json").write_text('{"final": 3, "best": [], "status": {}, "steps": "many"}')
    (folder / ".partial-x").mkdir()
    (folder / ".partial-x/experiment.toml").touch()
    (folder / "empty").mkdir()
    (folder / "file").touch()
    (folder / "loop").symlink_to(folder)
    for age, name in enumerate(("done", "unfinished", "running", "dead", "damaged", "torn", "odd")):
        for path in (folder / name).rglob("*"):
            os.utime(path, (1e9 - age, 1e9 - age))
    with Lock(folder / "running"):
        assert main(["runs", "--json"]) == 0
        rows = {Path(row["run"]).name: row for row in only_json(capsys)}
    states = {name: row["status"] for name, row in rows.items()}
    assert states == {
        "done": "done",
        "unfinished": "unfinished",
        "running": "running",
        "dead": "unfinished",
        "damaged": "damaged",
        "torn": "unfinished",
        "odd": "unfinished",
    }
    metrics = json.loads((finished / "metrics.json").read_text())
    assert rows["done"]["value"] == metrics["final"]["accuracy"] and rows["done"]["steps"] == 20
    assert rows["torn"]["value"] is None and rows["torn"]["steps"] == 20
    assert next(iter(rows)) == "done" and rows["done"]["recipe"] == "digits-mini"
    assert main(["runs"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 8 and table[0].split() == ["run", "recipe", "status", "metric", "steps", "age"]


def test_a_run_itself_is_a_row(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(finished), "--json"]) == 0
    assert [row["status"] for row in only_json(capsys)] == ["done"]
