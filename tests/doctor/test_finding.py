"""Findings: their order, their document, and what a damaged one says."""

import math
from pathlib import Path

import pytest

from torchstone.core.errors import UserError
from torchstone.doctor.finding import Checked, Examination, Finding, bars, curve, images, ordered, read_findings, table, write_findings

ONE = Finding(
    check="a",
    severity="warning",
    summary="One of two.",
    value=1.0,
    threshold=2.0,
    because="so",
    evidence=table(["x"], [[1]]),
    remedy=("run.epochs=2",),
    advice="do",
    rank=3,
)


def test_severity_first_then_rank() -> None:
    found = [
        Finding(check="note", severity="note", summary="", rank=0),
        Finding(check="late", severity="error", summary="", rank=9),
        Finding(check="early", severity="error", summary="", rank=1),
        Finding(check="warning", severity="warning", summary="", rank=0),
    ]
    assert [finding.check for finding in ordered(found)] == ["early", "late", "warning", "note"]


def test_round_trip_through_a_run_folder(tmp_path: Path) -> None:
    examination = Examination(
        findings=ordered([ONE, Finding(check="b", severity="error", summary="Bad.", value=math.inf)]),
        checks=(
            Checked(check="a", outcome="found", value=1.0, threshold=2.0, seconds=0.25),
            Checked(check="c", outcome="skipped", why="none"),
        ),
    )
    back = read_findings(write_findings(tmp_path, examination))
    assert [finding.check for finding in back.findings] == ["b", "a"]
    assert back.findings[0].value is None, "JSON has no infinity"
    assert back.findings[1].document() == ONE.document() and back.checks == examination.checks and back.seconds == 0.25


def test_joined_is_sorted() -> None:
    first = Examination(findings=(ONE,), seconds=1.0)
    second = Examination(
        findings=(Finding(check="b", severity="error", summary="Bad."),), checks=(Checked(check="b", outcome="found"),), seconds=2.0
    )
    both = first.joined(second)
    assert [finding.check for finding in both.findings] == ["b", "a"] and both.seconds == 3.0 and len(both.checks) == 1


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "not JSON"),
        ("[]", "not the findings of a doctor"),
        ('{"kind": "findings", "version": 9}', "findings of version 9"),
        ('{"kind": "findings", "version": 1, "findings": [{"check": "a"}], "checks": []}', "is not whole"),
        ('{"kind": "findings", "version": 1, "findings": [], "checks": [{"color": 1}]}', "is not whole"),
    ],
)
def test_a_damaged_document_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "findings.json").write_text(text)
    with pytest.raises(UserError, match=words):
        read_findings(tmp_path / "findings.json")


def test_an_unknown_severity_is_refused() -> None:
    with pytest.raises((ValueError, TypeError), match="severity"):
        Finding(check="a", severity="fatal", summary="")  # type: ignore[arg-type]


def test_evidence_is_plain() -> None:
    assert curve("step", "loss", {"train": ([1], [2.0])}) == {
        "kind": "curve",
        "x": "step",
        "y": "loss",
        "lines": [{"name": "train", "x": [1], "y": [2.0]}],
    }
    assert bars(["a"], [1.0]) == {"kind": "bars", "labels": ["a"], "values": [1.0]}
    assert images(["a.png"], ["A"]) == {"kind": "images", "files": ["a.png"], "captions": ["A"]}
