"""Small trainings through the command line, shared by the tests of the verbs."""

import json
from pathlib import Path
from typing import Any

import pytest

from torchstone.cli import main

SHORT = ["run.epochs=2", "run.threads=1", "run.trackers=[]"]
TINY_GPT = [
    "gpt-bytes",
    "data.context=16",
    "data.max_bytes=4000",
    "depth=1",
    "dim=16",
    "num_heads=2",
    "run.steps=2",
    "run.batch_size=4",
    "evaluate_every=2",
    "run.threads=1",
    "run.trackers=[]",
]


def train(*arguments: str, out: Path | None = None, code: int = 0) -> None:
    """`torchstone train digits-mini` in a second, or with another recipe first."""
    recipe = [] if arguments and (arguments[0] in TINY_GPT or arguments[0].endswith(".toml")) else ["digits-mini", *SHORT]
    place = [] if out is None else ["--out", str(out)]
    assert main(["train", *recipe, *arguments, *place]) == code


def only_json(capsys: pytest.CaptureFixture[str]) -> Any:
    """The one document on stdout, strictly."""
    return json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def refused(arguments: list[str], *words: str, capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The command fails with one line that holds the words, and nothing on stdout; what was said of the data may stand before it."""
    capsys.readouterr()
    assert main(arguments) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    *said, error = shown.err.splitlines()
    assert error.startswith("error: ") and shown.err.endswith("\n"), shown.err
    assert all(line.startswith(("data: ", "classes: ", "groups: ", "decoding ", "fold ")) for line in said), shown.err
    for word in words:
        assert word in error, shown.err
    return error + "\n"


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
