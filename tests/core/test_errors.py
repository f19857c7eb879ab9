"""Errors carry what the command line needs; warnings come once; nothing printed can drive a terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchstone.core import errors
from torchstone.core.errors import Damaged, Interrupted, UserError, WorkError, clean, warn


def test_damaged_files_are_the_users_to_act_on():
    assert issubclass(Damaged, UserError) and issubclass(UserError, ValueError)


def test_work_error_carries_the_finding():
    error = WorkError("diverged at step 7", finding="the rate is too high")
    assert str(error) == "diverged at step 7" and error.finding == "the rate is too high"
    assert WorkError("out of memory").finding == ""


def test_interrupted_carries_the_signal():
    assert Interrupted(15).signal == 15
    assert str(Interrupted(2)) == "interrupted by signal 2"


def test_a_warning_comes_once_and_on_stderr(capsys):
    for _ in range(3):
        warn("one of a kind: test_errors")
    captured = capsys.readouterr()
    assert captured.err == "warning: one of a kind: test_errors\n" and captured.out == ""


def test_a_warning_is_cleaned(capsys):
    warn("test_errors \x1b[31mred\x1b[0m")
    assert capsys.readouterr().err == "warning: test_errors red\n"


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("plain äöü 漢字 🙂", "plain äöü 漢字 🙂"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bx\x1bcy", "xy"),
        ("over\rwritten\x08\x7f", "overwritten"),
        ("\x9b31mred", "31mred"),
        ("gnp.\u202etxt", "gnp.txt"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("\x1b", ""),
    ],
)
def test_clean(dirty, expected):
    assert clean(dirty) == expected
    assert clean(clean(dirty)) == expected


@pytest.mark.parametrize("module", ["torchstone.core.errors", "torchstone.core.tree"])
def test_imports_no_torch(module):
    code = f"import sys, {module}; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    source = str(Path(errors.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240, env={**os.environ, "PYTHONPATH": source})
