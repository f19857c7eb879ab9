"""Killed anywhere and resumed = never killed, bit for bit: weights, average, optimizer, evaluations, log, final numbers, folders.

`kill_sweep.py` does the work in a process of its own, which forks a child a run.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from train.small import ENVIRONMENT

SWEEP = Path(__file__).with_name("kill_sweep.py")


def sweep(*words: str | int) -> dict:
    done = subprocess.run([sys.executable, str(SWEEP), *map(str, words)], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def require_all_killed(found: dict, start: int, step: int) -> None:
    assert found["differ"] == []
    assert found["kills"] == len(range(start, found["operations"] + 1, step))


def test_a_few_file_operations() -> None:
    found = sweep("digits", "operations", 7, 61)
    require_all_killed(found, 7, 61)
    assert found["operations"] > 150


@pytest.mark.slow
@pytest.mark.parametrize("start", [1, 2])
def test_every_file_operation(start: int) -> None:
    """Odd and even ones apart, so that two workers share them."""
    require_all_killed(sweep("digits", "operations", start, 2), start, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_hundred_random_instants(seed: int) -> None:
    found = sweep("digits", "instants", 100, seed)
    assert found["differ"] == []
    assert found["kills"] == 100


@pytest.mark.slow
def test_a_language_model() -> None:
    require_all_killed(sweep("gpt", "operations", 1, 5), 1, 5)


@pytest.mark.slow
def test_a_language_model_at_random_instants() -> None:
    assert sweep("gpt", "instants", 20, 2)["differ"] == []
