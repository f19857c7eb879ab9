"""`torchstone doctor RECIPE` on the command line: what it prints, writes and exits with."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.small import only_json, snapshot
from doctor.patients import digits_file
from doctor.test_faults_before import wrong_labels
from torchstone.cli import main
from torchstone.core import tree
from torchstone.doctor import CHECKS, read_findings
from torchstone.recipes import digits_mini

CHEAP = "input_scale,loss_at_init,memory,augmentation"


def test_findings_come_first_and_can_be_pasted(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["model.init={kind=normal,std=2}", "model.hidden=[64,64]"]
    assert main(["doctor", "digits-mini", *wrong, "--only", CHEAP]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("error: ") and "the loss before the first step is" in lines[0]
    assert any(re.search(r"\d against 3\.8: ", line) for line in lines), "number, threshold, reason"
    (remedy,) = [line.split("try: ")[1] for line in lines if "try: " in line]
    assert remedy == "torchstone train digits-mini 'model.hidden=[64,64]' model.init=none", "what it takes back is left out"
    assert tree.edit(digits_mini(), shlex.split(remedy)[3:]).model.init is None
    assert [line for line in lines if line.startswith("passed: ")] == ["passed: memory, input_scale"]
    assert [line for line in lines if line.startswith("skipped: augmentation (no transform changes")]
    assert not list(in_tmp.iterdir()), "nothing is written"


def test_json_is_the_document_of_findings(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "digits-mini", "batch_transforms=[{kind=normalize,mean=[0],std=[0.001]}]", "--only", CHEAP, "--json"]) == 0
    document: Any = only_json(capsys)
    assert document["version"] == 1 and document["kind"] == "findings"
    first = document["findings"][0]
    assert set(first) == {"check", "severity", "summary", "value", "threshold", "because", "evidence", "remedy", "advice"}
    assert first["check"] == "input_scale" and first["remedy"] == ["method.batch_transforms.0=normalize"] and first["evidence"]["rows"]
    assert [check["check"] for check in document["checks"]] == [check.name for check in CHECKS if check.name in CHEAP.split(",")]
    assert {check["outcome"] for check in document["checks"]} == {"found", "passed", "skipped"}


def test_out_holds_findings_and_pictures(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = digits_file(in_tmp, wrong_labels)
    assert main(["doctor", "digits-mini", "data=arrays", f"data.path={data}", "--only", "label_noise", "--out", "looked"]) == 0
    assert "written: looked" in capsys.readouterr().out
    (finding,) = read_findings(in_tmp / "looked" / "findings.json").findings
    assert finding.evidence is not None and finding.evidence["kind"] == "images"
    for name in finding.evidence["files"]:
        assert np.asarray(Image.open(in_tmp / "looked" / name)).shape == (64, 64, 3)
    before = snapshot(in_tmp)
    assert main(["doctor", "digits-mini", "--out", "looked"]) == 2
    assert snapshot(in_tmp) == before


def test_help_says_that_findings_are_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--help"]) == 0
    assert "Findings are no failure: the exit code is 0 unless the input is wrong" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("wrong", [["no-such-recipe"], ["digits-mini", "optimizer.speed=1"], ["digits-mini", "run.batch_size=100000"]])
def test_wrong_input_is_exit_2(wrong: list[str], in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *wrong]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1
