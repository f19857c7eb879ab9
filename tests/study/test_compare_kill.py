"""A study killed without warning at random moments and started again each time: the same results.json, to the last byte."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from train.small import COMMAND, ENVIRONMENT, MLP

WORDS = ["digits-mini", *MLP, "run.epochs=60", "--vary", "averaging=none,ema", "--vary", "run.note=a,b", "--seeds", "3"]


def start(out: Path, *more: str) -> subprocess.Popen:
    command = [*COMMAND, "compare", *WORDS, "--out", str(out), *more]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
    )


def finish(out: Path, *more: str) -> None:
    process = start(out, *more)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said


@pytest.mark.slow
def test_five_kills_and_the_same_results(tmp_path):
    """Of one worker and of two in turn; every sitting is killed within a second and a half of its first training."""
    finish(tmp_path / "whole")
    moments = random.Random(1)
    killed = tmp_path / "killed"
    for kill in range(5):
        process = start(killed, "--workers", str(1 + kill % 2), *(["--resume"] if killed.exists() else []))
        assert process.stderr is not None
        process.stderr.readline()  # the plan is said: from here on there is something to cut off
        time.sleep(moments.uniform(0.0, 1.5))
        assert process.poll() is None, "the study was over before it was killed"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=600)
    over = {path: path.stat().st_mtime_ns for path in killed.rglob("metrics.json")}
    assert len(over) < 9
    finish(killed, "--workers", "2", "--resume")
    assert (killed / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in over} == over  # what was finished was not trained again
    assert json.loads((killed / "costs.json").read_text())["study"]["runs"] == 9 - len(over)
