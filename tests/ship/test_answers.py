"""Answers as files: other programs read back what was said, spreadsheets run nothing."""

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torchstone.ship.answers import encoded, line, shortened
from torchstone.ship.captions import captioned, file_name

CLASSES = ("coat", "label", "=1+1")
ANSWERS = [
    {"input": "a.png", "label": "coat", "probabilities": {"coat": 0.75, "label": 0.125, "=1+1": 0.125}},
    {"input": "=cmd().png", "label": "=1+1", "probabilities": {"coat": 0.1, "label": 0.2, "=1+1": 0.7}},
    {"input": 'b,"\n.png', "label": "label", "probabilities": {"coat": 1e-9, "label": 1 - 1e-9, "=1+1": 0.0}},
]


def content(ending: str, answers: list[dict[str, Any]] = ANSWERS, top: int | None = None) -> str:
    return b"".join(encoded(iter(answers), ending, CLASSES, top)).decode()


def rows(top: int | None = None) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content(".csv", top=top))))


def test_json_comes_back() -> None:
    assert [json.loads(each) for each in content(".jsonl").splitlines()] == ANSWERS
    assert json.loads(content(".json")) == ANSWERS
    assert json.loads(content(".json", [])) == [] and content(".jsonl", []) == ""


def test_csv_has_a_column_a_class() -> None:
    head, *body = rows()
    assert head == ["input", "label", "probability", "coat", "label (class)", "'=1+1"]
    assert len(set(head)) == len(head)
    assert body[0] == ["a.png", "coat", "0.75", "0.75", "0.125", "0.125"]
    assert body[2][0] == 'b,"\n.png' and float(body[2][3]) == 1e-9
    assert not any(cell.startswith("=") for row in body for cell in row)


def test_the_likeliest_alone() -> None:
    assert list(shortened(ANSWERS[1], 2)["probabilities"]) == ["=1+1", "label"]
    assert shortened(ANSWERS[1], None) == ANSWERS[1]
    head, *body = rows(top=2)
    assert head == ["input", "label", "probability", "label_2", "probability_2"]
    assert body[0] == ["a.png", "coat", "0.75", "label", "0.125"]
    assert all(len(row) == 5 for row in body)
    assert len(rows(top=50)[0]) == 7
    assert line(ANSWERS[0]) == "a.png: coat  (coat 75.0%, label 12.5%, =1+1 12.5%)"
    assert line(ANSWERS[0], 1) == "a.png: coat  (coat 75.0%)"


def test_texts() -> None:
    answers = [{"input": "def ", "text": "main():\n"}]
    table = b"".join(encoded(iter(answers), ".csv", ())).decode()
    assert list(csv.reader(io.StringIO(table))) == [["input", "text"], ["def ", "main():\n"]]
    assert line(answers[0]) == "def main():\n"


def test_a_caption_is_written_below_the_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 200, 3), dtype=np.uint8)
    page = np.asarray(Image.open(io.BytesIO(captioned(picture, "coat 98.0%"))))
    np.testing.assert_array_equal(page[:64], picture)
    below = page[64:]
    assert below.shape[0] > 14 and below.shape[1] == 200
    assert (below == 255).mean() > 0.7 and (below < 100).any(), "black on white"
    narrow = Image.open(io.BytesIO(captioned(picture[:, :64], "a long name of a class 98.0%")))
    assert narrow.width > 150


@pytest.mark.parametrize("label", ["a/b", "../..", "x" * 500, "ü" * 300, "\x1b[31m", "", "\ud800"])
def test_names_of_files_are_harmless(label: str) -> None:
    name = file_name(7, {"input": "some/where/" + label + ".png", "label": label, "probabilities": {label: 0.5}})
    assert name.startswith("000007-") and name.endswith(".png")
    assert "/" not in name and "\x1b" not in name and len(name.encode()) <= 255
