"""A study killed without warning at random moments and started again each time: the same results.json, to the last byte."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from train.small import COMMAND, ENVIRONMENT, MLP

WORDS = ["digits-mini", *MLP, "run.epochs=12", "--vary", "averaging=none,ema", "--vary", "run.note=a,b", "--seeds", "3"]


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
@pytest.mark.parametrize("workers", ["1", "2"])
def test_five_kills_and_the_same_results(tmp_path, workers):
    finish(tmp_path / "whole")
    moments, kills = random.Random(int(workers)), 0
    killed = tmp_path / "killed"
    for _ in range(60):
        process = start(killed, "--workers", workers, *(["--resume"] if killed.exists() else []))
        assert process.stderr is not None
        process.stderr.readline()  # the plan is said: from here on there is something to cut off
        time.sleep(moments.uniform(0.0, 8.0))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate(timeout=600)
        if kills == 5:
            break
    assert kills == 5
    over = {path: path.stat().st_mtime_ns for path in killed.rglob("metrics.json")}
    finish(killed, "--workers", workers, "--resume")
    assert (killed / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in over} == over  # what was finished was not trained again
    assert json.loads((killed / "costs.json").read_text())["study"]["runs"] == 9 - len(over)
