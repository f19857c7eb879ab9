"""Ctrl-C and SIGTERM: the run is saved at the next step, the exit code says so, and --resume ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchstone.core.errors import Interrupted
from torchstone.train.signals import SIGNALS, listening
from train.small import COMMAND, ENVIRONMENT, MLP, ending, train

LONG = ("run.epochs=300", "run.evaluate_every=1000", "run.keep=1")
"""1,500 updates: a second or two, so that a signal lands in the middle."""


@pytest.fixture(autouse=True)
def handlers_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_ends(number: int) -> None:
    with listening() as request:
        assert request.signal is None
        os.kill(os.getpid(), number)
        assert request.signal == number
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), listening():
        raise ZeroDivisionError


def test_outside_the_main_thread_nothing_is_caught() -> None:
    seen = []

    def body() -> None:
        with listening() as request:
            seen.append(request.signal)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [None]


def test_in_python_an_interruption_is_an_exception_after_a_checkpoint(tmp_path: Path) -> None:
    class Sender(threading.Thread):
        def run(self) -> None:
            while not (tmp_path / "a" / "log.jsonl").exists():
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGTERM)

    sender = Sender(daemon=True)
    sender.start()
    with pytest.raises(Interrupted, match=r"interrupted at step \d+; --out .*/a --resume goes on") as stopped:
        train(tmp_path / "a", *LONG)
    sender.join()
    assert stopped.value.signal == signal.SIGTERM
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["status"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_line_saves_says_how_to_go_on_and_does(number: int, code: int, tmp_path: Path) -> None:
    out = tmp_path / "a"
    command = [*COMMAND, "train", "digits-mini", *MLP, *LONG, "--out", str(out)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while not ((out / "log.jsonl").exists() and (out / "log.jsonl").stat().st_size > 300):
        assert running.poll() is None, running.communicate()
        time.sleep(0.005)
    running.send_signal(number)
    stdout, stderr = running.communicate(timeout=240)
    assert running.returncode == code, stderr
    assert stdout == ""
    *said, last = stderr.splitlines()  # what was announced before the run, then one line
    assert [line.split(":")[0] for line in said] == ["data", "data", "classes", "groups"], stderr
    assert "interrupted at step" in last and f"--out {out} --resume" in last
    saved = int((out / "checkpoints" / "last").read_text().removeprefix("step-"))
    assert 0 < saved < 1500 and f"step {saved};" in stderr

    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    subprocess.run([*command[:-1], str(tmp_path / "b")], check=True, capture_output=True, env=ENVIRONMENT)
    assert ending(out) == ending(tmp_path / "b")
