"""`torchstone compare` as it is typed: what it prints, what it writes, what it refuses."""

import json

import numpy as np
import pytest

from cli.small import only_json, refused
from torchstone.cli import main
from torchstone.cli.compare import cost_text, more, ranked

EDITS = ["model.hidden=[8]", "run.epochs=2", "run.batch_size=256", "run.threads=1", "run.trackers=[jsonl]"]
WORDS = ["compare", "digits-mini", *EDITS, "--vary", "run.note=a,b", "--seeds", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "s"
    assert main([*WORDS, "--out", str(folder)]) == 0
    return folder


def test_what_it_prints(made, capsys):
    assert main(["compare", str(made / "study.toml"), "--out", str(made), "--resume"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].split() == [
        "variant",
        "n",
        "accuracy",
        "difference",
        "95",
        "%",
        "interval",
        "p",
        "(Holm)",
        "seconds",
        "memory",
        "verdict",
    ]
    assert any(line.startswith("note=b") and line.endswith("inert") for line in lines)
    assert any(line.startswith("next") and "torchstone report" in line for line in lines)
    assert shown.out.isascii()
    assert "2 variants x 2 seeds = 4 runs, 4 of them finished" in shown.err and "4 runs in" in shown.out


def test_json_is_one_document_with_the_costs(made, capsys):
    assert main(["compare", str(made / "study.toml"), "--out", str(made), "--resume", "--json"]) == 0
    document = only_json(capsys)
    stored = json.loads((made / "results.json").read_text())
    costs = json.loads((made / "costs.json").read_text())
    assert {key: value for key, value in document.items() if key not in ("variants", "cost")} == {
        k: v for k, v in stored.items() if k != "variants"
    }
    for variant in document["variants"]:
        assert variant["cost"] == costs["variants"][variant["name"]]
    assert document["variants"][0]["cost"]["seconds"]["n"] == 2


def test_the_page_is_drawn(made):
    page = made / "report.html"
    assert page.is_file() and "note=b" in page.read_text()


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*WORDS, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("study: 2 variants x 2 seeds = 4 runs") and "smallest effect" in shown.out and "time: about" in shown.out
    assert main([*WORDS, "--dry-run", "--json"]) == 0
    document = only_json(capsys)
    assert document["runs"] == 4 and document["estimated_seconds"] > 0 and set(tmp_path.iterdir()) == set()


def test_a_written_study(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = ["[study]", 'recipe = "digits-mini"', f"edits = {json.dumps(EDITS)}", 'vary = ["averaging=none,ema"]', "seeds = 2"]
    (tmp_path / "claim.toml").write_text("\n".join([*lines, 'note = "Averages help."']))
    assert main(["compare", "claim.toml"]) == 0
    found = json.loads((tmp_path / "studies" / "claim" / "results.json").read_text())
    assert found["note"] == "Averages help." and found["recipe"] == "digits-mini" and found["edits"] == EDITS
    capsys.readouterr()
    (tmp_path / "wrong.toml").write_text("\n".join([*lines, "sedes = 3"]))
    refused(["compare", "wrong.toml"], "wrong.toml", "'sedes'", 'did you mean "seeds"', capsys=capsys)
    (tmp_path / "bare.toml").write_text('[study]\nrecipe = "digits-mini"\n')
    refused(["compare", "bare.toml"], "study.vary is missing", capsys=capsys)


def test_a_written_study_is_repeated_by_who_has_the_data_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    (tmp_path / "elsewhere").mkdir()
    np.savez(tmp_path / "elsewhere" / "all.npz", x=draw.normal(size=(200, 5)).astype(np.float32), y=np.arange(200) % 2)
    edits = ["data=subset", "data.source=arrays", "data.samples=60", *EDITS, "run.batch_size=60"]
    lines = ["[study]", 'recipe = "digits-mini"', f"edits = {json.dumps(edits)}", 'vary = ["averaging=none,ema"]', "seeds = 2"]
    (tmp_path / "claim.toml").write_text("\n".join([*lines, 'also = ["loss"]']))
    refused(["compare", "claim.toml"], "data.path must be given", capsys=capsys)
    words = ["compare", "claim.toml", "data.source.path=elsewhere/all.npz", "--out", "s"]
    assert main(words) == 0
    assert "also measured" in capsys.readouterr().out
    found = json.loads((tmp_path / "s" / "results.json").read_text())
    assert found["edits"] == [*edits, "data.source.path=elsewhere/all.npz"] and found["also"] == ["loss"]
    assert main([*words, "--resume", "--also", "calibration_error"]) == 0
    assert "4 runs in" in capsys.readouterr().out
    assert main(["compare", "s/study.toml", "--out", "s", "--resume", "--also", "roc_auc"]) == 0
    assert json.loads((tmp_path / "s" / "results.json").read_text())["also"] == ["loss", "calibration_error", "roc_auc"]
    refused(["compare", "s/study.toml", "data.source.path=other.npz"], "another study", "compare the file it was made from", capsys=capsys)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["digits-mini"], ["--vary PATH=A,B"]),
        (["digits-mini", "--vary", "averagin=none,ema"], ["did you mean method.averaging"]),
        (["digits-mini", "--vary", "run.epochs=20,20"], ["changes nothing"]),
        (["digits-mini", "--vary", "averaging=none,ema", "--vary", "method.averaging=none,swa"], ["both set method.averaging"]),
        (["digits-mini", "--vary", "averaging=none,ema", "--metric", "map"], ["no such metric", "accuracy"]),
        (["digits-mini", "--vary", "averaging=none,ema", "--budget", "soon"], ["90s, 30m or 2h"]),
        (["digits-mini", "--vary", "averaging=none,ema", "--seeds", "none"], ["--seeds"]),
        (["digits-mini", "--vary", "averaging=none,ema", "--grid", "--without"], ["not allowed with"]),
        (["digitz", "--vary", "averaging=none,ema"], ["there is no recipe", "digits"]),
        (["missing.toml", "--vary", "averaging=none,ema"], ["no such file"]),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(["compare", *arguments], *words, capsys=capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_not_overwritten_nor_mistaken(made, capsys):
    refused([*WORDS, "--out", str(made)], "it exists already", capsys=capsys)
    refused(["compare", str(made)], "is a study", capsys=capsys)
    refused(["compare", str(made / "study.toml"), "--vary", "averaging=none,ema"], "another study", capsys=capsys)
    other = ["compare", "digits-mini", *EDITS, "--vary", "run.note=a,c", "--seeds", "2", "--out", str(made), "--resume"]
    refused(other, "it varies", capsys=capsys)


def test_the_best_stands_first_and_costs_say_what_is_more():
    rows = [{"name": "a", "mean": 0.5}, {"name": "b", "mean": None}, {"name": "c", "mean": 0.9}]
    assert [row["name"] for row in ranked({"mode": "max", "variants": rows})] == ["c", "a", "b"]
    assert [row["name"] for row in ranked({"mode": "min", "variants": rows})] == ["a", "c", "b"]
    assert cost_text({"mean": 1.5, "difference": {"mean": 0.5, "low": 0.2, "high": 0.8}}, "s") == "1.5 s (+0.5)"
    assert cost_text({"mean": 1.5, "difference": {"mean": 0.5, "low": -0.2, "high": 1.2}}, "s") == "1.5 s"
    assert cost_text(None, "s") == "-" and more({"seeds": [0, 1, 2]}) == "6" and more({"seeds": [3, 9]}) == "3,9,10"
