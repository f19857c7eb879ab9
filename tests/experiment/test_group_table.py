"""The groups as a run lists them: in environment.json, before it begins, and in a dry run."""

import json
from pathlib import Path

import pytest

import torchstone
from cli.small import SHORT, only_json, train
from torchstone.cli import main
from torchstone.experiment.group_table import group_lines, group_table

RULES = "groups={kind=patterns,rules=[{names='head.*',lr_scale=0.5},{names='*.bias',decay_scale=0}]}"


def table(*edits: str) -> list:
    return group_table(torchstone.prepare(torchstone.recipes.RECIPES["digits-mini"](), *SHORT, *edits))


def test_rates_decays_and_counts() -> None:
    rows = table("model=mlp", "optimizer.lr=0.01", "optimizer.weight_decay=0.2", RULES)
    assert [row["names"] for row in rows] == [["head.weight", "head.bias"], ["hidden.0.bias"], ["hidden.0.weight"]]
    assert [(row["tensors"], row["parameters"]) for row in rows] == [(2, 128 * 10 + 10), (1, 128), (1, 64 * 128)]
    assert [(row["lr"], row["decay"]) for row in rows] == [(0.005, 0.2), (0.01, 0.0), (0.01, 0.2)]
    gated = table("model=mlp", "groups=no_decay", "model_transforms=[hard_concrete]")
    assert "head.gate.log_alpha" in gated[1]["names"] and gated[1]["decay"] == 0.0
    assert table("groups=none") == []


def test_in_words() -> None:
    prepared = torchstone.prepare(torchstone.recipes.RECIPES["digits-mini"](), *SHORT, "model=mlp", "optimizer.lr=0.01", RULES)
    (line,) = group_lines(prepared)
    assert line.startswith("groups: 2 tensors (1,290 parameters) at rate 0.005, decay ") and line.count(";") == 2


def test_a_run_keeps_and_says_them(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("model=mlp", "run.epochs=1", "groups={kind=layer_decay,rate=0.5}", out=in_tmp / "a")
    said = capsys.readouterr().err
    stored = json.loads((in_tmp / "a/environment.json").read_text())["groups"]
    assert "groups: 1 tensor (8,192 parameters)" in said
    assert [row["lr"] * 2 for row in stored[:2]] == [row["lr"] for row in stored[2:]] and len(stored) == 4
    assert main(["train", "digits-mini", *SHORT, "model=mlp", "groups={kind=layer_decay,rate=0.5}", "--dry-run", "--json"]) == 0
    assert only_json(capsys)["groups"] == stored
