"""Help is fast and needs no torch; usage errors are one line."""

import os
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from torchstone.cli import main
from torchstone.cli.env import EXTRAS
from torchstone.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=SOURCE, capture_output=True, text=True, timeout=240, check=False)


def test_no_help_imports_torch() -> None:
    code = """
import sys
from torchstone.cli import main
from torchstone.cli.main import VERBS
for arguments in ([], ["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)):
    assert main(arguments) == 0, arguments
assert main(["train"]) == 2
heavy = {"torch", "numpy", "scipy", "sklearn", "PIL"} & sys.modules.keys()
assert not heavy, heavy
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["predict", "--help"]])
def test_help_takes_less_than_half_a_second(arguments: list[str]) -> None:
    """Of the processor: what else runs on the machine is no fault of it."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    seconds = []
    for _ in range(3):
        started = spent()
        done = python("-m", "torchstone", *arguments)
        seconds.append(spent() - started)
        assert done.returncode == 0 and done.stderr == ""
    assert min(seconds) < 0.5


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_has_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "examples:" in shown.out and f"torchstone {verb}" in shown.out and "--json" in shown.out


def test_the_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["trian"], "there is no verb 'trian', did you mean \"train\"?"),
        (["train"], "required: RECIPE; see torchstone train --help"),
        (["train", "digits", "--sed", "1"], "unrecognized arguments: --sed 1"),
        (["predict", "run"], "required: INPUT"),
        (["predict", "run", "a", "--count", "many"], "invalid int value: 'many'"),
        (["--nonsense"], "there is no verb '--nonsense'"),
    ],
)
def test_a_wrong_command_is_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and words in shown.err


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        name: tuple(requirement.split(">")[0] for requirement in wanted)
        for name, wanted in project["optional-dependencies"].items()
        if name not in ("dev", "oracles")
    }
    assert declared == EXTRAS
