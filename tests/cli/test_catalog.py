"""`list`, `explain` and `env`: what they say is true of the code."""

import json
import re
from typing import Any

import pytest

from torchstone import recipes
from torchstone.cli import catalog, main, output
from torchstone.cli.explained import DULL, edits
from torchstone.core import tree
from torchstone.core.errors import UserError

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


@pytest.mark.parametrize(
    ("edit", "meant"),
    [("loss=smoothl1", "smooth_l1"), ("loss=infonce", "info_nce"), ("task.also=[topk]", "top_k"), ("model=mobilenetv2", "mobile_net_v2")],
)
def test_kinds_written_as_they_once_were(edit: str, meant: str) -> None:
    with pytest.raises(UserError, match=f'did you mean "{meant}"'):
        tree.edit(recipes.RECIPES["digits-mini"](), [edit])


def test_every_kind_reads_as_words() -> None:
    """A capital after a small letter begins a word, but in names that everybody writes as one."""
    for _, cls in PARTS:
        name = cls.__name__.removesuffix("Config")
        if name not in ("AdamW", "MuP"):
            assert tree.kind_of(cls).count("_") >= len(re.findall("[a-z][A-Z]", name)), name


@pytest.mark.parametrize(("seat", "cls"), [(seat, cls) for seat in catalog.seats().values() for cls in seat.parts.values() if seat.path])
def test_the_second_try_changes_something(seat: catalog.Seat, cls: type) -> None:
    """Its last edit sets a value that is not the part's default."""
    _, *more = edits(seat, cls)
    for edit in more:
        name, text = edit.rpartition("=")[0].rpartition(".")[2], edit.rpartition("=")[2]
        assert text != catalog.spelled(tree.fields_of(cls)[name].default) and name not in DULL


def test_most_parts_have_a_second_try() -> None:
    tries = {tree.kind_of(cls): edits(seat, cls)[1:] for seat in catalog.seats().values() for cls in seat.parts.values()}
    assert tries["focal"] == ["method.loss.gamma=1.0"] and tries["ema"] == ["method.averaging.decay=0.998"]
    assert tries["cyclic"] == ["method.schedules.cyclic.mode=triangular2"] and tries["cifar_resnet"] == ["model.residual=false"]
    assert sum(map(bool, tries.values())) > 80


def test_a_list_is_of_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    listed = document(["list"], capsys)
    docs = {part["kind"]: part["doc"] for parts in listed.values() for part in parts}
    assert (
        docs["ldam"].endswith("rare classes more.")
        and docs["constant"] == "The same factor at every update after the warm-up: with 1, a warm-up alone."
    )
    assert all(doc.endswith((".", "!", "?", ":", ")")) for doc in docs.values()), [
        doc for doc in docs.values() if not doc.endswith((".", ":", ")"))
    ]


@pytest.mark.parametrize("columns", [60, 100])
def test_a_terminal_gets_lines_that_fit(columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [("a", "word " * 40), ("longer_name", "short")]
    lines = output.wrapped(rows, indent="  ")
    assert all(len(line) <= columns for line in lines) and lines[-1] == "  longer_name  short"
    assert " ".join(" ".join(line[15:] for line in lines[:-1]).split()) == ("word " * 40).strip()
    assert lines[0].startswith("  a            word") and lines[1].startswith(" " * 15 + "word")
