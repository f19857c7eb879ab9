"""`list`, `explain` and `env`: what they say is true of the code."""

import json
from typing import Any

import pytest

from torchstone import recipes
from torchstone.cli import catalog, main
from torchstone.cli.explained import edits
from torchstone.core import tree

PARTS = [(seat, cls) for seat in catalog.seats().values() for cls in seat.parts.values()]


def shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def document(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(shown([*arguments, "--json"], capsys), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_list_has_every_seat_of_the_method(capsys: pytest.CaptureFixture[str]) -> None:
    listed = document(["list"], capsys)
    assert {"recipes", "data", "task", "model", "loss", "optimizer", "trackers", "metrics", "batch_transforms", "stop"} <= listed.keys()
    assert all(part["doc"] for parts in listed.values() for part in parts)
    assert {"sgd", "adamw", "muon"} <= {part["kind"] for part in listed["optimizer"]}
    text = shown(["list"], capsys)
    assert all(f"\n  {part['kind']} " in text for parts in listed.values() for part in parts)


@pytest.mark.parametrize(
    "word, name",
    [
        ("models", "model"),
        ("losses", "loss"),
        ("optimizers", "optimizer"),
        ("tasks", "task"),
        ("recipe", "recipes"),
        ("method.stop", "stop"),
    ],
)
def test_list_knows_plurals(word: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(document(["list", word], capsys)) == [name]


def test_list_of_something_else_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "optimiser"]) == 2
    assert 'did you mean "optimizer"?' in capsys.readouterr().err


@pytest.mark.parametrize("seat, cls", PARTS, ids=lambda value: getattr(value, "name", getattr(value, "__name__", "")))
def test_every_part_is_explained_and_its_edits_work(seat: catalog.Seat, cls: type, capsys: pytest.CaptureFixture[str]) -> None:
    kind = tree.kind_of(cls)
    explained = document(["explain", kind], capsys)
    assert explained["kind"] == kind and explained["doc"]
    assert [field["name"] for field in explained["fields"]] == list(tree.fields_of(cls))
    assert kind in shown(["explain", cls.__name__], capsys)
    if seat.path:
        base = recipes.digits() if kind != "gpt" else recipes.gpt_bytes()
        start = [f"{seat.path}=none"] if seat.many else []
        base = tree.edit(base, start)
        edited = tree.edit(base, edits(seat, cls))
        assert kind in tree.to_toml(edited)


def test_explain_tells_the_source_and_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(["explain", "focal"], capsys)
    assert "1708.02002" in text and "gamma = 2.0" in text and "method.loss=focal" in text and "off: gamma=0.0" in text


def test_explain_takes_a_seat(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(["explain", "averaging"], capsys)
    assert "method.averaging" in text and "default: none" in text and "ema" in text


def test_explain_of_something_else_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "mixap"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'mixup'?" in error and error.count("\n") == 1


def test_env(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(["env"], capsys)
    assert found["packages"]["torch"] and found["python"]
    assert all(extra["present"] or "pip install" in extra["install"] for extra in found["extras"].values())
    assert "torchstone[onnx]" in shown(["env"], capsys) or found["extras"]["onnx"]["present"]
