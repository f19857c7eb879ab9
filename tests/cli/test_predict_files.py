"""`predict` and `eval --data` on pictures and folders, from the command line: what is written, what is refused, what is left behind."""

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.small import TINY_GPT, only_json, refused, train
from torchstone.cli import main
from torchstone.core import errors
from torchstone.data import Digits


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, digits and gpt."""
    folder = tmp_path_factory.mktemp("runs")
    train(out=folder / "digits")
    train(*TINY_GPT, out=folder / "gpt")
    return folder


@pytest.fixture(autouse=True)
def nothing_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_warned", set())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole test split of the digits as a folder of class folders."""
    root = tmp_path_factory.mktemp("pictures")
    split = Digits().open().test
    x, y = split.fetch(np.arange(len(split)))
    for row, (image, label) in enumerate(zip((x[:, 0].numpy() * 255).round().astype(np.uint8), y.tolist(), strict=True)):
        (root / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(root / str(label) / f"{row:03d}.png")
    return root


def test_a_folder_to_jsonl_json_and_csv(
    runs: Path, pictures: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(runs / "digits")
    for name in ("a.jsonl", "a.json", "a.csv"):
        assert main(["predict", run, str(pictures), "--out", name]) == 0
        assert capsys.readouterr().out == f"270 answers in {name}\n"
    lines = [json.loads(each) for each in Path("a.jsonl").read_text().splitlines()]
    assert lines == json.loads(Path("a.json").read_text())
    assert [each["input"] for each in lines] == sorted(str(path) for path in pictures.rglob("*.png"))
    head, *rows = csv.reader(io.StringIO(Path("a.csv").read_text()))
    assert head == ["input", "label", "probability", *"0123456789"]
    assert [row[:2] for row in rows] == [[each["input"], each["label"]] for each in lines]
    assert float(rows[5][3]) == pytest.approx(lines[5]["probabilities"]["0"], rel=1e-5)
    assert float(rows[5][2]) == pytest.approx(max(lines[5]["probabilities"].values()), rel=1e-5)
    paths = "\n".join(each["input"] for each in lines[:3]).encode() + b"\r\n\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(paths)))
    assert main(["predict", run, "-", "--json", "--top", "2"]) == 0
    found = only_json(capsys)
    assert [each["input"] for each in found] == [each["input"] for each in lines[:3]]
    assert [len(each["probabilities"]) for each in found] == [2, 2, 2]
    assert next(iter(found[0]["probabilities"])) == found[0]["label"] == lines[0]["label"]
    assert sorted(os.listdir()) == ["a.csv", "a.json", "a.jsonl"]


def test_captioned_pictures(runs: Path, pictures: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", str(runs / "digits"), str(pictures / "3"), "--pictures", "looked-at"]
    assert main([*command, "--top", "1"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    made = sorted(path.name for path in Path("looked-at").iterdir())
    assert len(made) == len(lines) > 20 and f"{len(lines)} pictures in looked-at" in shown.err
    for position, (name, line) in enumerate(zip(made, lines, strict=True)):
        label = line.split(": ")[1].split(" ")[0]
        assert name.startswith(f"{position:06d}-{label}-")
    image = Image.open(Path("looked-at", made[0]))
    assert image.width >= 64 and image.height > 64
    refused(command, "looked-at exists; a new folder never overwrites one", capsys=capsys)


def test_bad_files_are_refused_or_skipped_and_nothing_half_is_left(runs: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(runs / "digits")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Path("in").mkdir()
    for i in range(4):
        Image.fromarray(noise + i).save(f"in/{i}.png")
    for i in (1, 3):
        path = Path(f"in/{i}.png")
        path.write_bytes(path.read_bytes()[:-900])
    everything = ["--out", "a.csv", "--pictures", "seen"]
    capsys.readouterr()
    assert main(["predict", run, "in", *everything]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "2 files of 4 cannot be read" in said.err and "in/1.png: not a whole" in said.err and "in/3.png" in said.err
    assert sorted(os.listdir()) == ["in"]
    assert main(["predict", run, "in", "--on-bad", "skip", *everything]) == 0
    said = capsys.readouterr()
    assert said.out == "2 answers in a.csv\n" and "warning: 2 files skipped: in/1.png" in said.err
    assert len(os.listdir("seen")) == 2 and len(Path("a.csv").read_text().splitlines()) == 3
    assert main(["predict", run, "in/1.png", "in/3.png", "--on-bad", "skip", "--out", "b.csv"]) == 2
    assert "nothing is left to predict; 2 files skipped" in capsys.readouterr().err
    assert not Path("b.csv").exists()


def test_options_that_do_not_fit(runs: Path, pictures: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits, gpt = str(runs / "digits"), str(runs / "gpt")
    for rest, words in [
        (["--out", "a.txt"], "must end in .jsonl, .json or .csv"),
        (["--out", "no/such/a.csv"], "its folder does not exist"),
        (["--out", "a.csv", "--json"], "give one of the two"),
        (["--top", "0"], "--top must be >= 1"),
        (["--count", "3"], "--count is for language runs"),
        (["--on-bad", "ignore"], "--on-bad"),
    ]:
        refused(["predict", digits, str(pictures), *rest], words, capsys=capsys)
    refused(["predict", gpt, "a", "--top", "3"], "--top is not for language runs", capsys=capsys)
    assert main(["predict", gpt, "a", "b", "--count", "3", "--out", "a.csv"]) == 0
    assert Path("a.csv").read_text().startswith("input,text\na,")


def test_stdin_that_names_nothing(runs: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for content, words in [
        (b"\n\n", "stdin names no file"),
        (b"none.png\n", "none.png: no such file"),
        (b"a\xff.png\n", "no such file"),
        (b"a\x00.png\n", "not a whole picture (embedded null"),
    ]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        refused(["predict", str(runs / "digits"), "-"], words, capsys=capsys)
    refused(["predict", str(runs / "digits"), "-", "-"], "give - once", capsys=capsys)


def final(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())["final"]


def test_eval_of_the_test_split_as_a_folder_gives_the_run_s_counts(runs: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The digits have 17 levels, which are 0, 1/16 ... 1: as bytes they are 1/510 off at most."""
    assert main(["eval", str(runs / "digits"), "--data", str(pictures), "--json"]) == 0
    document, expected = only_json(capsys), final(runs / "digits")
    assert document["final"]["confusion"] == expected["confusion"]
    assert document["final"]["per_class"] == expected["per_class"]
    for name in ("accuracy", "top_5_accuracy", "balanced_accuracy", "macro_f1"):
        assert document["final"][name] == expected[name]
    assert document["final"]["loss"] == pytest.approx(expected["loss"], rel=1e-2)
    assert document["samples"] == 270 == sum(document["class_counts"].values())
    assert (document["part"], document["left_out"], document["skipped_pictures"]) == ("all pictures", {}, 0)
    assert main(["eval", str(runs / "digits"), "--data", str(pictures)]) == 0
    text = capsys.readouterr().out
    assert f"{pictures} (all pictures), weights of" in text
    assert f"270 samples: 0 {document['class_counts']['0']}, 1 " in text and "calibration_error" in text and "per_class" not in text


def test_eval_names_what_differs(runs: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("3", "cat"):
        Path("new", name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(f"new/{name}/a.png")
    command = ["eval", str(runs / "digits"), "--data", "new"]
    refused(command, "does not know cat (1 picture)", "--on-unknown skip", capsys=capsys)
    assert main([*command, "--on-unknown", "skip", "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["left_out"] == {"cat": 1} and document["samples"] == 1
    assert "cat (1 picture)" in shown.err and "has no pictures of 0, 1, 2" in shown.err
    assert document["final"]["per_class"][0]["recall"] is None, "undefined, not 0"


def test_eval_names_all_torn_pictures(runs: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("new/3").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    for i in range(3):
        Image.fromarray(noise).save(f"new/3/{i}.png")
    for i in (0, 2):
        path = Path(f"new/3/{i}.png")
        path.write_bytes(path.read_bytes()[:-900])
    capsys.readouterr()
    assert main(["eval", str(runs / "digits"), "--data", "new"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "error: 2 files of 3 cannot be read" in said.err
    assert "new/3/0.png: not a whole picture" in said.err and "new/3/2.png" in said.err
