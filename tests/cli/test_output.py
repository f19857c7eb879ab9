"""Every way to fail is one line and an exit code."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torchstone.cli import main, output
from torchstone.cli import main as entry
from torchstone.core.errors import Damaged, Interrupted, UserError, WorkError


@pytest.mark.parametrize(
    "error, code, words",
    [
        (UserError("a is wrong"), 2, "a is wrong"),
        (Damaged("f: damaged"), 2, "f: damaged"),
        (ValueError("Run.seed must be"), 2, "Run.seed must be"),
        (WorkError("diverged", finding="rate too high"), 1, "diverged; rate too high"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 1, "a/b: No space left on device"),
        (MemoryError(), 1, "out of memory"),
        (torch.OutOfMemoryError("CUDA"), 1, "accelerator is out of memory"),
        (KeyError("x"), 1, "KeyError: 'x'"),
        (Interrupted(signal.SIGINT, "interrupted at step 3"), 130, "interrupted at step 3"),
        (Interrupted(signal.SIGTERM), 143, "interrupted"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (UserError("two\nlines\x1b[31m red"), 2, "two lines red"),
    ],
)
def test_failures(error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert output.failed(error) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and words in shown.err
    assert "\x1b" not in shown.err


def test_a_traceback_comes_with_debug_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nothing"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["train", "nothing", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown and shown.splitlines()[-1].startswith("error: ")


def test_only_rank_0_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    output.say("a")
    output.say_json({})
    assert entry(["train", "nothing"]) == 2
    assert output.failed(WorkError("diverged")) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == ""
    local = WorkError("sample 3 could not be prepared")
    local.__cause__ = ValueError()
    assert output.failed(local) == 1
    assert capsys.readouterr().err == "error: rank 1: sample 3 could not be prepared\n"


def test_a_closed_pipe_is_quiet() -> None:
    source = str(Path(__file__).resolve().parents[2] / "src")
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "torchstone", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": source}, timeout=240, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_python_warnings_become_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    from torchstone.cli.main import VERBS

    def run(arguments: object) -> int:
        warnings.simplefilter("always")
        warnings.warn("watch\nout", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(VERBS["env"], "run", run)
    before = warnings.showwarning
    assert main(["env"]) == 0
    assert capsys.readouterr().err == "warning: watch out\n"
    assert warnings.showwarning is before


def test_numbers_and_tables() -> None:
    assert [output.number(value) for value in (None, float("nan"), 0.5, 1e-7, 3, 0.0)] == ["-", "-", "0.5000", "1e-07", "3", "0.0000"]
    assert output.table([("a", "b"), ("long", "c")], indent=" ") == [" a     b", " long  c"]
    assert output.table([]) == []
