"""Two processes on one run folder: the second is told who has it, and changes nothing."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from hostile.child import require_refusal
from train.small import COMMAND, ENVIRONMENT, MLP


def test_the_second_is_told_who_has_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["train", "digits-mini", *MLP, "run.epochs=100000", "run.evaluate_every=1000000", "--out", str(out)]
    first = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + 240
        while not (out / "log.jsonl").exists():
            assert first.poll() is None and time.monotonic() < deadline, first.stderr
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)  # alive, holding, and not writing: what the second may not touch stays comparable
        message = require_refusal(out, *words, "--resume", names=str(out))
        assert f"in use by process {first.pid} on " in message
        first.send_signal(signal.SIGCONT)
        assert first.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(0.2)
    finally:
        first.kill()
        first.communicate()
