"""`torchstone doctor RECIPE` on the command line: what it prints, writes and exits with."""

import html
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.small import only_json, snapshot
from doctor.faults_before import copies_in_the_test, two_labels, wrong_labels
from doctor.patients import Split, digits_file
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
    assert "written: looked/doctor.html" in capsys.readouterr().out
    (finding,) = read_findings(in_tmp / "looked" / "findings.json").findings
    assert finding.evidence is not None and finding.evidence["kind"] == "images"
    for name in finding.evidence["files"]:
        assert np.asarray(Image.open(in_tmp / "looked" / name)).shape == (64, 64, 3)
    before = snapshot(in_tmp)
    assert main(["doctor", "digits-mini", "--out", "looked"]) == 2
    assert snapshot(in_tmp) == before


COPIES = "duplicates_across,duplicates_within"


def test_what_is_pasted_leaves_the_copies_out(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line that is printed, word for word: the doctor of it finds nothing, and a training of it runs."""

    def copied(arrays: Split) -> None:
        two_labels(arrays)
        copies_in_the_test(arrays)

    digits_file(in_tmp, copied)
    asked = ["doctor", "digits-mini", "data=arrays", "data.path=data.npz", "run.steps=3", "run.trackers=[]", "--only", COPIES]
    assert main(asked) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "try: " not in shown and shown.count("--out DIR writes the list of them and the edit that leaves them out") == 2
    assert main([*asked, "--out", "looked"]) == 0
    lines = {line.split("try: ")[1] for line in capsys.readouterr().out.splitlines() if "try: " in line}
    (command,) = lines
    words = shlex.split(command)
    assert words[:3] == ["torchstone", "train", "digits-mini"] and "data.leave_out=looked/leave_out.json" in words
    assert command in html.unescape((in_tmp / "looked" / "doctor.html").read_text())
    assert main(["doctor", *words[2:], "--only", COPIES]) == 0
    assert capsys.readouterr().out.startswith("no findings; 2 checks")
    assert main([*words[1:], "--out", "run"]) == 0
    capsys.readouterr()
    digits_file(in_tmp)
    assert main(words[1:]) == 2
    assert "looked/leave_out.json: made for other data" in capsys.readouterr().err


def test_data_that_leave_out_already_keep_doing_so(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second list holds the rows of the first, and the new ones by their rows in the source."""
    digits_file(in_tmp, copies_in_the_test)
    asked = ["doctor", "digits-mini", "data=arrays", "data.path=data.npz", "--only", "duplicates_across", "--out", "one"]
    assert main(asked) == 0
    document = json.loads((in_tmp / "one" / "leave_out.json").read_text())
    document["train"] = document["train"][::2]
    (in_tmp / "half.json").write_text(json.dumps(document))
    again = ["data=without", "data.leave_out=half.json", "data.source=arrays", "data.source.path=data.npz"]
    assert main(["doctor", "digits-mini", *again, "--only", "duplicates_across", "--out", "two"]) == 0
    assert "data.leave_out=two/leave_out.json" in capsys.readouterr().out
    rows = [[entry["row"] for entry in json.loads((in_tmp / name / "leave_out.json").read_text())["train"]] for name in ("one", "two")]
    assert rows[0] == rows[1] == list(range(40))


def test_a_folder_that_is_nothing_is_said_to_be(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_tmp / "pictures").mkdir()
    assert main(["doctor", "pictures"]) == 2
    assert "a folder, and no run (experiment.toml is missing)" in capsys.readouterr().err


def test_help_says_that_findings_are_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--help"]) == 0
    assert "Findings are no failure: the exit code is 0 unless the input is wrong" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("wrong", [["no-such-recipe"], ["digits-mini", "optimizer.speed=1"], ["digits-mini", "run.batch_size=100000"]])
def test_wrong_input_is_exit_2(wrong: list[str], in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *wrong]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1
