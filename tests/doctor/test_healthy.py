"""Healthy experiments: nothing of severity "error", and no check that falls over."""

from pathlib import Path

import pytest

from doctor.healthy import SETTINGS, Missing, made
from doctor.patients import PATIENT
from torchstone.doctor import CHECKS, examine

QUICK = ("digits-mini", "gpt-bytes, tiny")
LONG = ("fashion",)
"""Minutes: `benchmarks/doctor_alarms.py` examines it."""


def healthy(name: str, folder: Path) -> None:
    try:
        experiment = made(name, folder)
    except Missing as missing:
        pytest.skip(str(missing))
    examination = examine(experiment, budget=PATIENT)
    errors = [(finding.check, finding.summary) for finding in examination.findings if finding.severity == "error"]
    assert not errors
    assert [check.check for check in examination.checks] == [check.name for check in CHECKS]
    assert not [check.why for check in examination.checks if check.why.startswith("could not be run")]
    for check in examination.checks:
        assert check.why or check.outcome == "found", f"{check.check} says nothing"


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_one(name: str, tmp_path: Path) -> None:
    healthy(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in QUICK + LONG])
def test_nothing_is_wrong(name: str, tmp_path: Path) -> None:
    healthy(name, tmp_path)


def test_there_are_ten_or_more() -> None:
    assert len(SETTINGS) >= 10
